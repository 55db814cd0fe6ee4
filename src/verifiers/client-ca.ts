import * as z from 'zod'
import { isIP } from '../core/ip.ts'
import type { TrustSet } from '../core/trust.ts'
import { Timeout } from '../core/units.ts'
import { SidecarError } from '../errors.ts'
import { definer } from '../registry.ts'
import { Address, formatAddress } from './address.ts'
import type { Answer, ClientCertificate } from './client-request.ts'
import type { Verifier, VerifierDeps } from './verifier.ts'

/** Gives a trust its verifiers. */
export const defineTrustVerifier = definer<VerifierDeps, Verifier<TrustSet>>()

const File = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path')

const Options = z
  .strictObject({
    address: Address,
    serverName: z
      .string()
      .regex(/^[^\s:/*]+$/, 'must be a host name')
      .refine((name) => !isIP(name), { error: 'must be a host name; TLS cannot ask for an IP address by name' })
      .optional()
      .meta({ description: 'Name to ask the target for (SNI); by default the host of the address, where it is one' }),
    clientCertFile: File.optional().meta({
      description:
        'Shows this certificate (PEM, with its issuers) and asks for a page: the target must accept it. Read at each look; without it, the target is asked which CAs it names, over TLS 1.2',
    }),
    clientKeyFile: File.optional().meta({ description: 'Its private key' }),
    timeout: Timeout.prefault('2s').meta({ description: 'For one handshake' }),
    deadline: Timeout.prefault('15s').meta({ description: 'Time for the new CAs to be in force' }),
  })
  .refine(({ clientCertFile, clientKeyFile }) => (clientCertFile === undefined) === (clientKeyFile === undefined), {
    error: 'needs both clientCertFile and clientKeyFile, or neither',
  })

const SPACING_MS = 50
/** In a row, over half a second: old workers of nginx may answer after new ones. */
const NEEDED = 5
const QUIET_MS = 500

export const clientCa = defineTrustVerifier({
  kind: 'client-ca',
  summary:
    'Asks a target that wants client certificates whether the CAs of the set are in force there: which ones it names, or whether it accepts a certificate of theirs.',
  options: Options,
  create: (options, { clock }) => {
    const { address, clientCertFile: certFile, clientKeyFile: keyFile, timeout: timeoutMs, deadline } = options
    const serverName = options.serverName ?? (isIP(address.host) ? undefined : address.host)
    const name = `client CAs of ${formatAddress(address)}${serverName === undefined ? '' : ` (${serverName})`}`
    const client: ClientCertificate | undefined =
      certFile !== undefined && keyFile !== undefined ? { certFile, keyFile } : undefined
    const ask = async (set: TrustSet, signal: AbortSignal): Promise<Answer> => {
      const { askNames, showCertificate } = await import('./client-request.ts')
      const endpoint = { ...address, serverName, timeoutMs }
      return client ? showCertificate(endpoint, client, set, signal) : askNames(endpoint, set, signal)
    }
    return {
      kind: 'client-ca',
      description: name,
      // A list shows nowhere, nor does a CA that the target should not accept any more.
      seesPart: true,
      probe: async (signal, expected) => {
        if (!expected) return { up: false, why: 'nothing is in service that it could be asked for' }
        const answer = await ask(expected, signal)
        if (!answer.up) return answer
        const { fingerprint, serial, notAfter } = expected
        return answer.missing === undefined
          ? { up: true, fingerprint, serial, notAfter }
          : { up: true, fingerprint: 'another', serial: answer.missing, notAfter }
      },
      verify: async (set, _previous, signal) => {
        const startedAt = clock.elapsed()
        let streak: { readonly since: number; readonly count: number } | undefined
        for (;;) {
          const answer = await ask(set, signal)
          const now = clock.elapsed()
          if (answer.up && answer.missing === undefined) {
            streak = { since: streak?.since ?? now, count: (streak?.count ?? 0) + 1 }
            if (streak.count >= NEEDED && now - streak.since >= QUIET_MS) return
          } else {
            streak = undefined
            if (now - startedAt >= deadline)
              throw answer.up
                ? new SidecarError('RELOAD_NOT_EFFECTIVE', `${name}: ${answer.missing}`)
                : new SidecarError('TARGET_DOWN', `${name} cannot be asked: ${answer.why}`)
          }
          await clock.sleep(SPACING_MS, signal)
        }
      },
    }
  },
})
