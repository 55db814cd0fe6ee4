import type { Instant } from './bundle.ts'
import { lifetimeOf, type Validity } from './renewal.ts'

const HOUR_MS = 3_600_000
const PER_HOUR = 6
const PER_WINDOW = 5

/**
 * How many certificates may be issued at once without a person asking: 6 an hour, and 5 in a third of a lifetime. Certificates
 * so short that 6 an hour could not keep them alive are bound by the second rule only.
 */
export function budgetLeft(issuedAt: readonly Instant[], now: Instant, lifetimeMs: number): number {
  const within = (windowMs: number) => issuedAt.filter((at) => at > now - windowMs && at <= now).length
  const windowMs = windowOf(lifetimeMs)
  const perWindow = PER_WINDOW - within(windowMs)
  return windowMs < HOUR_MS ? perWindow : Math.min(perWindow, PER_HOUR - within(HOUR_MS))
}

/**
 * The life that the budget goes by. A clock that is ahead sees little of it left, and would take a certificate of an hour for one of
 * seconds: where that is the life that was asked for, it counts. In ms.
 */
export function countedLifetime(current: Validity | undefined, requestedMs: number | undefined): number {
  // With nothing on disk nobody can wait for a third of a life: an hour is the most.
  if (!current) return Math.min(requestedMs ?? HOUR_MS * 3, HOUR_MS * 3)
  return Math.max(lifetimeOf(current), Math.min(requestedMs ?? 0, current.notAfter - current.notBefore))
}

/** So many of the budget are kept for later while a certificate is in service. */
const HELD_BACK = 2
/** The first of them may be asked for after this part of the time: half an hour, where that is a day. */
const SOON = 50

/**
 * When the next one may be issued. An answer that was lost counts as issued too, and one bad minute of Vault must not cost a third of a
 * life: so while a certificate is in service, the last of the budget are spread over that time, the first of them soon, not spent at once.
 */
export function mayIssueAt(
  issuedAt: readonly Instant[],
  now: Instant,
  { lifetimeMs, isInService }: { readonly lifetimeMs: number; readonly isInService: boolean },
): Instant {
  const left = budgetLeft(issuedAt, now, lifetimeMs)
  if (left <= 0) return budgetFreeAt(issuedAt, now, lifetimeMs)
  if (!isInService || left > HELD_BACK) return now
  const last = Math.max(...issuedAt.filter((at) => at <= now))
  return Math.max(now, last + windowOf(lifetimeMs) / (left === HELD_BACK ? SOON : PER_WINDOW))
}

const windowOf = (lifetimeMs: number) => Math.min(lifetimeMs / 3, HOUR_MS * 24)

/** When a spent budget has room again. */
export function budgetFreeAt(issuedAt: readonly Instant[], now: Instant, lifetimeMs: number): Instant {
  const ends = issuedAt.flatMap((at) => [at + HOUR_MS, at + windowOf(lifetimeMs)])
  const free = ends.filter((at) => at > now && budgetLeft(issuedAt, at, lifetimeMs) > 0)
  return Math.min(...free, now + HOUR_MS * 24)
}

/** Those issuances that still count. */
export const recentIssues = (issuedAt: readonly Instant[], now: Instant): Instant[] =>
  issuedAt.filter((at) => at > now - 24 * HOUR_MS && at <= now).slice(-50)
