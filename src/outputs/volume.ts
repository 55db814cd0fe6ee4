import { readFileSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { dirname } from 'node:path'
import { SidecarError, systemCode } from '../errors.ts'
import { renameOver, temporaryName, writeNew } from './atomic-file.ts'
import { diskError } from './disk-error.ts'
import { fileSystemAt, onThreads } from './file-system.ts'
import { type Entry, type PinnedDir, pinDirectory } from './pinned-dir.ts'

const SETGID = 0o2000
const STICKY = 0o1000

/**
 * Pins the directory of an output, made with `mode` if it is missing. Throws VOLUME_UNSAFE where others could swap its files,
 * VOLUME_UNAVAILABLE where it is no directory.
 */
export async function openVolume(path: string, mode: number): Promise<PinnedDir> {
  const isNew = await makeMissing(path)
  const dir = await pinDirectory(path).catch(async (error) => {
    const isLink = (await fs.lstat(path).catch(() => undefined))?.isSymbolicLink()
    throw isLink ? new SidecarError('VOLUME_UNSAFE', `${path} is a symbolic link; give the path it leads to`) : error
  })
  try {
    // The umask may have taken from the mode at creation.
    if (isNew) await dir.setMode(mode | ((await dir.self()).mode & SETGID))
    assertSafe(path, await dir.self())
    return dir
  } catch (error) {
    await dir[Symbol.asyncDispose]()
    throw error
  }
}

/** The directory itself for us alone, its parents as the umask says. */
async function makeMissing(path: string): Promise<boolean> {
  if (await isThere(path)) return false
  const parent = dirname(path)
  const { makePath, mkdir } = await fileSystemAt(await nearestExisting(parent))
  try {
    await makePath(parent)
    await mkdir(path, 0o700)
  } catch (cause) {
    if (systemCode(cause) === 'EEXIST') return false
    throw diskError('make directory', path, cause)
  }
  const pinned = await pinDirectory(parent).catch(() => undefined)
  await pinned?.sync().finally(() => pinned[Symbol.asyncDispose]())
  return true
}

/** Whoever may write to a directory may replace any file in it. A group that was given write access on purpose (fsGroup) is trusted. */
function assertSafe(path: string, { type, mode, uid, gid }: Entry): void {
  const refuse = (why: string) => {
    throw new SidecarError('VOLUME_UNSAFE', `${path} ${why}`)
  }
  if (type !== 'directory') refuse('is not a directory')
  if (!isOurs(uid))
    refuse(`belongs to user ${uid}, who could replace the files; certferry runs as ${process.geteuid?.()}`)
  if (mode & 0o002 && !(mode & STICKY))
    refuse(
      `is writable by everybody (mode ${mode.toString(8)}), as volumes often are at their top; use a directory in it, such as ${path}/certs`,
    )
  const ownGroups = [process.getegid?.(), ...(process.getgroups?.() ?? [])]
  if (mode & 0o020 && !(mode & (SETGID | STICKY)) && !ownGroups.includes(gid))
    refuse(`is writable by group ${gid} (mode ${mode.toString(8)}), of which certferry is no member`)
}

/** This process's user, or root, who may do anything anyway. */
export const isOurs = (uid: number): boolean => uid === 0 || uid === (process.geteuid?.() ?? uid)

/** The path must still lead to the pinned directory: else readers look elsewhere, and somebody moved what we write to. */
export async function assertInPlace(dir: PinnedDir): Promise<void> {
  const [pinned, seen] = await Promise.all([
    dir.self(),
    onThreads.lstat(dir.path).catch((cause) => {
      throw new SidecarError('VOLUME_REPLACED', `${dir.path} is gone (${systemCode(cause)})`, { cause })
    }),
  ])
  if (seen.dev !== pinned.dev || seen.ino !== pinned.ino)
    throw new SidecarError('VOLUME_REPLACED', `${dir.path} is another directory than the one certferry opened`)
  assertSafe(dir.path, pinned)
}

/**
 * The names that readers use must be free to be renamed over. Throws FOREIGN_OBJECT for what is neither file nor link,
 * VOLUME_UNSAFE for a mount.
 */
export async function assertReplaceable(dir: PinnedDir, names: readonly string[]): Promise<void> {
  await assertNoMounts(dir, names)
  for (const name of names) {
    const entry = await dir.look(name)
    if (entry && entry.type !== 'file' && entry.type !== 'link')
      throw new SidecarError('FOREIGN_OBJECT', `${dir.path}/${name} is neither a file nor a symbolic link`)
  }
}

/** Throws VOLUME_UNSAFE for a file that is mounted by itself (`-v file:file`, subPath): such a mount never sees a new file. */
export async function assertNoMounts(dir: PinnedDir, names: readonly string[]): Promise<void> {
  const mounts = mountPoints().filter((mount) => names.some((name) => mount.endsWith(`/${name}`)))
  if (mounts.length === 0) return
  const realPath = await fs.realpath(dir.path).catch(() => dir.path)
  const mounted = names.find((name) => mounts.includes(`${realPath}/${name}`))
  if (mounted === undefined) return
  throw new SidecarError(
    'VOLUME_UNSAFE',
    `${dir.path}/${mounted} is a mount of a single file, which cannot be replaced; mount the directory instead`,
  )
}

/** Where something is mounted, as Linux tells (proc_pid_mountinfo(5), field 5, octal escapes); elsewhere nothing is known. */
function mountPoints(): string[] {
  const decode = (path: string) =>
    path.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
  return readMountTable()
    .split('\n')
    .map((line) => decode(line.split(' ')[4] ?? ''))
}

let mountTable: string | undefined

/** Read once for all the sets that are looked at in one turn of the event loop. */
function readMountTable(): string {
  if (mountTable === undefined) {
    setImmediate(() => {
      mountTable = undefined
    })
    try {
      mountTable = readFileSync('/proc/self/mountinfo', 'utf8')
    } catch {
      mountTable = ''
    }
  }
  return mountTable
}

/** What `certferry doctor` says of a directory: proven writable, or how it would be made. Throws what a write would meet. */
export async function examineVolume(path: string): Promise<string> {
  if (!(await isThere(path))) {
    const parent = await nearestExisting(dirname(path))
    await fs.access(parent, fs.constants.W_OK | fs.constants.X_OK).catch((cause) => {
      throw diskError('make a directory in', parent, cause)
    })
    return `${path} does not exist yet, and can be made`
  }
  await using dir = await openVolume(path, 0o700)
  await assertWritable(dir, { bytes: 0, files: 0 })
  return `${path} is writable, and for nobody else`
}

const nearestExisting = async (path: string): Promise<string> =>
  (await isThere(path)) ? path : nearestExisting(dirname(path))

const isThere = (path: string): Promise<boolean> =>
  fs.stat(path).then(
    () => true,
    () => false,
  )

export interface Need {
  readonly bytes: number
  /** Files that a set makes. */
  readonly files: number
}

const MIN_FREE_BYTES = 64 * 1024

/** Is there room for a set four times over, and does a write go through? Throws DISK_FULL, VOLUME_UNAVAILABLE or WRITE_FAILED. */
export async function assertWritable(dir: PinnedDir, need: Need): Promise<void> {
  const { bytes, inodes } = await dir.space()
  const wantedBytes = Math.max(4 * need.bytes, MIN_FREE_BYTES)
  const wantedInodes = 2 * need.files + 6
  if (bytes < wantedBytes)
    throw new SidecarError('DISK_FULL', `${dir.path} has ${bytes} bytes free, ${wantedBytes} are needed`)
  if (inodes !== undefined && inodes < wantedInodes)
    throw new SidecarError('DISK_FULL', `${dir.path} has ${inodes} inodes free, ${wantedInodes} are needed`)
  const [probe, renamed] = [temporaryName(), temporaryName()]
  await writeNew(dir, probe, { content: Buffer.of(0), mode: 0o600 })
  await renameOver(dir, probe, renamed)
  await dir.remove(renamed)
  await dir.sync()
}
