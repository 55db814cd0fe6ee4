/** How a Vault that is away shows it: nobody listens, it answers 503, or it takes what comes and says nothing. */
export const OUTAGE_KINDS = ['refused', 'sealed', 'silent'] as const
export type OutageKind = (typeof OUTAGE_KINDS)[number]

export interface Outage {
  readonly from: number
  readonly to: number
  readonly kind: OutageKind
}

export interface VaultOptions {
  /** Certificates signed in a second, all workers together. */
  readonly signsPerSecond: number
  /** Requests carried out at the same time: the cores of its machine. */
  readonly workers: number
  /** Requests that may wait; the kernel takes no connection beyond that. */
  readonly queue: number
  /** Rate-limit quota; undefined for none. As Vault counts it: so many in each whole second, 429 for the others. */
  readonly quotaPerSecond?: number | undefined
  readonly outage?: Outage | undefined
}

/** How long a client waits, ms. */
export interface Patience {
  readonly connectMs: number
  readonly answerMs: number
}

/** What becomes of a request, and when its sender knows. */
export interface Answer {
  readonly at: number
  readonly kind: 'issued' | 'limited' | 'refused' | 'sealed' | 'reset' | 'unconnected' | 'timeout'
}

export interface VaultModel {
  /** A request arrives now. */
  receive(now: number, patience: Patience): Answer
}

/** Loopback or a rack: what an answer takes that needs no work, ms. */
const ROUND_TRIP_MS = 1

/**
 * First come, first served. Since nothing is decided later, the fate of a request is known when it arrives. One that its sender gives up is
 * carried out all the same, as Vault does: that is what makes an overload last.
 */
export function createVaultModel({ signsPerSecond, workers, queue, quotaPerSecond, outage }: VaultOptions): VaultModel {
  const serviceMs = (workers * 1000) / signsPerSecond
  const freeAt = new Float64Array(workers)
  const quota = { second: -1, used: 0 }

  return {
    receive: (now, patience) => {
      if (outage && now >= outage.from && now < outage.to) return away(outage.kind, now, patience)
      if (isOverQuota(now)) return { kind: 'limited', at: now + ROUND_TRIP_MS }
      const worker = freeAt.indexOf(Math.min(...freeAt))
      const start = Math.max(freeAt[worker] ?? now, now)
      if (((start - now) / serviceMs) * workers >= queue) return { kind: 'unconnected', at: now + patience.connectMs }
      const end = start + serviceMs
      freeAt[worker] = end
      if (outage && now < outage.from && end > outage.from) return lost(outage)
      const givenUpAt = now + patience.answerMs
      return end + ROUND_TRIP_MS > givenUpAt
        ? { kind: 'timeout', at: givenUpAt }
        : { kind: 'issued', at: end + ROUND_TRIP_MS }
    },
  }

  function isOverQuota(now: number): boolean {
    if (quotaPerSecond === undefined) return false
    const second = Math.floor(now / 1000)
    if (second !== quota.second) Object.assign(quota, { second, used: 0 })
    quota.used += 1
    return quota.used > quotaPerSecond
  }

  /** Under way when Vault went: nothing that waited is left when it comes back. */
  function lost({ from }: Outage): Answer {
    freeAt.fill(from)
    return { kind: 'reset', at: from }
  }
}

function away(kind: OutageKind, now: number, { answerMs }: Patience): Answer {
  if (kind === 'silent') return { kind: 'timeout', at: now + answerMs }
  return { kind, at: now + ROUND_TRIP_MS }
}
