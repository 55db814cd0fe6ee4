import { appendFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Entry {
  /** True time, ms since 1970. */
  readonly at: number
  /** Whose; undefined for what concerns all. */
  readonly subject: string | undefined
  readonly what: string
}

/** All that happened, in order: faults, what the logs say, what the observer saw. In memory, and in `timeline.jsonl`. */
export interface Story {
  readonly folder: string
  tell(subject: string | undefined, what: string): void
  /** What concerns this subject in the time around `at`, as text. */
  around(subject: string | undefined, at: number): string
}

const BEFORE_MS = 75_000
const AFTER_MS = 5_000

export function createStory(folder: string): Story {
  const entries: Entry[] = []
  return {
    folder,
    tell: (subject, what) => {
      const entry = { at: Date.now(), subject, what }
      entries.push(entry)
      appendFileSync(join(folder, 'timeline.jsonl'), `${JSON.stringify(entry)}\n`)
    },
    around: (subject, at) =>
      entries
        .filter((entry) => entry.at >= at - BEFORE_MS && entry.at <= at + AFTER_MS)
        .filter((entry) => subject === undefined || entry.subject === undefined || entry.subject === subject)
        .map((entry) => `${new Date(entry.at).toISOString()} ${entry.subject ?? 'all'}: ${entry.what}`)
        .join('\n'),
  }
}
