import type { Content } from '../core/content.ts'
import { SidecarError } from '../errors.ts'
import { renameOver, temporaryName, writeNew } from './atomic-file.ts'
import { differenceOf, type Seen } from './check.ts'
import type { Generation } from './generation.ts'
import { type ManifestFile, sha256, visibleFiles } from './manifest.ts'
import type { PinnedDir } from './pinned-dir.ts'
import type { Repair } from './store.ts'

/** The link whose target is the set in place: swapping it is the commit. */
export const DATA_LINK = '..data'

/**
 * How the files of the current generation reach their readers, under the names of the config:
 * - `generation`: each name is a link to `..data/NAME`. One rename of `..data` swaps all at once; a reader that opens one file
 *   after another may still meet the swap in between.
 * - `nginx-include`: the same, and `tls.conf`, which names certificate and key by the path of their own generation. One open
 *   of `tls.conf` decides both, so no reader that goes through it meets a mixed pair.
 * - `flat`: each name is a plain file, a copy. All copies are written before the commit, and only renamed after it; a crash in
 *   between leaves a mix until the next start, which makes the names match `..data` again.
 * So `..data` says what should be there in every layout, and one rule repairs them all.
 */
export interface Staged {
  /** What of the visible names differed. */
  readonly differences: readonly Repair[]
  /** Renames what was prepared into place, removes names of earlier sets that are still ours. The caller syncs the directory. */
  publish(): Promise<void>
  /** Removes what was prepared. */
  discard(): Promise<void>
}

/** Prepares the visible names for `generation`, all that can fail for want of space included. `known`: whose former names may go. */
export async function stageEntries(
  root: PinnedDir,
  generation: Generation<Content>,
  known: readonly Generation<Content>[],
  seen: Seen,
): Promise<Staged> {
  const renames: { temporary: string; name: string }[] = []
  const differences: Repair[] = []
  const discard = async () => {
    for (const { temporary } of renames) await root.remove(temporary)
  }
  const stale = await staleNames(root, generation, known)
  try {
    for (const file of visibleFiles(generation.manifest)) {
      const what = await entryDifference(root, generation, file, seen)
      if (!what) continue
      differences.push({ path: `${root.path}/${file.name}`, what })
      const temporary = temporaryName()
      renames.push({ temporary, name: file.name })
      await prepare(root, generation, file, temporary)
    }
  } catch (error) {
    await discard().catch(() => {})
    throw error
  }
  return {
    differences: [...differences, ...stale.map((name) => ({ path: `${root.path}/${name}`, what: 'stale' }))],
    publish: async () => {
      for (const { temporary, name } of renames) await renameOver(root, temporary, name)
      for (const name of stale) await root.remove(name)
    },
    discard,
  }
}

const linkTo = (name: string) => `${DATA_LINK}/${name}`

async function entryDifference(
  root: PinnedDir,
  { manifest }: Generation<Content>,
  file: ManifestFile,
  seen: Seen,
): Promise<Repair['what'] | undefined> {
  const entry = await root.look(file.name)
  if (!entry) return 'missing'
  if (entry.type !== 'file' && entry.type !== 'link')
    throw new SidecarError('FOREIGN_OBJECT', `${root.path}/${file.name} is neither a file nor a symbolic link`)
  if (manifest.layout === 'flat') return differenceOf(root, file, seen)
  if (entry.type !== 'link') return 'type'
  return (await root.readLink(file.name)) === linkTo(file.name) ? undefined : 'content'
}

async function prepare(
  root: PinnedDir,
  generation: Generation<Content>,
  file: ManifestFile,
  temporary: string,
): Promise<void> {
  if (generation.manifest.layout !== 'flat') return root.makeLink(linkTo(file.name), temporary)
  await using dir = await root.open(generation.name)
  const content = await dir.readFile(file.name)
  try {
    if (!content || sha256(content) !== file.sha256)
      throw new SidecarError('TAMPERED', `${dir.path}/${file.name} changed while it was copied`)
    await writeNew(root, temporary, { ...file, content })
  } finally {
    content?.fill(0)
  }
}

/** Names that earlier sets published and this one does not, as far as they still are what those sets put there. */
async function staleNames(
  root: PinnedDir,
  generation: Generation<Content>,
  known: readonly Generation<Content>[],
): Promise<string[]> {
  const present = new Set(visibleFiles(generation.manifest).map(({ name }) => name))
  const former = known.flatMap(({ manifest }) => visibleFiles(manifest)).filter(({ name }) => !present.has(name))
  const stale = new Set<string>()
  for (const file of former) if (!stale.has(file.name) && (await isStillOurs(root, file))) stale.add(file.name)
  return [...stale]
}

async function isStillOurs(root: PinnedDir, file: ManifestFile): Promise<boolean> {
  const entry = await root.look(file.name)
  if (entry?.type === 'link') return (await root.readLink(file.name)) === linkTo(file.name)
  if (entry?.type !== 'file' || entry.size !== file.size) return false
  const content = await root.readFile(file.name)
  const isOurs = content !== undefined && sha256(content) === file.sha256
  content?.fill(0)
  return isOurs
}
