import { toSidecarError } from '../errors.ts'

/** One thing looked at before it can fail. */
export interface Finding {
  /** Undefined where it could not be found out. */
  readonly ok: boolean | undefined
  /** What was looked at, and what was found. */
  readonly what: string
  /** What to do about it. */
  readonly fix?: string
}

/** What an error says, after `before`, and what to do about it. */
export function findingOf(thrown: unknown, before = ''): Finding {
  const { message, kind } = toSidecarError(thrown)
  return { ok: false, what: `${before}${message}`, fix: kind.hint }
}
