import type { X509Certificate } from 'node:crypto'
import type { IssuingDistributionPoint } from 'pkijs'
import { serialOf } from '../core/bundle.ts'
import type { Instant } from '../core/content.ts'
import { SidecarError } from '../errors.ts'
import { download } from './http.ts'
import type { Subject } from './ocsp.ts'
import { isSignedWith, reasonName } from './signature.ts'

const MAX_BYTES = 16 * 1024 * 1024

/** The first list over HTTP that the certificate names (CRL distribution points, RFC 5280 §4.2.1.13). */
export async function crlUrlOf(leaf: X509Certificate): Promise<string | undefined> {
  const { Certificate, CRLDistributionPoints, GeneralName } = await import('pkijs')
  const extension = Certificate.fromBER(leaf.raw).extensions?.find(({ extnID }) => extnID === '2.5.29.31')
  const points = extension?.parsedValue instanceof CRLDistributionPoints ? extension.parsedValue.distributionPoints : []
  const names = points.flatMap(({ distributionPoint }) => (Array.isArray(distributionPoint) ? distributionPoint : []))
  const urls = names.map((name: unknown) => (name instanceof GeneralName ? String(name.value) : ''))
  return urls.find((url) => /^https?:\/\//.test(url))
}

/** Whether the list names this certificate: signed by its issuer, and current. Throws REVOCATION_UNKNOWN. */
export async function askCrl(
  url: string,
  { leaf, issuer }: Subject,
  now: () => Instant,
  signal: AbortSignal,
): Promise<{ readonly revokedAt: Instant; readonly reason: string | undefined } | undefined> {
  const bytes = await download({ url, maxBytes: MAX_BYTES, code: 'REVOCATION_UNKNOWN' }, signal)
  const { CertificateRevocationList, IssuingDistributionPoint } = await import('pkijs')
  const refuse = (why: string) => new SidecarError('REVOCATION_UNKNOWN', `the list at ${url} ${why}`)
  const list = (() => {
    try {
      return CertificateRevocationList.fromBER(derOf(bytes))
    } catch {
      throw refuse('is no CRL')
    }
  })()
  const proof = {
    algorithm: list.signatureAlgorithm.algorithmId,
    signed: list.tbsView,
    signature: list.signatureValue.valueBlock.valueHexView,
  }
  if (!isSignedWith(issuer.publicKey, proof)) throw refuse(`is not signed by the issuer of ${serialOf(leaf)}`)
  const end = list.nextUpdate?.value
  if (end && !(end.getTime() > now())) throw refuse(`ended at ${end.toISOString()}`)
  // RFC 5280 §5.2: whoever does not know a critical extension must not take the list for an answer.
  for (const { extnID, critical, parsedValue } of list.crlExtensions?.extensions ?? []) {
    if (extnID === DELTA_INDICATOR) throw refuse('is a delta: it does not name who was revoked before')
    const isOfThese = parsedValue instanceof IssuingDistributionPoint && !isForOthers(parsedValue)
    if (critical && !isOfThese) throw refuse(`has the critical extension ${extnID}, which is not understood`)
  }
  const serial = BigInt(`0x${serialOf(leaf)}`)
  const entry = list.revokedCertificates?.find(
    ({ userCertificate }) =>
      BigInt(`0x${Buffer.from(userCertificate.valueBlock.valueHexView).toString('hex')}`) === serial,
  )
  if (!entry) return undefined
  const reason: unknown = entry.crlEntryExtensions?.extensions.find(({ extnID }) => extnID === '2.5.29.21')?.parsedValue
  const code =
    reason instanceof Object && 'valueBlock' in reason ? Number(Object(reason.valueBlock).valueDec) : undefined
  return { revokedAt: entry.revocationDate.value.getTime(), reason: reasonName(code) }
}

const DELTA_INDICATOR = '2.5.29.27'

/** Whether a list leaves out certificates of servers and clients, some reasons, or names those of other issuers (RFC 5280 §5.2.5). */
const isForOthers = (scope: IssuingDistributionPoint): boolean =>
  scope.onlyContainsCACerts ||
  scope.onlyContainsAttributeCerts ||
  scope.indirectCRL ||
  scope.onlySomeReasons !== undefined

const derOf = (bytes: Buffer): Buffer => {
  const armoured = /-----BEGIN X509 CRL-----([\s\S]*?)-----END X509 CRL-----/.exec(bytes.toString('latin1'))
  return armoured?.[1] === undefined ? bytes : Buffer.from(armoured[1], 'base64')
}
