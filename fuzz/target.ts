import assert from 'node:assert/strict'
import { ERRORS, SidecarError } from '../src/errors.ts'
import type { Mutator } from './mutate.ts'

/** What is fuzzed: real functions of src/ behind one door, with what must hold whatever comes in. */
export interface Target extends AsyncDisposable {
  /** Good inputs to begin with. */
  readonly seeds: readonly Buffer[]
  readonly dictionary: readonly string[]
  readonly structured: Mutator
  /** Rejects when something is not as promised; an input that is refused as it should be is none of that. */
  run(input: Buffer): Promise<void>
}

export type OpenTarget = () => Promise<Target>

/** Looks like a token, so no message may hold it, wherever it stood. */
export const CANARY = 'hvs.CAESIKanary0123456789'

/** The only way to refuse an input: an error of the table, which is no bug, in words fit for one line, and without secrets. */
export function assertRefusal(error: unknown, { lines = false } = {}): asserts error is SidecarError {
  if (!(error instanceof SidecarError)) throw new Error(`thrown past the table of errors: ${describe(error)}`)
  assert.ok(Object.hasOwn(ERRORS, error.code) && error.code !== 'BUG', describe(error))
  assert.doesNotMatch(error.message, SECRET, 'a message holds a secret')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they could move a cursor, or forge a line
  const unfit = lines ? /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/ : /[\u0000-\u001f\u007f-\u009f]/
  assert.doesNotMatch(error.message, unfit, 'a message holds a control character')
}

const SECRET = /\bhv[sbr]\.[\w-]{8}|-----BEGIN [A-Z ]*PRIVATE KEY/
const describe = (error: unknown) => (error instanceof Error ? String(error.stack) : String(error))

/** The value, or undefined when it was refused as it should be. */
export function attempt<T>(work: () => T, options?: { lines: boolean }): T | undefined {
  try {
    return work()
  } catch (error) {
    assertRefusal(error, options)
    return undefined
  }
}
