import type { X509Certificate } from 'node:crypto'
import * as z from 'zod'
import type { Instant } from '../core/content.ts'
import { unit } from '../core/renewal.ts'
import { SidecarError } from '../errors.ts'
import { retryAfterOf, type Transport } from './transport.ts'

/** RFC 9773 §4.2. */
const RenewalInfo = z.object({
  suggestedWindow: z.object({ start: z.iso.datetime({ offset: true }), end: z.iso.datetime({ offset: true }) }),
})

const Directory = z.object({ renewalInfo: z.url().optional() })

/** What the CA advises. */
export interface Advice {
  /** When to renew: a time within the window, the same for this certificate and window wherever and whenever it is worked out. */
  readonly at: Instant
  /** When to ask again, ms from now. */
  readonly askAfterMs: number
}

/** RFC 9773 §4.3.2 leaves the bounds to the client: no more than once a minute, no less than once a day. */
const LEAST_MS = 60_000
const MOST_MS = 86_400_000
const USUAL_MS = 6 * 3_600_000

/** Asks for the window of a certificate; undefined where the CA has none to offer. Throws as the transport does. */
export async function askAdvice(
  transport: Transport,
  directory: string,
  leaf: X509Certificate,
  now: Instant,
): Promise<Advice | undefined> {
  const { renewalInfo } = Directory.safeParse((await transport.send(directory, 'GET', {})).data).data ?? {}
  if (renewalInfo === undefined) return undefined
  const id = await certificateId(leaf)
  const { status, headers, data } = await transport.send(`${renewalInfo.replace(/\/$/, '')}/${id}`, 'GET', {})
  if (status === 404) return undefined
  const found = RenewalInfo.safeParse(data).data
  if (status !== 200 || !found)
    throw new SidecarError('BAD_RESPONSE', `${renewalInfo} answers ${status} without a window`)
  const [start, end] = [Date.parse(found.suggestedWindow.start), Date.parse(found.suggestedWindow.end)]
  if (!(start < end)) throw new SidecarError('BAD_RESPONSE', `${renewalInfo} names a window that ends before it begins`)
  const askAfterMs = Math.min(Math.max(retryAfterOf(headers['retry-after'], now) ?? USUAL_MS, LEAST_MS), MOST_MS)
  return { at: Math.floor(start + unit(`${leaf.fingerprint256}\0${start}\0${end}`) * (end - start)), askAfterMs }
}

/** RFC 9773 §4.1: the key identifier of the issuer, then the serial number, both in base64url. */
export async function certificateId(leaf: X509Certificate): Promise<string> {
  await import('reflect-metadata')
  const { X509Certificate: Parsed, AuthorityKeyIdentifierExtension } = await import('@peculiar/x509')
  const keyId = new Parsed(leaf.raw).getExtension(AuthorityKeyIdentifierExtension)?.keyId
  if (keyId === undefined) throw new SidecarError('BAD_RESPONSE', 'the certificate does not name the key of its issuer')
  return identifierOf(keyId, leaf.serialNumber)
}

/** Of both in hex, as certificates are read. */
export function identifierOf(keyId: string, serialNumber: string): string {
  const hex = serialNumber.length % 2 === 0 ? serialNumber : `0${serialNumber}`
  const serial = Buffer.from(hex, 'hex')
  // DER: a number whose first bit is set has a zero in front.
  const encoded = ((serial[0] ?? 0) & 0x80) === 0 ? serial : Buffer.concat([Buffer.of(0), serial])
  return `${Buffer.from(keyId, 'hex').toString('base64url')}.${encoded.toString('base64url')}`
}
