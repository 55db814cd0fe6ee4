import type { Content } from '../core/content.ts'
import { SidecarError } from '../errors.ts'
import { TEMPORARY } from './atomic-file.ts'
import type { Seen } from './check.ts'
import { builtAt, damageOf, type Generation, isGenerationName, loadGeneration, removeGeneration } from './generation.ts'
import { DATA_LINK } from './layout.ts'
import { STATE_FILE } from './memory.ts'
import type { Entry, PinnedDir } from './pinned-dir.ts'
import type { Codec, Memory } from './store.ts'
import { isOurs } from './volume.ts'

export const PREVIOUS_LINK = '..prev'

/** What is found in a directory, and what should be in place there. */
export interface Findings<C extends Content> {
  /** All that can be read, oldest first. */
  readonly generations: readonly Generation<C>[]
  /** What `..data` names, if that can be read. */
  readonly linked: Generation<C> | undefined
  /** What `..prev` names, if that is whole. */
  readonly previous: Generation<C> | undefined
  /** What should be in place. */
  readonly target: Generation<C> | undefined
  /** The target's bundle is good but not all of its files: they must be made anew. */
  readonly isDamaged: boolean
}

/**
 * Looks through a directory after a stop of any kind:
 * 1. what is not ours under our names is an error, temporary names are removed;
 * 2. generations that nothing names and that are not whole are removed;
 * 3. in place should be what `..data` names; if that cannot be read, what `..prev` names; else the newest whole one;
 * 4. but if a newer whole one is there, that one: the writer stopped just before its commit. Except one the target refused.
 * A condemned one is in place only where it is already. Writes nothing where nothing was left behind.
 */
export async function survey<C extends Content>(
  root: PinnedDir,
  { rejected, condemned }: Memory,
  { seen, codec }: { readonly seen: Seen; readonly codec: Codec<C> },
): Promise<Findings<C>> {
  const names = await sweep(root)
  const [data, prev] = [await root.readLink(DATA_LINK), await root.readLink(PREVIOUS_LINK)]
  const generations: Generation<C>[] = []
  const whole: Generation<C>[] = []
  for (const name of names.filter(isGenerationName)) {
    const generation = await loadGeneration(root, name, codec)
    const isWhole = generation !== undefined && (await damageOf(root, generation, seen)).length === 0
    if (isWhole) whole.push(generation)
    if (isWhole || (generation && (name === data || name === prev))) generations.push(generation)
    else if (name !== data && name !== prev) await removeGeneration(root, name)
  }
  generations.sort(byAge)
  whole.sort(byAge)
  const linked = generations.find(({ name }) => name === data)
  const previous = whole.find(({ name }) => name === prev)
  const fit = whole.filter(({ manifest }) => !condemned.includes(manifest.fingerprint))
  const isRejected = ({ manifest }: Generation<C>) => rejected.includes(manifest.fingerprint)
  const fallback = fit.find((one) => one === previous) ?? fit.findLast((one) => !isRejected(one)) ?? fit.at(-1)
  const base = linked ?? fallback
  const newest = base && newerThan(base, fit).at(-1)
  const target = newest && !isRejected(newest) ? newest : base
  return { generations, linked, previous, target, isDamaged: target !== undefined && !whole.includes(target) }
}

const byAge = (a: Generation<Content>, b: Generation<Content>) =>
  a.manifest.sequence - b.manifest.sequence || builtAt(a.name) - builtAt(b.name)

/** Those whose bundle was received later, oldest first. */
export const newerThan = <C extends Content>(
  base: Generation<C>,
  generations: readonly Generation<C>[],
): Generation<C>[] => generations.filter(({ manifest }) => manifest.sequence > base.manifest.sequence).sort(byAge)

/** Removes temporary names and returns all others. Throws FOREIGN_OBJECT where something else stands under a name of ours. */
export async function sweep(root: PinnedDir): Promise<string[]> {
  const names = await root.list()
  for (const name of names) {
    const mayBe = expectedAt(name)
    const entry = mayBe && (await root.look(name))
    if (entry && !mayBe(entry))
      throw new SidecarError(
        'FOREIGN_OBJECT',
        `${root.path}/${name} is not what certferry puts there: ${describe(entry)}`,
      )
    if (TEMPORARY.test(name)) await root.remove(name)
  }
  return names.filter((name) => !TEMPORARY.test(name))
}

/** What may stand at a name of ours; undefined for names that are not. */
function expectedAt(name: string): ((entry: Entry) => boolean) | undefined {
  if (name === DATA_LINK || name === PREVIOUS_LINK) return ({ type, uid }) => type === 'link' && isOurs(uid)
  if (name === STATE_FILE) return ({ type, uid }) => type === 'file' && isOurs(uid)
  if (isGenerationName(name)) return ({ type, uid }) => type === 'directory' && isOurs(uid)
  // A copy on its way to a name that belongs to another user has its owner already.
  if (TEMPORARY.test(name)) return ({ type }) => type === 'file' || type === 'link'
  return undefined
}

const describe = ({ type, uid }: Entry) =>
  `a ${{ file: 'file', link: 'symbolic link', directory: 'directory', other: 'FIFO, socket or device' }[type]} of user ${uid}`
