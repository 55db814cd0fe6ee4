import * as z from 'zod'
import { toBundle } from '../core/bundle.ts'
import { generateKey } from '../core/key.ts'
import { Duration } from '../core/units.ts'
import { ObjectName } from '../kubernetes/options.ts'
import { type Authority, openAuthority, openSharedAuthority } from './dev-ca-authority.ts'
import { hasNames, NameOptions, NO_NAMES, namesFrom } from './name-options.ts'
import { defineSource, type SourceDeps } from './source.ts'

const Options = z
  .strictObject({
    directory: z
      .string()
      .regex(/^\/[^\0]*$/, 'must be an absolute path')
      .optional()
      .describe(
        'Where the CA lives; made at first use (0700). Its root is ca.crt in there, for clients to trust while testing',
      ),
    secret: ObjectName.optional().describe(
      'Instead of directory: the Secret of this namespace that the CA lives in, so that all replicas share it; made at first use',
    ),
    ...NameOptions,
    ttl: Duration.refine((ms) => ms >= 1000, { error: 'must be at least 1s' })
      .prefault('24h')
      .describe('Lifetime'),
  })
  .refine(hasNames, NO_NAMES)
  .refine(({ directory, secret }) => (directory === undefined) !== (secret === undefined), {
    error: 'needs either directory or secret, to keep the CA in',
  })

export const devCa = defineSource({
  kind: 'dev-ca',
  summary:
    'A CA in a local directory or a Secret, for development and tests, and for the webhook of the injector, which only the API server trusts: its key lies beside it, and anybody who trusts it trusts that.',
  options: Options,
  create: (options, { key: { algorithm }, clock, kubernetes }) => {
    const names = namesFrom(options)
    const { place, open } = homeOf(options, { clock, kubernetes })
    const origin = `dev-ca ${place}`
    return {
      origin,
      issues: true,
      ttlMs: options.ttl,
      names,
      algorithm,
      examine: async (signal) => {
        await open(signal)
        return [
          { ok: true, what: `the development CA in ${place} can be used` },
          { ok: undefined, what: 'dev-ca is for development and tests only', fix: 'Use vault-pki in production.' },
        ]
      },
      fetch: async (signal) => {
        signal.throwIfAborted()
        const { issue, chain } = await open(signal)
        const key = await generateKey(algorithm)
        const certificate = await issue({ names, key, notBefore: clock.now(), ttlMs: options.ttl })
        signal.throwIfAborted()
        return toBundle({ certificate, issuers: chain, key, origin, receivedAt: clock.now() })
      },
    }
  },
})

interface Home {
  readonly place: string
  open(signal: AbortSignal): Promise<Authority>
}

/** A Secret is read for each certificate: when another CA is put there, all replicas go over to it. */
function homeOf(
  { directory = '', secret }: z.output<typeof Options>,
  { clock: { now }, kubernetes }: Pick<SourceDeps, 'clock' | 'kubernetes'>,
): Home {
  if (secret !== undefined) {
    const api = kubernetes()
    return {
      place: `Secret ${api.namespace}/${secret}`,
      open: (signal) => openSharedAuthority(api, secret, now(), signal),
    }
  }
  let authority: Promise<Authority> | undefined
  return {
    place: directory,
    open: () => {
      authority ??= openAuthority(directory, now()).catch((error: unknown) => {
        authority = undefined
        throw error
      })
      return authority
    },
  }
}
