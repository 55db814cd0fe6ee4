import type { Instant } from '../core/bundle.ts'
import { type ManifestFile, sha256 } from './manifest.ts'
import type { PinnedDir } from './pinned-dir.ts'
import type { Repair } from './store.ts'

/** Signatures of files, by path, at which their content was found right: what has not changed since need not be read again. */
export interface Seen {
  readonly signatures: Map<string, string>
  readonly now: () => Instant
}

export type FileFacts = Omit<ManifestFile, 'role'>

/** A change so recent may share its timestamp with a later one, as clocks of file systems tick coarsely. */
const SETTLED_MS = 1000

/** In which way the file is not what the manifest says; undefined where all is right. */
export async function differenceOf(dir: PinnedDir, file: FileFacts, seen: Seen): Promise<Repair['what'] | undefined> {
  const entry = await dir.look(file.name)
  if (!entry) return 'missing'
  if (entry.type !== 'file') return 'type'
  if (entry.mode !== file.mode) return 'mode'
  if (entry.uid !== file.uid || entry.gid !== file.gid) return 'owner'
  if (entry.links !== 1) return 'links'
  if (entry.size !== file.size) return 'content'
  const path = `${dir.path}/${file.name}`
  if (seen.signatures.get(path) === `${entry.signature}:${file.sha256}`) return undefined
  if (file.acl && (await dir.readAcl(file.name))?.join() !== file.acl.join()) return 'acl'
  const content = await dir.readFile(file.name)
  const isRight = content !== undefined && sha256(content) === file.sha256
  content?.fill(0)
  if (!isRight) return 'content'
  if (Math.abs(seen.now() - entry.changedAt) > SETTLED_MS)
    seen.signatures.set(path, `${entry.signature}:${file.sha256}`)
  return undefined
}
