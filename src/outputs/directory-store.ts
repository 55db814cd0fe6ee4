import type { Content, Instant } from '../core/content.ts'
import { replaceLink } from './atomic-file.ts'
import { damageOf, type Generation } from './generation.ts'
import { DATA_LINK } from './layout.ts'
import { takeLock } from './lock.ts'
import { type DirectorySet, visibleNames, wipeKeys } from './output.ts'
import type { PinnedDir } from './pinned-dir.ts'
import {
  build,
  clear,
  collect,
  commit,
  discard,
  find,
  isWhole,
  pendingOf,
  publish,
  rebuild,
  type Shelf,
  stage,
  sync,
} from './shelf.ts'
import type { Codec, Memory, Repair } from './store.ts'
import { PREVIOUS_LINK, survey, sweep } from './survey.ts'
import { assertInPlace, assertNoMounts, assertReplaceable, assertWritable, openVolume } from './volume.ts'

export interface DirectoryOptions<C extends Content> {
  readonly path: string
  readonly certificate: string
  /** Mode to make the directory with. */
  readonly mode: number
  /** Names that readers find in it. */
  readonly names: readonly string[]
  /** Directories that show files of its set. */
  readonly views: readonly ViewOptions[]
  /** What a bundle becomes here, by the present config. */
  readonly render: (bundle: C) => DirectorySet
  readonly codec: Codec<C>
  readonly now: () => Instant
  readonly keepMs: number
}

/** A directory in which readers find links into the set of another one. Nothing else of it lies there. */
export interface ViewOptions {
  readonly path: string
  /** Mode to make it with. */
  readonly mode: number
  readonly names: readonly string[]
}

/** A set that is complete on disk, but not yet what readers see. */
export interface Prepared {
  /** The directory that holds it. */
  readonly path: string
  commit(memory: Memory): Promise<void>
  /** Removes what was prepared for readers; the generation stays, for another try. */
  discard(): Promise<void>
}

/**
 * The files of one certificate in one directory:
 * ```
 * ROOT/ ..gen-<number>-<random>/  a whole set, never changed once complete: its files, ..bundle.pem, and ..manifest.json last
 *       ..data -> ..gen-…         the set in place; swapping this link is the commit
 *       ..prev -> ..gen-…         the last other set that was proven to be served
 *       ..state.json              what must survive a restart (first directory only)
 *       ..tmp-<random>            on its way to another name, by rename
 *       tls.crt -> ..data/tls.crt …   what readers use; `layout.ts`
 * ```
 * Writing a set:
 * 1. the directory is still the one that was opened; leftovers are cleared;
 * 2. the set is found among the generations, or built (`generation.ts`);
 * 3. the visible names are prepared; here the caller may still say no;
 * 4. `commit` (`shelf.ts`).
 * A stop at any point is mended by `recover` (`survey.ts`), which has one rule for all layouts: make the directory show what `..data` names.
 */
export interface DirectoryStore<C extends Content> extends AsyncDisposable {
  readonly root: PinnedDir
  readonly current: Generation<C> | undefined
  /** The last other set that was proven to be served. */
  readonly previous: Generation<C> | undefined
  /** Newer than the current one, and refused by the target. */
  pending(memory: Memory): Generation<C> | undefined
  recover(memory: Memory): Promise<void>
  preflight(memory: Memory): Promise<void>
  /** undefined where the set is in place already, down to modes and owners. */
  prepare(set: DirectorySet, bundle: C): Promise<Prepared | undefined>
  /** Brings back the set of a bundle, without writing anything where it is the previous one. */
  goBack(bundle: C, memory: Memory): Promise<void>
  repair(memory: Memory): Promise<readonly Repair[]>
}

