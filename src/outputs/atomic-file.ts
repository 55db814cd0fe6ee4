import { randomUUID } from 'node:crypto'
import { formatMode } from '../core/units.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { modeOf, setAcl } from './acl.ts'
import { diskError } from './disk-error.ts'
import type { OpenFile, PinnedDir } from './pinned-dir.ts'

/** A file as it shall be. */
export interface NewFile {
  readonly content: Buffer
  readonly mode: number
  /** Those of this process unless given. */
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  /** Entries besides the mode, or a whole ACL as `setAcl` gave it. */
  readonly acl?: readonly string[] | undefined
}

export const TEMPORARY = /^\.\.tmp-[0-9a-f]{16}$/
/** Of a UUID, for which Node draws its bytes in advance; that nobody wrote there before is for the exclusive creation to say. */
export const temporaryName = (): string => `..tmp-${randomUUID().replaceAll('-', '').slice(0, 16)}`

/**
 * Writes a new file, complete and durable but for its name, which the directory's `sync` makes durable:
 * 1. exclusive creation with 0600, following no link: a planted file or link is an error, never written through;
 * 2. owner, then mode, then ACL (by descriptor, since the umask narrows the mode given at creation, and chown may clear bits), before any content;
 * 3. content, in a loop, since one write may be short without an error;
 * 4. fsync: after it fails the pages count as clean, so the file is given up and never synced again;
 * 5. size, mode and content read back as the file system has them.
 * What fails leaves nothing behind. Resolves with the owner, mode and ACL it got. Throws OWNER_DENIED or ACL_DENIED where they may not be set.
 */
export async function writeNew(dir: PinnedDir, name: string, file: NewFile): Promise<Access> {
  const path = `${dir.path}/${name}`
  const handle = await dir.create(name)
  try {
    await setOwner(handle, file, path)
    await handle.setMode(file.mode)
    const acl = file.acl && (await setAcl(handle.fd, file.mode, file.acl, path))
    await writeAll(handle, file.content)
    await handle.sync()
    const access = await readBack(handle, acl ? { ...file, mode: modeOf(acl) } : file, path)
    await handle.close()
    return { ...access, ...(acl && { acl }) }
  } catch (cause) {
    await handle.close().catch(() => {})
    await dir.remove(name).catch(() => {})
    throw diskError('write', path, cause)
  }
}

export interface Access {
  readonly uid: number
  readonly gid: number
  /** Where there is an ACL, its mask stands in place of the group's bits (acl(5)). */
  readonly mode: number
  readonly acl?: string[]
}

async function setOwner(handle: OpenFile, { uid, gid }: NewFile, path: string): Promise<void> {
  if (uid === undefined && gid === undefined) return
  const own = await handle.stat()
  const owner = { uid: uid ?? own.uid, gid: gid ?? own.gid }
  if (owner.uid === own.uid && owner.gid === own.gid) return
  await handle.setOwner(owner.uid, owner.gid).catch((cause) => {
    if (systemCode(cause) !== 'EPERM') throw cause
    throw new SidecarError('OWNER_DENIED', `cannot give ${path} to ${owner.uid}:${owner.gid} (EPERM)`, { cause })
  })
}

async function writeAll(handle: OpenFile, content: Buffer): Promise<void> {
  for (let done = 0; done < content.length; ) {
    const taken = await handle.write(content, done)
    if (taken === 0) throw new SidecarError('WRITE_FAILED', 'the file system took no more bytes')
    done += taken
  }
}

async function readBack(handle: OpenFile, { content, mode }: NewFile, path: string): Promise<Access> {
  const stat = await handle.stat()
  const found = Buffer.alloc(content.length)
  const bytesRead = await handle.read(found)
  const isSame = stat.size === content.length && bytesRead === content.length && found.equals(content)
  found.fill(0)
  if (!isSame) throw new SidecarError('WRITE_FAILED', `${path} does not read back as it was written`)
  if (stat.mode !== mode)
    throw new SidecarError(
      'WRITE_FAILED',
      `${path} has mode ${formatMode(stat.mode)}, not the ${formatMode(mode)} it was given`,
    )
  return { uid: stat.uid, gid: stat.gid, mode }
}

/** Puts a file at `name` at once, whatever file or link stands there, and makes it durable. */
export async function replaceFile(dir: PinnedDir, name: string, file: NewFile): Promise<void> {
  const temporary = temporaryName()
  await writeNew(dir, temporary, file)
  await renameOver(dir, temporary, name)
  await dir.sync()
}

/** Points the symbolic link `name` to `target` at once. The caller syncs the directory. */
export async function replaceLink(dir: PinnedDir, name: string, target: string): Promise<void> {
  const temporary = temporaryName()
  await dir.makeLink(target, temporary)
  await renameOver(dir, temporary, name)
}

/** A rename that leaves no temporary name behind when it fails. */
export async function renameOver(dir: PinnedDir, temporary: string, name: string): Promise<void> {
  try {
    await dir.rename(temporary, name)
  } catch (error) {
    await dir.remove(temporary).catch(() => {})
    throw error
  }
}
