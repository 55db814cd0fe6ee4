import type { Content, Instant } from '../core/content.ts'
import { lifetimeOf } from '../core/renewal.ts'
import { replaceLink } from './atomic-file.ts'
import type { Seen } from './check.ts'
import {
  buildGeneration,
  builtAt,
  damageOf,
  type Generation,
  isGenerationName,
  nextName,
  removeGeneration,
} from './generation.ts'
import { DATA_LINK, type Staged, stageEntries, type Views } from './layout.ts'
import { identityOf } from './manifest.ts'
import { type DirectorySet, wipeKeys } from './output.ts'
import type { PinnedDir } from './pinned-dir.ts'
import type { Codec, Memory } from './store.ts'
import { newerThan, PREVIOUS_LINK, sweep } from './survey.ts'

/** The generations of one directory, and which of them is what. */
export interface Shelf<C extends Content> {
  readonly root: PinnedDir
  readonly views: Views
  readonly certificate: string
  /** What a bundle becomes here, by the present config. */
  readonly render: (bundle: C) => DirectorySet
  readonly codec: Codec<C>
  readonly now: () => Instant
  /** How long a generation that nothing names any more is kept, ms. */
  readonly keepMs: number
  readonly seen: Seen
  generations: readonly Generation<C>[]
  /** Behind `..data`. */
  current: Generation<C> | undefined
  /** Behind `..prev`. */
  previous: Generation<C> | undefined
  /** Names of generations whose commit may not have reached the disk: a sync that failed once proves nothing when it is repeated. */
  readonly doubtful: Set<string>
}

/** The set of a bundle once more, by the present config. */
export async function rebuild<C extends Content>(shelf: Shelf<C>, bundle: C): Promise<Generation<C>> {
  const set = shelf.render(bundle)
  return build(shelf, bundle, set).finally(() => wipeKeys(set.files))
}

export async function build<C extends Content>(shelf: Shelf<C>, bundle: C, set: DirectorySet): Promise<Generation<C>> {
  const { root, certificate, generations, now, codec } = shelf
  const existing = generations.map(({ name }) => name)
  const name = nextName(existing, now())
  const twin = generations.find(({ manifest }) => manifest.fingerprint === bundle.fingerprint)
  const sequence = twin?.manifest.sequence ?? builtAt(name)
  const built = await buildGeneration(root, { name, sequence, certificate, set, bundle, codec })
  shelf.generations = [...generations, built]
  return built
}

/** A whole generation that holds exactly this set: the current one if it does, else the latest. */
export async function find<C extends Content>(shelf: Shelf<C>, set: DirectorySet): Promise<Generation<C> | undefined> {
  const identity = identityOf(set)
  const same = shelf.generations.filter((one) => one.manifest.identity === identity && !shelf.doubtful.has(one.name))
  const rank = (one: Generation<C>) => (one === shelf.current ? Number.POSITIVE_INFINITY : builtAt(one.name))
  for (const generation of same.toSorted((a, b) => rank(b) - rank(a)))
    if (await isWhole(shelf, generation)) return generation
  return undefined
}

export const isWhole = async <C extends Content>(
  { root, seen }: Shelf<C>,
  generation: Generation<C>,
): Promise<boolean> => (await damageOf(root, generation, seen)).length === 0

export const stage = <C extends Content>(shelf: Shelf<C>, generation: Generation<C>): Promise<Staged> =>
  stageEntries(shelf, generation, shelf.generations)

/**
 * Brings `next` into place. The steps, each of which leaves either the old or the new set in place:
 * 1. `..prev` := the current one, if that one is proven to be served and whole;
 * 2. `..data` := next: the commit;
 * 3. sync;
 * 4. the visible names, prepared before, are renamed into place; sync.
 */
