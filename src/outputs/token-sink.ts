import { createHash } from 'node:crypto'
import { basename, dirname } from 'node:path'
import type { Secret } from '../core/secret.ts'
import { renameOver, writeNew } from './atomic-file.ts'
import { isShared } from './options.ts'
import { assertReplaceable, openVolume } from './volume.ts'

/** Where a token goes. */
export interface TokenFile {
  /** Absolute path. Its directory is made if it is missing, and must be as safe as that of a key. */
  readonly file: string
  readonly mode: number
  readonly uid?: number | undefined
  readonly gid?: number | undefined
}

/**
 * Replaces the file at once: who reads finds the token before or this one, whole. Throws what a write meets: VOLUME_UNSAFE,
 * VOLUME_UNAVAILABLE, FOREIGN_OBJECT, OWNER_DENIED, DISK_FULL, WRITE_FAILED.
 */
export async function writeToken({ file, mode, uid, gid }: TokenFile, token: Secret): Promise<void> {
  const name = basename(file)
  await using dir = await openVolume(dirname(file), isShared(uid, mode) ? 0o711 : 0o700)
  await assertReplaceable(dir, [name])
  const temporary = temporaryFor(name)
  // Of a write that was cut off: it holds a token.
  await dir.remove(temporary)
  const content = Buffer.from(token.reveal())
  try {
    await writeNew(dir, temporary, { content, mode, uid, gid })
  } finally {
    content.fill(0)
  }
  await renameOver(dir, temporary, name)
  await dir.sync()
}

/** The same each time, and a name that a store in that directory knows for a leftover. */
const temporaryFor = (name: string) => `..tmp-${createHash('sha256').update(name).digest('hex').slice(0, 16)}`
