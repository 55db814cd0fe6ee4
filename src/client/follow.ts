import { type FSWatcher, watch } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename } from 'node:path'

export interface FollowOptions {
  /** Every so often, whatever the watchers say. */
  readonly pollMs: number | undefined
  /** Whether to watch at all. */
  readonly watches: boolean
}

/** A net under watchers that work. */
const NET_MS = 30_000
/** Where they do not: the directory is not there, may not be listed, or there are no watches left. */
const POLL_MS = 1000

/**
 * Calls `look` after each change of a directory, and every so often. Directories are watched, never links: a watcher of `..data`
 * goes deaf with the first swap. One that was replaced is watched anew. Keeps no process alive. Returns what ends it.
 */
export function follow(
  directories: readonly string[],
  look: () => void,
  { pollMs, watches }: FollowOptions,
): () => void {
  const watched = new Map<string, { readonly watcher: FSWatcher; readonly id: string }>()
  let timer: NodeJS.Timeout | undefined
  let isOver = false

  const drop = (directory: string) => {
    watched.get(directory)?.watcher.close()
    watched.delete(directory)
  }
  const attend = async (directory: string) => {
    const found = await stat(directory, { bigint: true }).catch(() => undefined)
    const id = found && `${found.dev} ${found.ino}`
    if (isOver || (id !== undefined && watched.get(directory)?.id === id)) return
    drop(directory)
    if (id === undefined) return
    try {
      const watcher = watch(directory, { persistent: false }, (_what, name) => {
        // Its own name: it was moved or removed, and there is another one or will be (inotify(7): IN_DELETE_SELF, IN_MOVE_SELF).
        if (name === basename(directory)) void tick()
        else look()
      })
      watcher.on('error', () => drop(directory))
      watched.set(directory, { watcher, id })
    } catch {
      // Looked at more often instead.
    }
  }
  const tick = async () => {
    clearTimeout(timer)
    if (watches) await Promise.all(directories.map(attend))
    if (isOver) return
    look()
    const isWatched = directories.every((directory) => watched.has(directory))
    clearTimeout(timer)
    timer = setTimeout(tick, pollMs ?? (isWatched ? NET_MS : POLL_MS))
    timer.unref()
  }
  void tick()
  return () => {
    isOver = true
    clearTimeout(timer)
    for (const directory of directories) drop(directory)
  }
}
