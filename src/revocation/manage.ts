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

/** What a certificate of the config wants done. Throws CONFIG_INVALID where its source cannot do that. */
export function manageRevocation(
  { revocation, revokePrevious, revokeOnExit }: Options,
  { source, now }: { readonly source: Source; readonly now: () => Instant },
): Revocation<Bundle> {
  const { every: everyMs, onRevoked, ...how } = revocation ?? UNASKED
  const check = createCheck({ ocspUrl: undefined, crlUrl: undefined, ...how }, { source, now })
  const wanted = revokePrevious ? 'revokePrevious' : revokeOnExit ? 'revokeOnExit' : undefined
  if (wanted && !source.revoke)
    throw new SidecarError('CONFIG_INVALID', `${wanted}: a source of this kind (${source.origin}) revokes nothing`)
  const isOurs = ({ origin }: Bundle) => origin === source.origin || source.alternatives?.includes(origin)
  return {
    everyMs,
    onRevoked,
    ...(check && { check }),
    ...(revokePrevious && {
      outdated: (previous, { leaf }) =>
        !isOurs(previous) || previous.leaf.publicKey.equals(leaf.publicKey) ? undefined : outdatedFrom(previous),
    }),
    ...(revokeOnExit && { atExit: outdatedFrom }),
    revoke: async ({ der }, why, signal) => {
      await source.revoke?.(new X509Certificate(Buffer.from(der, 'base64')), why, signal)
    },
    stapleEnd: ({ staple }) => staple?.nextUpdate,
  }
}
