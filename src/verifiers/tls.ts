import * as z from 'zod'
import { type Bundle, fingerprintOf, serialOf } from '../core/bundle.ts'
import { isIP } from '../core/ip.ts'
import { quote } from '../core/secret.ts'
import { formatDuration, Timeout } from '../core/units.ts'
import { SidecarError } from '../errors.ts'
import { Address, formatAddress } from './address.ts'
import type { Chain, Endpoint, Look } from './handshake.ts'
import { StartTls } from './start-tls.ts'
import { defineVerifier } from './verifier.ts'

const Options = z.strictObject({
  address: Address,
  serverName: z
    .string()
    .regex(/^[^\s:/*]+$/, 'must be a host name')
    .refine((name) => !isIP(name), { error: 'must be a host name; TLS cannot ask for an IP address by name' })
    .optional()
    .meta({
      description:
        'Name to ask the target for (SNI); by default the first DNS name of the certificate, or else the host of the address',
    }),
  alpn: z.array(z.string().min(1).max(255)).min(1).optional().meta({ description: 'Protocols to offer (ALPN)' }),
  startTls: StartTls.optional().meta({
    description:
      'Protocol in which TLS is asked for first: the SSLRequest of PostgreSQL, the INFO line of NATS, StartTLS of LDAP. Without it a connection begins with TLS',
  }),
  workers: z
    .int()
    .min(1)
    .max(1000)
    .optional()
    .meta({ description: 'Workers of the target; three times as many handshakes must show the new certificate' }),
  probes: z
    .int()
    .min(5)
    .max(1000)
    .default(5)
    .meta({ description: 'Handshakes in a row that must show the new certificate' }),
  quiet: Timeout.prefault('500ms').meta({ description: 'Time over which they must be spread' }),
  timeout: Timeout.prefault('2s').meta({ description: 'For one handshake' }),
  staple: z
    .boolean()
    .default(false)
    .meta({ description: 'The OCSP response that was written must be shown as well, where there is one' }),
  deadline: Timeout.prefault('15s').meta({ description: 'Time for the new certificate to show up' }),
})

/** Between two handshakes. nginx shows old certificates for less than 0.2 s after the signal, so this meets each state several times. */
const SPACING_MS = 50

/** Loaded at the first look: TLS takes 9 ms of a start (docs/performance.md), and the first set needs none of ours. */
async function handshake(endpoint: Endpoint, signal: AbortSignal): Promise<Look> {
  const loaded = await import('./handshake.ts')
  return loaded.handshake(endpoint, signal)
}

export const tls = defineVerifier({
  kind: 'tls',
  summary: 'Connects by TLS until only the new certificate, with its full chain, is served.',
  options: Options,
  create: (options, { clock, serverName: knownName }) => {
    const serverName = options.serverName ?? knownName?.replace(/^\*/, 'www') ?? nameIn(options.address)
    const endpoint: Endpoint = {
      ...options.address,
      serverName,
      alpn: options.alpn,
      startTls: options.startTls,
      timeoutMs: options.timeout,
      staple: options.staple,
    }
    const name = `TLS ${formatAddress(options.address)} (${serverName})`
    const needed = Math.max(options.probes, 3 * (options.workers ?? 0))
    return {
      kind: 'tls',
      description: name,
      probe: async (signal) => {
        const look = await handshake(endpoint, signal)
        if (!look.up) return look
        const [leaf] = look.chain
        return {
          up: true,
          fingerprint: fingerprintOf(leaf),
          serial: serialOf(leaf),
          // A date that is none, in a certificate of somebody else, counts as past.
          notAfter: leaf.validToDate.getTime() || 0,
        }
      },
      verify: async (bundle, previous, signal) => {
        const startedAt = clock.elapsed()
        let streak: { readonly since: number; readonly count: number } | undefined
        for (;;) {
          const look = await handshake(endpoint, signal)
          const now = clock.elapsed()
          if (look.up && fingerprintOf(look.chain[0]) === bundle.fingerprint && isStapled(look, bundle)) {
            streak = { since: streak?.since ?? now, count: (streak?.count ?? 0) + 1 }
            if (streak.count >= needed && now - streak.since >= options.quiet)
              return assertFullChain(look.chain, bundle, name)
          } else {
            // An old worker may still answer after a new one did: that only starts the count again. A streak may outlast the deadline.
            streak = undefined
            if (now - startedAt >= options.deadline)
              throw refusal(look, { bundle, previous, name, deadlineMs: options.deadline })
          }
          await clock.sleep(SPACING_MS, signal)
        }
      },
    }
  },
})

const isStapled = (look: Look, { staple }: Bundle) =>
  !look.up || !('staple' in look) || !staple || look.staple?.equals(staple.der) === true

function nameIn({ host, port }: Address): string {
  if (!isIP(host)) return host
  throw new SidecarError(
    'CONFIG_INVALID',
    `verify of kind tls at ${formatAddress({ host, port })} needs serverName: the certificate has no DNS name known beforehand, and the address is none`,
  )
}

/** The bundle reached a trusted root when it was checked; so does what the target sends, if nothing of that is missing. */
function assertFullChain(chain: Chain, { intermediates, serial }: Bundle, name: string): void {
  const sent = new Set(chain.map(fingerprintOf))
  const missing = intermediates.filter((certificate) => !sent.has(fingerprintOf(certificate)))
  if (missing.length === 0) return
  const subjects = missing.map(({ subject }) => `"${quote(subject)}"`).join(', ')
  throw new SidecarError(
    'CHAIN_NOT_SERVED',
    `${name} serves certificate ${serial}, but not its issuer ${subjects}; clients that do not know it will refuse`,
  )
}

interface Wanted {
  readonly bundle: Bundle
  readonly previous: string | undefined
  readonly name: string
  readonly deadlineMs: number
}

function refusal(look: Look, { bundle, previous, name, deadlineMs }: Wanted): SidecarError {
  const after = `${formatDuration(deadlineMs)} after the reload`
  if (!look.up) return new SidecarError('TARGET_DOWN', `${name} does not answer ${after}: ${look.why}`)
  const [leaf] = look.chain
  if (fingerprintOf(leaf) === bundle.fingerprint)
    return new SidecarError(
      'STAPLE_NOT_SERVED',
      `${name} serves certificate ${bundle.serial} with ${look.staple ? 'another OCSP response than' : 'no OCSP response, and not with'} the one that was written, ${after}`,
    )
  if (fingerprintOf(leaf) === previous)
    return new SidecarError(
      'RELOAD_NOT_EFFECTIVE',
      `${name} still serves certificate ${serialOf(leaf)} ${after}, wanted ${bundle.serial}`,
    )
  return new SidecarError(
    'PROBE_MISMATCH',
    `${name} serves certificate ${serialOf(leaf)} of "${quote(leaf.subject)}" ${after}, wanted ${bundle.serial}`,
  )
}
