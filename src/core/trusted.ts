import { SidecarError } from '../errors.ts'
import type { Bundle } from './bundle.ts'
import type { Instant } from './content.ts'
import type { RotationState } from './state.ts'
import { type Anchor, chainsTo, type TrustSet } from './trust.ts'

/** A trust, as those see it who wait for it. */
export interface Trusted {
  readonly name: string
  /** undefined until its store has been looked at. */
  readonly state: RotationState<TrustSet> | undefined
  /** How long a new CA must be in force before anything may chain to it, ms. */
  readonly spreadMs: number
}

export interface Waiting {
  /** The certificate in service. */
  readonly current: Bundle | undefined
  readonly trust: Trusted
  readonly now: Instant
}

/**
 * Refuses for now what peers do not trust yet: its CA must be in force, and that long enough. What is in service is not taken out of it, nor
 * does one wait that chains to the same CA of the trust; and one in service that has ended is of use to nobody, whomever they trust.
 * Throws TRUST_PENDING.
 */
export function assertTrusted(bundle: Bundle, { current, trust, now }: Waiting): void {
  if (current && (current.fingerprint === bundle.fingerprint || now >= current.notAfter)) return
  const { name, state, spreadMs } = trust
  const pending = (why: string, retryAfterMs?: number) =>
    new SidecarError('TRUST_PENDING', `certificate ${bundle.serial} waits: ${why}`, { retryAfterMs })
  const anchors = state?.serving?.anchors.filter(({ certificate }) => chainsTo(bundle, certificate)) ?? []
  if (!state || anchors.length === 0) throw pending(`its CA is not in trust "${name}" yet`)
  if (current && anchors.some(({ certificate }) => chainsTo(current, certificate))) return
  if (!isInForce(state)) throw pending(`trust "${name}" is not proven to be in force`)
  // Without one in service nobody is served meanwhile: peers that do not know its CA yet lose nothing by it.
  if (!current) return
  // A target that was never there has proven nothing: what is on disk counts.
  const leftMs = Math.min(...anchors.map(({ inForceSince, since }: Anchor) => inForceSince ?? since)) + spreadMs - now
  if (leftMs > 0) throw pending(`its CA is in trust "${name}" for a moment only`, leftMs)
}

/** A target that was never there starts with what is on disk. */
const isInForce = ({ verification, waits, targetSeen }: RotationState<TrustSet>): boolean =>
  verification === 'verified' || verification === 'none' || (verification === 'pending' && waits > 0 && !targetSeen)
