import type { ChallengeOptions } from './options.ts'
import type { Responder, ResponderDeps } from './responder.ts'

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
