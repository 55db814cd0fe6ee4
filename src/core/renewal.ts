import { createHash } from 'node:crypto'
import { Cron } from 'croner'
import type { Instant } from './bundle.ts'

/** When to renew. Without `after`, `before` and `cron`: 2/3 of the lifetime, or 1/2 where it is 10 days or less. */
export interface RenewalPolicy {
  /** Fraction of the lifetime after which it is renewed. */
  readonly after?: number | undefined
  /** Renewed this long before notAfter, in ms; without effect where the lifetime is no longer than that. */
  readonly beforeMs?: number | undefined
  /** Cron pattern: renewed at its first run at or after the point above; alone, at each run. Never at the cost of validity. */
  readonly cron?: string | undefined
  readonly timezone?: string | undefined
  /** Share of the lifetime by which the point is moved earlier, times a number drawn once per certificate. */
  readonly jitter: number
}

export interface Validity {
  readonly notBefore: Instant
  readonly notAfter: Instant
  readonly receivedAt: Instant
  readonly serial: string
}

const TEN_DAYS_MS = 10 * 86_400_000
/** The last 1/20 of the lifetime: renewed whatever cron, window or hint say. */
const EMERGENCY = 1 / 20

/** The lifetime as it was received. Vault backdates notBefore by 30 s, so the time of receipt counts where it is later. */
export const startOf = ({ notBefore, receivedAt, notAfter }: Validity): Instant =>
  Math.min(Math.max(notBefore, receivedAt), notAfter)
export const lifetimeOf = (validity: Validity): number => validity.notAfter - startOf(validity)

/** From here on nothing may hold the renewal back. */
export const emergencyAt = (validity: Validity): Instant => validity.notAfter - lifetimeOf(validity) * EMERGENCY

/**
 * When the certificate is due. Stable over restarts: the jitter comes from `seed` (random per certificate, persisted) and the
 * serial, moves the point only earlier, and is never drawn again.
 */
export function renewAt(validity: Validity, policy: RenewalPolicy, seed: string): Instant {
  const start = startOf(validity)
  const lifetime = lifetimeOf(validity)
  const latest = emergencyAt(validity)
  const spread = unit(`${seed}\0${validity.serial}`) * policy.jitter * lifetime
  const fraction = policy.after ?? (lifetime <= TEN_DAYS_MS ? 1 / 2 : 2 / 3)
  // A role may cut the lifetime short. Due from its first moment on, one certificate would follow the other as fast as the budget lets it.
  const before = policy.beforeMs !== undefined && policy.beforeMs < lifetime ? policy.beforeMs : undefined
  const point = before === undefined ? start + fraction * lifetime : validity.notAfter - before
  const within = (at: number) => Math.floor(Math.max(Math.min(at, latest), start))
  if (policy.cron === undefined) return within(point - spread)
  const alone = policy.after === undefined && policy.beforeMs === undefined
  return within(nextRun(policy.cron, policy.timezone, alone ? start : Math.max(point, start)) ?? latest)
}

/** The first run of a cron pattern after `from`; undefined when there is none. Throws a TypeError on a bad pattern or zone. */
export const nextRun = (pattern: string, timezone: string | undefined, from: Instant): Instant | undefined =>
  new Cron(pattern, { paused: true, ...(timezone === undefined ? {} : { timezone }) })
    .nextRun(new Date(from))
    ?.getTime()

/** The first 53 bits of SHA-256 as a number in [0, 1). */
export const unit = (text: string): number =>
  Number(createHash('sha256').update(text).digest().readBigUInt64BE() >> 11n) / 2 ** 53
