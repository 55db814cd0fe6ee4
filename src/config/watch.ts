import { createHash } from 'node:crypto'
import { basename, dirname } from 'node:path'
import type { Clock } from '../clock.ts'
import { readPlainFile } from '../plain-file.ts'
import { SIZE_LIMIT } from './file.ts'

const SETTLE_MS = 100
/** A net under the watcher, for file systems that tell nothing. */
const REREAD_MS = 60_000

/**
 * Calls back when the content of `file` is no longer that of digest `known`, and after each change, until `signal` aborts. Watches the
 * parent directory without following links: a watcher on the file itself, or on `..data`, goes deaf after one swap of a ConfigMap.
 */
export async function watchConfig(
  file: string,
  known: string | undefined,
  changed: () => void,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const { watch } = await import('chokidar')
  const look = () => {
    const now = digest(file)
    if (now === known || now === undefined) return
    known = now
    changed()
  }
  let settling: NodeJS.Timeout | undefined
  const watcher = watch(dirname(file), {
    depth: 0,
    followSymlinks: false,
    ignoreInitial: true,
    ignored: (path) => basename(path).startsWith('..2'),
  })
  watcher.on('all', () => {
    clearTimeout(settling)
    settling = setTimeout(look, SETTLE_MS)
  })
  watcher.on('error', look)
  watcher.once('ready', look)
  try {
    for (;;) {
      await clock.sleep(REREAD_MS, signal)
      look()
    }
  } catch {
    clearTimeout(settling)
    await watcher.close()
  }
}

/** Undefined while the file cannot be read: it may be between two renames. */
export function digest(file: string): string | undefined {
  try {
    return createHash('sha256').update(readPlainFile(file, SIZE_LIMIT)).digest('hex')
  } catch {
    return undefined
  }
}
