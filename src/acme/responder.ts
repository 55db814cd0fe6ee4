import type { Clock } from '../clock.ts'

/** What one challenge wants shown (RFC 8555 §8). */
export interface Wanted {
  /** A DNS name, without `*.`, or an IP address. */
  readonly name: string
  readonly token: string
  /** For http-01 and tls-alpn-01 the key authorization; for dns-01 the text of the record. */
  readonly proof: string
}

/** A way to show control over a name. */
export interface Responder {
  /** Shows it; resolves once the CA may look. Throws ACME_CHALLENGE_SETUP, or the reason of `signal`. */
  present(wanted: Wanted, signal: AbortSignal): Promise<void>
  /** After all of an order are shown: resolves once others can see them. */
  settle?(signal: AbortSignal): Promise<void>
  /** Takes it away again: after success, failure and a stop alike. Never throws; what it cannot take away it tells. */
  cleanup(wanted: Wanted): Promise<string | undefined>
  /** Ends what served all of them. */
  [Symbol.asyncDispose](): Promise<void>
}

export interface ResponderDeps {
  readonly clock: Clock
  /** Variables of this process; hooks inherit only a few of them. */
  readonly env: Readonly<Record<string, string | undefined>>
}
