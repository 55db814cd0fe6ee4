import type { Clock } from '../clock.ts'
import type { Bundle } from '../core/bundle.ts'
import type { Content, Instant } from '../core/content.ts'
import { definer } from '../registry.ts'

/** What a target serves, asked once. */
export type Served =
  | { readonly up: true; readonly fingerprint: string; readonly serial: string; readonly notAfter: Instant }
  | { readonly up: false; readonly why: string }

/** Whether the target serves a bundle. */
export interface Verifier<C extends Content = Bundle> {
  readonly kind: string
  /** For people: `TLS 127.0.0.1:443 (web.example.com)`. */
  readonly description: string
  /** Two contents may look alike to it, so that a target which seems to serve one already is told all the same. */
  readonly seesPart?: boolean
  /**
   * One look. A target that does not answer is an answer, not an error. `expected` is what it should serve, for a target that shows no more
   * than whether it does: its fingerprint is told then.
   */
  probe(signal: AbortSignal, expected?: C): Promise<Served>
  /**
   * Resolves once the target has served only `bundle` for long enough. `previous` is the fingerprint it served before.
   * Throws RELOAD_NOT_EFFECTIVE (still the previous one), PROBE_MISMATCH (some other), CHAIN_NOT_SERVED, TARGET_DOWN.
   */
  verify(bundle: C, previous: string | undefined, signal: AbortSignal): Promise<void>
}

export interface VerifierDeps {
  readonly clock: Clock
  /** The first DNS name of the certificate, where it is known before there is one. */
  readonly serverName?: string | undefined
}

export const defineVerifier = definer<VerifierDeps, Verifier>()