/** Pins and locks the directory. Throws VOLUME_*, LOCK_HELD. */
export async function openDirectory<C extends Content>(options: DirectoryOptions<C>): Promise<DirectoryStore<C>> {
  const { certificate, render, codec, now, keepMs } = options
  await using opening = new AsyncDisposableStack()
  const root = await claim(opening, options)
  const views = new Map<string, PinnedDir>()
  for (const view of options.views) views.set(view.path, await claim(opening, view))
  const held = opening.move()
  const shelf: Shelf<C> = {
    root,
    views,
    certificate,
    render,
    codec,
    now,
    keepMs,
    seen: { signatures: new Map(), now },
    generations: [],
    current: undefined,
    previous: undefined,
    doubtful: new Set(),
  }
  return {
    root,
    get current() {
      return shelf.current
    },
    get previous() {
      return shelf.previous
    },
    pending: (memory) => pendingOf(shelf, memory),
    recover: (memory) => recover(shelf, memory),
    preflight: (memory) => preflight(shelf, options, memory),
    prepare: (set, bundle) => prepare(shelf, set, bundle),
    goBack: (bundle, memory) => goBack(shelf, bundle, memory),
    repair: (memory) => repair(shelf, memory),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

/** Pins and locks one directory, until `held` is disposed of. */
async function claim(held: AsyncDisposableStack, { path, mode, names }: ViewOptions): Promise<PinnedDir> {
  const dir = held.use(await openVolume(path, mode))
  await assertNoMounts(dir, names)
  held.use(await takeLock(dir))
  return dir
}

/** Every directory is still the one that was opened. */
async function assertAllInPlace({ root, views }: Pick<Shelf<Content>, 'root' | 'views'>): Promise<void> {
  for (const dir of [root, ...views.values()]) await assertInPlace(dir)
}

async function recover<C extends Content>(shelf: Shelf<C>, memory: Memory): Promise<void> {
  for (const view of shelf.views.values()) await sweep(view)
  const found = await survey(shelf.root, memory, shelf)
  shelf.generations = found.generations
  shelf.current = found.linked
  shelf.previous = found.previous
  if (!found.target) return
  const target = found.isDamaged ? await rebuild(shelf, found.target.bundle) : found.target
  await commit(shelf, target, await stage(shelf, target), memory)
  if (found.isDamaged) await discard(shelf, found.target)
  await collect(shelf, memory)
}

/** Assumed of a first set, whose files are not known yet. */
const MIN_FILES = 6

async function preflight<C extends Content>(
  shelf: Shelf<C>,
  { names, views }: Pick<DirectoryOptions<C>, 'names' | 'views'>,
  memory: Memory,
): Promise<void> {
  const { root, current } = shelf
  await assertAllInPlace(shelf)
  await clear(shelf)
  await collect(shelf, memory)
  await assertReplaceable(root, names)
  for (const view of views) {
    const dir = shelf.views.get(view.path)
    if (dir) await assertReplaceable(dir, view.names)
  }
  const files = current?.manifest.files ?? []
  const bytes = files.reduce((sum, { size }) => sum + size, 0)
  await assertWritable(root, { bytes, files: Math.max(files.length, MIN_FILES) })
}

async function prepare<C extends Content>(
  shelf: Shelf<C>,
  set: DirectorySet,
  bundle: C,
): Promise<Prepared | undefined> {
  const { root } = shelf
  await assertAllInPlace(shelf)
  await clear(shelf)
  const names = visibleNames(
    set.layout,
    set.files.filter(({ shown }) => !shown).map(({ name }) => name),
  )
  await assertReplaceable(root, names)
  const next = (await find(shelf, set)) ?? (await build(shelf, bundle, set))
  const staged = await stage(shelf, next)
  const isInPlace = next === shelf.current && (await root.readLink(DATA_LINK)) === next.name
  if (isInPlace && staged.differences.length === 0) return undefined
  return {
    path: `${root.path}/${next.name}`,
    commit: (memory) => commit(shelf, next, staged, memory),
    discard: staged.discard,
  }
}

async function goBack<C extends Content>(shelf: Shelf<C>, bundle: C, memory: Memory): Promise<void> {
  const { root, previous } = shelf
  await assertAllInPlace(shelf)
  if (!previous || previous.bundle.fingerprint !== bundle.fingerprint || !(await isAtHand(shelf, previous)))
    return goBackAnew(shelf, bundle, memory)
  // One rename over the other link, which takes neither space nor an inode: going back works on a full disk.
  await root.rename(PREVIOUS_LINK, DATA_LINK)
  shelf.current = previous
  shelf.previous = undefined
  await sync(shelf, previous)
  await publish(shelf, previous, await stage(shelf, previous))
}

async function goBackAnew<C extends Content>(shelf: Shelf<C>, bundle: C, memory: Memory): Promise<void> {
  const set = shelf.render(bundle)
  const prepared = await prepare(shelf, set, bundle).finally(() => wipeKeys(set.files))
  await prepared?.commit(memory)
}

const isAtHand = async <C extends Content>(shelf: Shelf<C>, previous: Generation<C>) =>
  (await shelf.root.readLink(PREVIOUS_LINK)) === previous.name && (await isWhole(shelf, previous))

/** A damaged generation is built anew from the bundle in memory; it is never mended in place, where a reader may be. */
async function repair<C extends Content>(shelf: Shelf<C>, memory: Memory): Promise<readonly Repair[]> {
  const { root, current, previous } = shelf
  if (!current) return []
  await assertAllInPlace(shelf)
  const links = [await repairLink(root, DATA_LINK, current), await repairLink(root, PREVIOUS_LINK, previous)].flat()
  if (links.length > 0) await sync(shelf, current)
  const damage = await damageOf(root, current, shelf.seen)
  const target = damage.length > 0 ? await rebuild(shelf, current.bundle) : current
  const staged = await stage(shelf, target)
  await commit(shelf, target, staged, memory)
  if (target !== current) await discard(shelf, current)
  await collect(shelf, memory)
  return [...links, ...damage, ...staged.differences]
}

async function repairLink(
  root: PinnedDir,
  link: string,
  generation: Generation<Content> | undefined,
): Promise<Repair[]> {
  const target = await root.readLink(link)
  if (!generation || target === generation.name) return []
  await replaceLink(root, link, generation.name)
  return [{ path: `${root.path}/${link}`, what: target === undefined ? 'missing' : 'content' }]
}
