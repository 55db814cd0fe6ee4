import type { Clock } from '../clock.ts'
import type { ChallengeOptions } from './options.ts'

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

/** Loads only the kind that is asked for. */
export async function openResponder(
  options: ChallengeOptions,
  deps: ResponderDeps,
  signal: AbortSignal,
): Promise<Responder> {
  const { kind, listen = '', webroot } = options
  if (kind === 'dns-01') return (await import('./dns-01.ts')).openDns01(options, deps)
  if (kind === 'tls-alpn-01') return (await import('./tls-alpn-01.ts')).openTlsAlpn01(listen, signal)
  const { openHttp01, openWebroot } = await import('./http-01.ts')
  return webroot === undefined ? openHttp01(listen, signal) : openWebroot(webroot)
}
