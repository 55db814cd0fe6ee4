import type { X509Certificate } from 'node:crypto'
import { type Bundle, isIssuedBy } from '../core/bundle.ts'
import type { Instant } from '../core/content.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import type { Source } from '../sources/source.ts'
import { askCrl, crlUrlOf } from './crl.ts'
import { askOcsp, ocspUrlOf, type Subject } from './ocsp.ts'
import type { RevocationOptions } from './options.ts'
import { AUTO, type CheckKind, type Verdict } from './revocation.ts'

type Ask = (bundle: Bundle, signal: AbortSignal) => Promise<Verdict | undefined>

export interface CheckDeps {
  /** Who issued it; undefined where that is none of ours. */
  readonly sourceOf: (bundle: Bundle) => Pick<Source, 'revokedAt'> | undefined
  readonly now: () => Instant
}

/**
 * Asks one after the other until one can say. Throws what the first met where none can, REVOCATION_UNKNOWN where there is none to ask.
 */
export function createCheck(
  { check, ocspUrl, crlUrl }: Pick<RevocationOptions, 'check' | 'ocspUrl' | 'crlUrl'>,
  { sourceOf, now }: CheckDeps,
): ((bundle: Bundle, signal: AbortSignal) => Promise<Verdict>) | undefined {
  if (check === 'none') return undefined
  const asks: Readonly<Record<CheckKind, Ask>> = {
    vault: async (bundle, signal) => {
      const at = await sourceOf(bundle)?.revokedAt?.(bundle.leaf, signal)
      if (at === undefined) return undefined
      return at === 0 ? { status: 'good', by: 'vault' } : { status: 'revoked', by: 'vault', at }
    },
    ocsp: async (bundle, signal) => {
      const url = ocspUrl ?? ocspUrlOf(bundle.leaf)
      const subject = subjectOf(bundle)
      if (url === undefined || !subject) return undefined
      const { status, revokedAt: at, reason } = await askOcsp(url, subject, now, signal)
      return { status, by: 'ocsp', at, reason }
    },
    crl: async (bundle, signal) => {
      const url = crlUrl ?? (await crlUrlOf(bundle.leaf))
      const subject = subjectOf(bundle)
      if (url === undefined || !subject) return undefined
      const found = await askCrl(url, subject, now, signal)
      return found
        ? { status: 'revoked', by: 'crl', at: found.revokedAt, reason: found.reason }
        : { status: 'good', by: 'crl' }
    },
  }
  const order: readonly CheckKind[] = check === 'auto' ? AUTO : check
  return async (bundle, signal) => {
    let trouble: SidecarError | undefined
    let unknown: Verdict | undefined
    for (const kind of order) {
      try {
        const verdict = await asks[kind](bundle, signal)
        if (verdict && verdict.status !== 'unknown') return verdict
        unknown ??= verdict
      } catch (thrown) {
        signal.throwIfAborted()
        trouble ??= toSidecarError(thrown)
      }
    }
    if (trouble) throw trouble
    if (unknown) return unknown
    throw new SidecarError(
      'REVOCATION_UNKNOWN',
      `nobody can be asked about certificate ${bundle.serial} by ${order.join(', ')}: it names none of them, or its issuer did not come along`,
    )
  }
}

/** undefined where the issuer did not come along. */
export function subjectOf({
  leaf,
  intermediates,
  roots,
}: Pick<Bundle, 'leaf' | 'intermediates' | 'roots'>): Subject | undefined {
  const issuer: X509Certificate | undefined = [...intermediates, ...roots].find((one) => isIssuedBy(leaf, one))
  return issuer && { leaf, issuer }
}
