import type { RetryClass } from '../errors.ts'

const FLOOR_MS = 500
/** Base and cap in ms of each retry class. */
const CLASSES: Record<Exclude<RetryClass, 'never'>, { base: number; cap: number }> = {
  transient: { base: 1_000, cap: 300_000 },
  auth: { base: 5_000, cap: 300_000 },
  config: { base: 30_000, cap: 900_000 },
  local: { base: 1_000, cap: 60_000 },
}

export interface Backoff {
  readonly retry: RetryClass
  /** Failures since the last complete success, at least 1. */
  readonly failures: number
  /** Life left of the certificate in service, ms; undefined where there is none. Every cap shrinks to a twentieth of it, at least 10 s. */
  readonly remainingMs?: number | undefined
  /** Lower bound asked for by the other side, ms; itself bounded by a tenth of the life left, and by 5 min. */
  readonly retryAfterMs?: number | undefined
}

/** Delay before the next try: full jitter over an exponential, drawn after the cap so that many callers never line up, plus a floor. */
export function delayMs({ retry, failures, remainingMs, retryAfterMs = 0 }: Backoff, random: () => number): number {
  const { base, cap } = CLASSES[retry === 'never' ? 'config' : retry]
  const shrunk = remainingMs === undefined ? cap : Math.min(cap, Math.max(10_000, remainingMs / 20))
  const ceiling = Math.min(shrunk, base * 2 ** Math.min(failures - 1, 30))
  const asked = Math.min(
    retryAfterMs,
    300_000,
    remainingMs === undefined ? Number.POSITIVE_INFINITY : Math.max(remainingMs / 10, FLOOR_MS),
  )
  return Math.max(FLOOR_MS + random() * ceiling, asked + random() * Math.min(base, asked))
}
