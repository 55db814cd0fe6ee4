import * as z from 'zod'
import { toBundle } from '../core/bundle.ts'
import { generateKey } from '../core/key.ts'
import { Duration } from '../core/units.ts'
import { type Authority, openAuthority } from './dev-ca-authority.ts'
import { hasNames, NameOptions, NO_NAMES, namesFrom } from './name-options.ts'
import { defineSource } from './source.ts'

const Options = z
  .strictObject({
    directory: z
      .string()
      .regex(/^\/[^\0]*$/, 'must be an absolute path')
      .describe(
        'Where the CA lives; made at first use (0700). Its root is ca.crt in there, for clients to trust while testing',
      ),
    ...NameOptions,
    ttl: Duration.refine((ms) => ms >= 1000, { error: 'must be at least 1s' })
      .prefault('24h')
      .describe('Lifetime'),
  })
  .refine(hasNames, NO_NAMES)

export const devCa = defineSource({
  kind: 'dev-ca',
  summary:
    'A CA in a local directory, for development and tests only: its key lies beside it, and anybody who trusts it trusts that.',
  options: Options,
  create: (options, { key: { algorithm }, now }) => {
    const names = namesFrom(options)
    const origin = `dev-ca ${options.directory}`
    let authority: Promise<Authority> | undefined
    const open = () => {
      authority ??= openAuthority(options.directory, now()).catch((error: unknown) => {
        authority = undefined
        throw error
      })
      return authority
    }
    return {
      origin,
      issues: true,
      ttlMs: options.ttl,
      names,
      algorithm,
      examine: async () => {
        await open()
        return [
          { ok: true, what: `the development CA in ${options.directory} can be used` },
          { ok: undefined, what: 'dev-ca is for development and tests only', fix: 'Use vault-pki in production.' },
        ]
      },
      fetch: async (signal) => {
        signal.throwIfAborted()
        const { issue, chain } = await open()
        const key = await generateKey(algorithm)
        const certificate = await issue({ names, key, notBefore: now(), ttlMs: options.ttl })
        signal.throwIfAborted()
        return toBundle({ certificate, issuers: chain, key, origin, receivedAt: now() })
      },
    }
  },
})
