import { lstatSync, readlinkSync } from 'node:fs'
import { basename, dirname, isAbsolute, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'

const SETTLE_MS = 100
/** However often something changes, nobody is told more often than this. */
const APART_MS = 500
const POLLING_MS = 1_000

export interface WatchOptions {
  /** Looks instead of being told: for file systems that tell nothing, such as NFS. */
  readonly polling?: boolean
  /** Between two such looks, each a stat of every file and link; 1 s by default. */
  readonly pollingMs?: number
  /** The kernel tells nothing (any more), such as for want of inotify watches. */
  readonly failed?: (error: unknown) => void
}

/**
 * Calls `changed` once all is set up, and when one of `files` may be another one, or a link on the way to it, a moment after the last change.
 * Watches the directories in which these stand, without following links: a watcher on the file itself, or on `..data`, goes deaf after one
 * swap of a ConfigMap. Neither files nor directories need be there yet. Disposing it ends it.
 */
export function watchFiles(
  files: readonly string[],
  changed: () => void,
  { polling = false, pollingMs = POLLING_MS, failed = () => {} }: WatchOptions = {},
): AsyncDisposable {
  let settling: NodeJS.Timeout | undefined
  let toldAt = Number.NEGATIVE_INFINITY
  let isClosed = false
  let places = placesOf(files)
  let watching = open(places)

  async function open(wanted: ReadonlySet<string>): Promise<AsyncDisposable> {
    const { watch } = await import('chokidar')
    const directories = directoriesOf(wanted)
    const watcher = watch([...directories], {
      depth: 0,
      followSymlinks: false,
      ignoreInitial: true,
      usePolling: polling,
      interval: pollingMs,
      ignored: (path) => !wanted.has(path) && !directories.has(path),
    })
    watcher.on('all', settle)
    watcher.on('error', (error) => {
      failed(error)
      settle()
    })
    watcher.once('ready', settle)
    return { [Symbol.asyncDispose]: () => watcher.close() }
  }

  /** Whatever comes within a moment counts as one change; but one that never ends holds nobody up. */
  function settle(): void {
    if (isClosed || settling) return
    settling = setTimeout(tell, Math.max(SETTLE_MS, toldAt + APART_MS - performance.now()))
  }

  function tell(): void {
    settling = undefined
    toldAt = performance.now()
    follow()
    changed()
  }

  /** A link that leads elsewhere now leads to other places. What happens before the new watcher is ready, its first call tells. */
  function follow(): void {
    const now = placesOf(files)
    if (isDeepStrictEqual(places, now)) return
    places = now
    const before = watching
    watching = open(now)
    watching.catch(failed)
    void close(before)
  }

  watching.catch(failed)
  return {
    [Symbol.asyncDispose]: () => {
      isClosed = true
      clearTimeout(settling)
      return close(watching)
    },
  }
}

/** One that could not be opened has said so. */
const close = (watching: Promise<AsyncDisposable>): Promise<void> =>
  watching.then(
    (one) => one[Symbol.asyncDispose](),
    () => {},
  )

/** Where what is read stands: each file, and each link on the way to it. The generations of a ConfigMap or Secret never change themselves. */
const placesOf = (files: readonly string[]): ReadonlySet<string> =>
  new Set(files.flatMap((file) => wayTo(file)).filter((place) => !basename(dirname(place)).startsWith('..2')))

const directoriesOf = (places: ReadonlySet<string>) => new Set([...places].map((place) => dirname(place)))

/** Linux follows no more than 40 links (path_resolution(7)). */
const MOST_LINKS = 40

/**
 * `/tls/tls.crt` → itself, where it is a link to `..data/tls.crt` also `/tls/..data`, where that is one, and what these lead to. Of what is
 * not there yet, the first directory that is missing.
 */
function wayTo(file: string, links = 0): string[] {
  const parts = file.split('/').filter((part) => part !== '')
  for (let length = 1; length <= parts.length; length++) {
    const path = `/${parts.slice(0, length).join('/')}`
    const found = lookAt(path)
    if (found === 'missing') return [path]
    if (found === 'other' || links >= MOST_LINKS) continue
    const start = isAbsolute(found.target) ? found.target : join(dirname(path), found.target)
    return [path, ...wayTo(join(start, ...parts.slice(length)), links + 1)]
  }
  return [file]
}

function lookAt(path: string): { readonly target: string } | 'missing' | 'other' {
  try {
    return lstatSync(path).isSymbolicLink() ? { target: readlinkSync(path) } : 'other'
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT' ? 'missing' : 'other'
  }
}
