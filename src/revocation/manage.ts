import { X509Certificate } from 'node:crypto'
import type { CertificateConfig } from '../config/config.ts'
import type { Bundle } from '../core/bundle.ts'
import type { Instant } from '../core/content.ts'
import { outdatedFrom } from '../core/outdated.ts'
import { SidecarError } from '../errors.ts'
import type { Source } from '../sources/source.ts'
import { createCheck } from './check.ts'
import type { Revocation } from './revocation.ts'

type Options = Pick<CertificateConfig, 'revocation' | 'revokePrevious' | 'revokeOnExit'>

const UNASKED = { check: 'none', every: 600_000, onRevoked: 'warn' } as const

interface ManageDeps {
  /** That of the certificate, and its fallbacks: who issued a certificate is asked about it, and revokes it. */
  readonly sources: readonly [Source, ...Source[]]
  readonly now: () => Instant
}

/** What a certificate of the config wants done. Throws CONFIG_INVALID where none of its sources can do that. */
export function manageRevocation(
  { revocation, revokePrevious, revokeOnExit }: Options,
  { sources, now }: ManageDeps,
): Revocation<Bundle> {
  const { every: everyMs, onRevoked, ...how } = revocation ?? UNASKED
  const [first] = sources
  const sourceOf = ({ origin = first.origin }: { readonly origin?: string | undefined }) =>
    sources.find((source) => source.origin === origin)
  const check = createCheck({ ocspUrl: undefined, crlUrl: undefined, ...how }, { sourceOf, now })
  const refuse = (option: string, why: string) => {
    const names = sources.map(({ origin }) => origin).join(', ')
    return new SidecarError('CONFIG_INVALID', `${option}: a source of this kind (${names}) ${why}`)
  }
  const wanted = revokePrevious ? 'revokePrevious' : revokeOnExit ? 'revokeOnExit' : undefined
  if (wanted && !sources.some(({ revoke }) => revoke)) throw refuse(wanted, 'revokes nothing')
  if (Array.isArray(how.check) && how.check.includes('vault') && !sources.some(({ revokedAt }) => revokedAt))
    throw refuse('revocation.check: vault', 'is no Vault that could say')
  const outdatedOf = (bundle: Bundle) => (sourceOf(bundle)?.revoke ? outdatedFrom(bundle) : undefined)
  return {
    everyMs,
    onRevoked,
    ...(check && { check }),
    ...(revokePrevious && {
      outdated: (previous, { leaf }) =>
        previous.leaf.publicKey.equals(leaf.publicKey) ? undefined : outdatedOf(previous),
    }),
    ...(revokeOnExit && { atExit: outdatedOf }),
    revoke: async (one, why, signal) => {
      await sourceOf(one)?.revoke?.(new X509Certificate(Buffer.from(one.der, 'base64')), why, signal)
    },
    stapleEnd: ({ staple }) => staple?.nextUpdate,
  }
}
