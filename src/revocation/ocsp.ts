import type { X509Certificate } from 'node:crypto'
import * as z from 'zod'
import { isIssuedBy, parseCertificate, serialOf } from '../core/bundle.ts'
import type { Instant } from '../core/content.ts'
import { SidecarError } from '../errors.ts'
import { download } from './http.ts'
import { isSignedWith, reasonName } from './signature.ts'

/** A certificate and who issued it. */
export interface Subject {
  readonly leaf: X509Certificate
  readonly issuer: X509Certificate
}

/** What a responder said of one certificate, its signature and its times found good. */
export interface OcspAnswer {
  readonly status: 'good' | 'revoked' | 'unknown'
  readonly revokedAt: Instant | undefined
  readonly reason: string | undefined
  readonly thisUpdate: Instant
  readonly nextUpdate: Instant | undefined
  /** The whole response, as a server staples it. */
  readonly der: Buffer
}

const MAX_BYTES = 64 * 1024
/** So far the clock of a responder may be ahead. */
const TOLERANCE_MS = 300_000
/** Extended key usage of a responder that an issuer delegates to (RFC 6960 §4.2.2.2). */
const OCSP_SIGNING = '1.3.6.1.5.5.7.3.9'

/** The responder that the certificate names (authority information access, RFC 5280 §4.2.2.1). */
export const ocspUrlOf = ({ infoAccess = '' }: X509Certificate): string | undefined =>
  /^OCSP - URI:(https?:\/\/\S+)$/m.exec(infoAccess)?.[1]

/** Asks by POST (RFC 6960 A.1). Throws OCSP_UNAVAILABLE, OCSP_INVALID. */
export async function askOcsp(
  url: string,
  subject: Subject,
  now: () => Instant,
  signal: AbortSignal,
): Promise<OcspAnswer> {
  const bytes = await requestFor(subject)
  const body = { type: 'application/ocsp-request', bytes }
  const der = await download({ url, body, maxBytes: MAX_BYTES, code: 'OCSP_UNAVAILABLE' }, signal)
  return readOcsp(der, subject, { now: now(), from: url })
}

async function requestFor({ leaf, issuer }: Subject): Promise<Buffer> {
  const { Certificate, OCSPRequest } = await import('pkijs')
  const request = new OCSPRequest()
  // The only one that all responders know (RFC 5019 §2.1.1); it names the issuer, and proves nothing.
  await request.createForCertificate(Certificate.fromBER(leaf.raw), {
    hashAlgorithm: 'SHA-1',
    issuerCertificate: Certificate.fromBER(issuer.raw),
  })
  return Buffer.from(request.toSchema(true).toBER(false))
}

/**
 * Reads a response and what it says of this certificate (RFC 6960 §3.2): signed by the issuer, or by a responder that the issuer delegates to;
 * about this certificate; current. Throws OCSP_UNAVAILABLE where the responder declines, OCSP_INVALID.
 */
export async function readOcsp(
  der: Buffer,
  { leaf, issuer }: Subject,
  { now, from }: { readonly now: Instant; readonly from: string },
): Promise<OcspAnswer> {
  const { BasicOCSPResponse, CertID, Certificate, OCSPResponse } = await import('pkijs')
  const invalid = (why: string) =>
    new SidecarError('OCSP_INVALID', `the answer of ${from} on certificate ${serialOf(leaf)} ${why}`)
  const parsed = parse(() => OCSPResponse.fromBER(der))
  const status = parsed.responseStatus.valueBlock.valueDec
  if (status !== 0)
    throw new SidecarError('OCSP_UNAVAILABLE', `${from} declined with ${STATUSES[status] ?? `status ${status}`}`)
  const bytes = parsed.responseBytes?.response.valueBlock.valueHexView
  const basic = parse(() => BasicOCSPResponse.fromBER(bytes ?? new Uint8Array()))
  if (!isTrusted(basic)) throw invalid('is not signed by its issuer, nor by a responder that the issuer delegates to')
  const wanted = await CertID.create(
    Certificate.fromBER(leaf.raw),
    {
      hashAlgorithm: 'SHA-1',
      issuerCertificate: Certificate.fromBER(issuer.raw),
    },
    undefined,
  )
  const single = basic.tbsResponseData.responses.find(({ certID }) => certID.isEqual(wanted))
  if (!single) throw invalid('is about another one')
  const [thisUpdate, nextUpdate] = [single.thisUpdate.getTime(), single.nextUpdate?.getTime()]
  if (!(thisUpdate <= now + TOLERANCE_MS)) throw invalid(`is valid from ${iso(thisUpdate)} only`)
  if (nextUpdate !== undefined && !(nextUpdate > now)) throw invalid(`ended at ${iso(nextUpdate)}`)
  return { ...statusOf(single.certStatus), thisUpdate, nextUpdate, der }

  function parse<T>(work: () => T): T {
    try {
      return work()
    } catch {
      throw invalid('is no OCSP response')
    }
  }

  function isTrusted({ tbsResponseData, signatureAlgorithm, signature, certs = [] }: typeof basic): boolean {
    const proof = {
      algorithm: signatureAlgorithm.algorithmId,
      signed: tbsResponseData.tbsView,
      signature: signature.valueBlock.valueHexView,
    }
    if (isSignedWith(issuer.publicKey, proof)) return true
    return certs.some((one) => {
      try {
        const delegate = parseCertificate(Buffer.from(one.toSchema(true).toBER(false)))
        return isDelegate(delegate) && isSignedWith(delegate.publicKey, proof)
      } catch {
        return false
      }
    })
  }

  function isDelegate(one: X509Certificate): boolean {
    const isCurrent = one.validFromDate.getTime() <= now + TOLERANCE_MS && one.validToDate.getTime() > now
    return isCurrent && one.keyUsage?.includes(OCSP_SIGNING) === true && isIssuedBy(one, issuer)
  }
}

/** OCSPResponseStatus, RFC 6960 §4.2.1. */
const STATUSES: readonly (string | undefined)[] = [
  'successful',
  'malformedRequest',
  'internalError',
  'tryLater',
  undefined,
  'sigRequired',
  'unauthorized',
]

/** CertStatus, RFC 6960 §4.2.1, as pkijs leaves it: [0] good, [1] RevokedInfo, [2] unknown. */
function statusOf(status: unknown): Pick<OcspAnswer, 'status' | 'revokedAt' | 'reason'> {
  const { idBlock, valueBlock } = CertStatus.parse(status)
  const [at, code] = valueBlock?.value ?? []
  const revokedAt = at instanceof Object && 'toDate' in at && typeof at.toDate === 'function' ? at.toDate() : undefined
  const parsed = Reason.safeParse(code)
  const reason = reasonName(parsed.data?.valueBlock.value[0]?.valueBlock.valueDec)
  if (idBlock.tagNumber === 0) return { status: 'good', revokedAt: undefined, reason: undefined }
  if (idBlock.tagNumber !== 1) return { status: 'unknown', revokedAt: undefined, reason: undefined }
  return { status: 'revoked', revokedAt: revokedAt instanceof Date ? revokedAt.getTime() : undefined, reason }
}

const CertStatus = z.looseObject({
  idBlock: z.looseObject({ tagNumber: z.number() }),
  valueBlock: z.looseObject({ value: z.array(z.unknown()).optional() }).optional(),
})
const Reason = z.looseObject({
  valueBlock: z.looseObject({
    value: z.array(z.looseObject({ valueBlock: z.looseObject({ valueDec: z.number() }) })),
  }),
})

const iso = (instant: Instant) => (Number.isNaN(instant) ? 'a date that is none' : new Date(instant).toISOString())
