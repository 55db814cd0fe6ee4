import type { Audited } from '../../test/support/vault.ts'

/** What is known of one sidecar. */
export interface IssuanceFacts {
  /** What Vault issued from its role, by the audit log. */
  readonly issued: readonly Pick<Audited, 'at' | 'serial'>[]
  /** When each certificate was written, by serial. */
  readonly written: ReadonlyMap<string, number>
  readonly lifetimeMs: number
  /** Those before this time were judged already. */
  readonly from: number
  /** Rotations asked for since then. */
  readonly asked: number
  /** When something happened that makes a certificate necessary which would not be due: true times, ms since 1970. */
  readonly excuses: readonly number[]
}

export interface Issuances {
  /** Certificates neither due, nor asked for, nor made necessary by what was done to the sidecar. */
  readonly extra: readonly string[]
  /** Windows of the budget in which more was issued than it allows. */
  readonly overspent: readonly string[]
}

/** Renewed after half the lifetime, earlier by a jitter of up to a tenth. */
const EARLIEST = 1 / 2 - 1 / 10
/** Of a lifetime: Vault answers a little later than certferry counts. */
const SLACK_MS = 1_000
const PER_WINDOW = 5

/** Judges what Vault issued. A certificate that never arrived is asked for again, within the budget: 5 in a third of a lifetime. */
export function judgeIssuances({ issued, written, lifetimeMs, from, asked, excuses }: IssuanceFacts): Issuances {
  const extra: string[] = []
  const unasked: number[] = []
  let credit = asked
  let last: number | undefined
  for (const { at, serial = '?' } of issued) {
    const isWritten = written.has(serial)
    const isDue = last === undefined || at - last >= EARLIEST * lifetimeMs - SLACK_MS
    const isExcused = excuses.some((excuse) => excuse >= (last ?? 0) - SLACK_MS && excuse <= at + SLACK_MS)
    const isForAPerson = !isDue && !isExcused && credit > 0
    if (at >= from) {
      if (!isForAPerson) unasked.push(at)
      if (!isDue && !isExcused && credit === 0)
        extra.push(
          `${serial} at ${new Date(at).toISOString()}, ${Math.round((at - (last ?? 0)) / 1000)} s after the last`,
        )
      if (isForAPerson && isWritten) credit -= 1
    }
    if (isWritten) last = at
  }
  return { extra, overspent: overspent(unasked, lifetimeMs / 3, excuses, asked) }
}

function overspent(times: readonly number[], windowMs: number, excuses: readonly number[], asked: number): string[] {
  return times.flatMap((end) => {
    const isWithin = (at: number) => at > end - windowMs && at <= end
    const count = times.filter(isWithin).length
    // A stepped clock, or a new directory, starts the count anew.
    const allowed = PER_WINDOW * (1 + excuses.filter(isWithin).length) + asked
    return count > allowed
      ? [`${count} issued in the ${windowMs / 1000} s before ${new Date(end).toISOString()}, ${allowed} allowed`]
      : []
  })
}