export async function commit<C extends Content>(
  shelf: Shelf<C>,
  next: Generation<C>,
  staged: Staged,
  memory: Memory,
): Promise<void> {
  const { root, current } = shelf
  if (current && isProven(current, memory) && !isProven(next, memory) && (await isWhole(shelf, current))) {
    await replaceLink(root, PREVIOUS_LINK, current.name)
    shelf.previous = current
  }
  if ((await root.readLink(DATA_LINK)) !== next.name) {
    await replaceLink(root, DATA_LINK, next.name)
    shelf.current = next
    await sync(shelf, next)
  }
  shelf.current = next
  await publish(shelf, next, staged)
}

const isProven = ({ manifest }: Generation<Content>, { verified }: Memory) =>
  manifest.fingerprint === verified?.fingerprint

export async function publish<C extends Content>(
  shelf: Shelf<C>,
  generation: Generation<C>,
  staged: Staged,
): Promise<void> {
  await staged.publish()
  if (staged.differences.length > 0) await sync(shelf, generation)
}

export async function sync(
  { root, doubtful }: Pick<Shelf<Content>, 'root' | 'doubtful'>,
  generation: Generation<Content>,
): Promise<void> {
  try {
    await root.sync()
  } catch (error) {
    doubtful.add(generation.name)
    throw error
  }
}

/** Removes what failed writes left behind. */
export async function clear<C extends Content>({ root, views, generations }: Shelf<C>): Promise<void> {
  for (const view of views.values()) await sweep(view)
  const names = (await sweep(root)).filter(isGenerationName)
  for (const name of names) if (!generations.some((one) => one.name === name)) await removeGeneration(root, name)
}

/** The latest generation received after the current one, and refused by the target. */
export function pendingOf<C extends Content>(
  { current, generations }: Shelf<C>,
  { rejected, condemned }: Memory,
): Generation<C> | undefined {
  const newer = current ? newerThan(current, generations) : []
  return newer.findLast(
    ({ manifest: { fingerprint } }) => rejected.includes(fingerprint) && !condemned.includes(fingerprint),
  )
}

/** So many are kept for slow readers at the most: values that change every second would fill memory and volume. */
const MOST_KEPT = 20

/** Removes generations that nothing names any more, once the one built after them is old enough that no slow reader is at them still. */
export async function collect<C extends Content>(shelf: Shelf<C>, memory: Memory): Promise<void> {
  const named = [shelf.current, shelf.previous, pendingOf(shelf, memory)]
  const inOrder = shelf.generations.toSorted((a, b) => builtAt(a.name) - builtAt(b.name))
  for (const [index, generation] of inOrder.entries()) {
    const successor = inOrder[index + 1]
    if (!successor || named.includes(generation)) continue
    if (mayBeRead(shelf, generation, successor) && inOrder.length - index <= MOST_KEPT) continue
    await removeGeneration(shelf.root, generation.name)
    forget(shelf, generation)
  }
}

/** Takes away a damaged generation that was replaced, since what it shows cannot be vouched for. What cannot be removed, `clear` names at the next write. */
export async function discard<C extends Content>(shelf: Shelf<C>, generation: Generation<C>): Promise<void> {
  forget(shelf, generation)
  await removeGeneration(shelf.root, generation.name).catch(() => {})
}

/**
 * By a slow reader. One that is slower than the certificate lives gets nothing that it could use. A number far in the future was given
 * before the clock went back: as good as old.
 */
const mayBeRead = (
  { now, keepMs }: Pick<Shelf<Content>, 'now' | 'keepMs'>,
  { manifest }: Generation<Content>,
  successor: Generation<Content>,
) => Math.abs(now() - builtAt(successor.name)) <= Math.min(keepMs, lifetimeOf(manifest))

function forget<C extends Content>(shelf: Shelf<C>, generation: Generation<C>): void {
  const { root, seen } = shelf
  shelf.generations = shelf.generations.filter((one) => one !== generation)
  const prefix = `${root.path}/${generation.name}/`
  for (const path of seen.signatures.keys()) if (path.startsWith(prefix)) seen.signatures.delete(path)
}
