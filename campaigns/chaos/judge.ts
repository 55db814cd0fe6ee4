import type { Group } from './fault.ts'
import type { Observation } from './observe.ts'
import type { Story } from './story.ts'

/** Something that must not be. */
export interface Violation {
  readonly at: number
  readonly subject: string | undefined
  readonly what: string
}

/** A fault that was begun. */
export interface Begun {
  readonly kind: string
  readonly group: Group
  /** undefined where it hits all. */
  readonly subject: string | undefined
  readonly from: number
  /** When it was undone. */
  to: number | undefined
  /** It could not be done, or only in part, and does not count. */
  isVoid: boolean
}

export interface Counts {
  handshakes: number
  /** Connections that came to nothing because of what we did to the target. */
  refused: number
  failed: number
  expired: number
  pairs: number
  mixed: number
  unreadable: number
  loose: number
}

/** Holds what the observer sees against what was done to each sidecar. */
export interface Judge {
  readonly counts: Counts
  readonly violations: readonly Violation[]
  readonly faults: readonly Begun[]
  complain(subject: string | undefined, what: string): void
  begun(fault: Omit<Begun, 'from' | 'to' | 'isVoid'>): Begun
  observed(seen: Observation): void
  /** From now on it is well, and has to stay so until the next storm. */
  recovered(subject: string): void
  storm(): void
  /** The serial that clients of this sidecar met last. */
  servedLast(subject: string): string | undefined
}

/** After its end a fault of the target may still be felt for a moment. */
const AFTERMATH_MS = 3_000
/** Renewal windows of 72 h certificates are a day long, and ten minutes of Vault are enough; of these, whatever comes first. */
const ENOUGH_MS = 120_000

export function createJudge(story: Story, tampering: ReadonlySet<string>): Judge {
  const counts: Counts = {
    handshakes: 0,
    refused: 0,
    failed: 0,
    expired: 0,
    pairs: 0,
    mixed: 0,
    unreadable: 0,
    loose: 0,
  }
  const violations: Violation[] = []
  const faults: Begun[] = []
  /** Since when each is well. */
  const well = new Map<string, number>()
  const served = new Map<string, string>()
  const shown = new Map<string, string>()
  let stormSince = Date.now()

  const complain: Judge['complain'] = (subject, what) => {
    story.tell(subject, `VIOLATION ${what}`)
    violations.push({ at: Date.now(), subject, what })
  }
  const during = (subject: string, since: number, until: number, isMeant: (fault: Begun) => boolean) =>
    faults.filter(
      (fault) =>
        (fault.subject === undefined || fault.subject === subject) &&
        isMeant(fault) &&
        fault.from <= until &&
        (fault.to === undefined || fault.to + AFTERMATH_MS >= since),
    )
  /** A look that began before the recovery may have met what came before it. */
  const isWell = (subject: string, since: number) => (well.get(subject) ?? Number.POSITIVE_INFINITY) <= since
  /** Somebody else spoilt the files, and certferry has not proven yet that they are mended. */
  const isTampered = ({ subject, since, until }: Observation) =>
    !isWell(subject, since) &&
    faults.some(
      (fault) =>
        fault.subject === subject && tampering.has(fault.kind) && fault.from >= stormSince && fault.from <= until,
    )

  /** The only mixed pair that is allowed: plain files, between a kill (or while it is held) and what the next start mends. */
  const isHalfCommitted = ({ subject, since, until }: Observation) =>
    subject.startsWith('flat') &&
    !isWell(subject, since) &&
    faults.some(
      (fault) =>
        fault.subject === subject && fault.group === 'certferry' && fault.from >= stormSince && fault.from <= until,
    )

  const on: Record<Observation['channel'], (seen: Observation) => void> = {
    tls: ({ subject, what, since, until, count }) => {
      if (what.startsWith('serial')) {
        counts.handshakes += count
        served.set(subject, what.slice('serial '.length))
        return
      }
      if (what.startsWith('expired')) {
        counts.handshakes += count
        counts.expired += count
        if (isOverdue(subject, since)) complain(subject, `${what} served`)
        return
      }
      if (during(subject, since, until, ({ group }) => group === 'target').length > 0) {
        counts.refused += count
        return
      }
      counts.failed += count
      complain(subject, `a handshake ${what}, with nothing done to the target`)
    },
    disk: (seen) => {
      const { subject, what, count } = seen
      counts.pairs += count
      if (what.startsWith('mixed')) {
        counts.mixed += count
        if (!isHalfCommitted(seen)) complain(subject, what)
      } else if (what.startsWith('unreadable') && !isTampered(seen)) {
        counts.unreadable += count
        complain(subject, what)
      }
    },
    modes: (seen) => {
      const { subject, what, count } = seen
      if (isTampered(seen)) return
      counts.loose += count
      complain(subject, what)
    },
  }

  /** Nothing was wrong with it before the end came near; or all has been left in peace for long enough. */
  function isOverdue(subject: string, since: number): boolean {
    if (isWell(subject, since)) return true
    return during(subject, since - ENOUGH_MS, since, () => true).length === 0
  }

  return {
    counts,
    violations,
    faults,
    complain,
    begun: (fault) => {
      const begun = { ...fault, from: Date.now(), to: undefined, isVoid: false }
      faults.push(begun)
      return begun
    },
    observed: (seen) => {
      const key = `${seen.subject} ${seen.channel}`
      if (shown.get(key) !== seen.what) story.tell(seen.subject, `seen on ${seen.channel}: ${seen.what}`)
      shown.set(key, seen.what)
      on[seen.channel](seen)
    },
    recovered: (subject) => void well.set(subject, Date.now()),
    storm: () => {
      well.clear()
      stormSince = Date.now()
    },
    servedLast: (subject) => served.get(subject),
  }
}
