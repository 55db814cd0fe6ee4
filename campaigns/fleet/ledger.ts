import type { Answer } from './vault-model.ts'

/** What became of the certificates of a fleet. */
export interface Account {
  readonly issued: number
  /** Certificates that ran out in service. */
  readonly expired: number
  /** How long all of them together were out of date, s. */
  readonly expiredSeconds: number
  /**
   * When the last of those that had failed before the end of the outage (or at all, without one) had a new certificate; undefined when none
   * had, infinite when one still has none.
   */
  readonly recoveredAt: number | undefined
  /** Sidecars that failed at least once. */
  readonly failed: number
  /** Requests that their senders gave up, after the outage where there is one: Vault was too slow for them. */
  readonly givenUp: number
  /** Requests over the quota. */
  readonly limited: number
}

/** Written by the sidecars of a simulated fleet. */
export interface Ledger {
  issued(index: number, now: number, notAfter: number): void
  failed(index: number, sentAt: number, why: Answer['kind']): void
  close(now: number): Account
}

export function createLedger(sidecars: number, outageEnd?: number): Ledger {
  const notAfter = new Float64Array(sidecars).fill(Number.POSITIVE_INFINITY)
  const failing = new Set<number>()
  const everFailed = new Set<number>()
  const account = { issued: 0, expired: 0, expiredSeconds: 0, givenUp: 0, limited: 0 }
  let recoveredAt: number | undefined

  const expire = (index: number, now: number) => {
    const late = now - (notAfter[index] ?? now)
    if (late <= 0) return
    account.expired += 1
    account.expiredSeconds += late / 1000
  }

  return {
    issued: (index, now, end) => {
      account.issued += 1
      expire(index, now)
      notAfter[index] = end
      if (failing.delete(index)) recoveredAt = now
    },
    failed: (index, sentAt, why) => {
      if (sentAt < (outageEnd ?? Number.POSITIVE_INFINITY)) failing.add(index)
      everFailed.add(index)
      if (why === 'limited') account.limited += 1
      if ((why === 'timeout' || why === 'unconnected') && sentAt >= (outageEnd ?? 0)) account.givenUp += 1
    },
    close: (now) => {
      for (let index = 0; index < sidecars; index++) expire(index, now)
      const isOver = failing.size === 0
      return { ...account, failed: everFailed.size, recoveredAt: isOver ? recoveredAt : Number.POSITIVE_INFINITY }
    },
  }
}
