import type { Content } from '../core/content.ts'
import { SidecarError } from '../errors.ts'
import type { DirectoryOptions, DirectoryStore, Prepared } from './directory-store.ts'
import { type FileSet, type Output, render, setsOf, visibleNames } from './output.ts'
import type { Codec, StoreOptions } from './store.ts'

const KEEP_MS = 600_000

/** One store per directory, in the order of the config. */
export function directoriesOf<C extends Content>(
  codec: Codec<C>,
  { certificate, outputs, now, keepMs = KEEP_MS }: StoreOptions<C>,
): DirectoryOptions<C>[] {
  return setsOf(outputs).map(({ directory: path, own, all }) => ({
    path,
    certificate,
    mode: modeFor(all),
    names: visibleNames(
      own[0]?.layout ?? 'generation',
      own.flatMap(({ names }) => names),
    ),
    views: [
      ...Map.groupBy(
        all.filter(({ oneSetWith }) => oneSetWith !== undefined),
        ({ directory }) => directory,
      ),
    ].map(([view, group]) => ({ path: view, mode: modeFor(group), names: group.flatMap(({ names }) => names) })),
    render: (bundle) => {
      const [set] = render(all, bundle).directories
      if (!set) throw new SidecarError('BUG', `no output renders to ${path}`)
      return set
    },
    codec,
    now,
    keepMs,
  }))
}

const modeFor = (group: readonly Pick<Output<never>, 'isShared'>[]) =>
  group.some(({ isShared }) => isShared) ? 0o711 : 0o700

/** Builds what is not in place yet in each directory; all or, when one fails, no visible trace. */
export async function prepareAll<C extends Content>(
  directories: readonly DirectoryStore<C>[],
  set: FileSet<C>,
): Promise<Prepared[]> {
  const prepared: Prepared[] = []
  try {
    for (const part of set.directories) {
      const directory = directories.find(({ root }) => root.path === part.directory)
      if (!directory) throw new SidecarError('BUG', `${part.directory} is not open in this store`)
      const ready = await directory.prepare(part, set.bundle)
      if (ready) prepared.push(ready)
    }
    return prepared
  } catch (error) {
    await discardAll(prepared)
    throw error
  }
}

export async function discardAll(prepared: readonly Prepared[]): Promise<void> {
  // What is left is cleared before the next write; the reason why we stopped matters more.
  for (const { discard } of prepared) await discard().catch(() => {})
}
