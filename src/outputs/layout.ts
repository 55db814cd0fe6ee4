import { relative } from 'node:path'
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

/** A name that readers use: in the directory of the set, or in one that only shows what is in it. */
interface Spot {
  readonly dir: PinnedDir
  readonly name: string
  readonly file: ManifestFile
  /** What a link there holds. */
  readonly target: string
}

/** Directories that show files of the set, by path. */
export type Views = ReadonlyMap<string, PinnedDir>

/** Where files of a set are seen; those of a directory that the config names no more are left out. */
function spotsOf(root: PinnedDir, views: Views, { manifest }: Generation<Content>): Spot[] {
  return visibleFiles(manifest).flatMap((file) => {
    const { shown } = file
    if (!shown) return [{ dir: root, name: file.name, file, target: `${DATA_LINK}/${file.name}` }]
    const dir = views.get(shown.directory)
    // Relative, so that it holds wherever a volume with both is mounted.
    return dir
      ? [{ dir, name: shown.name, file, target: `${relative(dir.path, root.path)}/${DATA_LINK}/${file.name}` }]
      : []
  })
}

const pathOf = ({ dir, name }: Pick<Spot, 'dir' | 'name'>) => `${dir.path}/${name}`
/** Only in the directory of the set: others see it through `..data`, so that one rename is all. */
const isCopy = (generation: Generation<Content>, { file }: Spot) =>
  generation.manifest.layout === 'flat' && file.shown === undefined

/** Prepares the visible names for `generation`, all that can fail for want of space included. `known`: whose former names may go. */
export async function stageEntries(
  { root, views, seen }: { readonly root: PinnedDir; readonly views: Views; readonly seen: Seen },
  generation: Generation<Content>,
  known: readonly Generation<Content>[],
): Promise<Staged> {
  const renames: { dir: PinnedDir; temporary: string; name: string }[] = []
  const differences: Repair[] = []
  const discard = async () => {
    for (const { dir, temporary } of renames) await dir.remove(temporary)
  }
  const spots = spotsOf(root, views, generation)
  const stale = await staleSpots(
    spots,
    known.flatMap((one) => spotsOf(root, views, one)),
  )
  try {
    for (const spot of spots) {
      const what = await entryDifference(generation, spot, seen)
      if (!what) continue
      differences.push({ path: pathOf(spot), what })
      const temporary = temporaryName()
      renames.push({ dir: spot.dir, temporary, name: spot.name })
      await prepare(root, generation, spot, temporary)
    }
  } catch (error) {
    await discard().catch(() => {})
    throw error
  }
  return {
    differences: [...differences, ...stale.map((spot) => ({ path: pathOf(spot), what: 'stale' }))],
    publish: async () => {
      for (const { dir, temporary, name } of renames) await renameOver(dir, temporary, name)
      for (const { dir, name } of stale) await dir.remove(name)
      const touched = new Set([...renames, ...stale].map(({ dir }) => dir))
      for (const view of views.values()) if (touched.has(view)) await view.sync()
    },
    discard,
  }
}

async function entryDifference(
  generation: Generation<Content>,
  spot: Spot,
  seen: Seen,
): Promise<Repair['what'] | undefined> {
  const { dir, name, file, target } = spot
  const entry = await dir.look(name)
  if (!entry) return 'missing'
  if (entry.type !== 'file' && entry.type !== 'link')
    throw new SidecarError('FOREIGN_OBJECT', `${pathOf(spot)} is neither a file nor a symbolic link`)
  if (isCopy(generation, spot)) return differenceOf(dir, file, seen)
  if (entry.type !== 'link') return 'type'
  return (await dir.readLink(name)) === target ? undefined : 'content'
}

async function prepare(root: PinnedDir, generation: Generation<Content>, spot: Spot, temporary: string): Promise<void> {
  const { dir: at, file, target } = spot
  if (!isCopy(generation, spot)) return at.makeLink(target, temporary)
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
async function staleSpots(present: readonly Spot[], former: readonly Spot[]): Promise<Spot[]> {
  const known = new Set(present.map(pathOf))
  const stale = new Map<string, Spot>()
  for (const spot of former) {
    const path = pathOf(spot)
    if (!known.has(path) && !stale.has(path) && (await isStillOurs(spot))) stale.set(path, spot)
  }
  return [...stale.values()]
}

async function isStillOurs({ dir, name, file, target }: Spot): Promise<boolean> {
  const entry = await dir.look(name)
  if (entry?.type === 'link') return (await dir.readLink(name)) === target
  if (entry?.type !== 'file' || entry.size !== file.size) return false
  const content = await dir.readFile(name)
  const isOurs = content !== undefined && sha256(content) === file.sha256
  content?.fill(0)
  return isOurs
}
