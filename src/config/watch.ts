import { createHash } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { readPlainFile } from '../plain-file.ts'
import { watchFiles } from '../watching.ts'
import { SIZE_LIMIT } from './file.ts'

/** A net under the watcher, for file systems that tell nothing. */
const REREAD_MS = 60_000

/** Calls back when the content of `file` is no longer that of digest `known`, and after each change, until `signal` aborts. */
export async function watchConfig(
  file: string,
  known: string | undefined,
  changed: () => void,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const look = () => {
    const now = digest(file)
    if (now === known || now === undefined) return
    known = now
    changed()
  }
  await using _watching = watchFiles([file], look)
  try {
    for (;;) {
      await clock.sleep(REREAD_MS, signal)
      look()
    }
  } catch {
    // The signal has aborted.
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
