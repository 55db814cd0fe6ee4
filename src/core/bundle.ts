import { createHash, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { SidecarError } from '../errors.ts'
import type { Content, Instant } from './content.ts'
import { pem, pemBytes } from './csr.ts'
import { describeKey, type KeyAlgorithm } from './key.ts'
import { differences, type Names, namesOf } from './names.ts'
import { quote } from './secret.ts'
import type { Staple } from './staple.ts'

export type { Instant }

/** A certificate with all it needs to be served: parsed, its key matching, its chain in order. */
export interface Bundle extends Content {
  readonly leaf: X509Certificate
  /** The issuers of the leaf in order, nearest first, without the root. */
  readonly intermediates: readonly X509Certificate[]
  /** Self-signed certificates that came along: the trust anchors a peer needs. */
  readonly roots: readonly X509Certificate[]
  /** Subjects of certificates that came along and are no issuer of it: they are left out. */
  readonly unrelated?: readonly string[]
  readonly key: KeyObject
  /** The OCSP response to show with it, where one is written. */
  readonly staple?: Staple
  /** SHA-256 of the leaf's DER, lower-case hex. */
  readonly fingerprint: string
  /** Serial number, lower-case hex. */
  readonly serial: string
}

/** What a bundle must fulfil before it is written. */
export interface Expectation {
  /** Names asked for; undefined where the source decides. */
  readonly names?: Names
  /** The subject common name is left to the issuer. */
  readonly isCommonNameFree?: true
  readonly algorithm?: KeyAlgorithm
  /** Less is refused: it would be renewed without end. */
  readonly minTtlMs: number
  /** Trust anchors besides the roots that the bundle brings; when given, only these count. */
  readonly anchors?: readonly X509Certificate[]
  /** True where a TLS server will show it. */
  readonly serverAuth?: boolean
  /** `lenient` accepts a chain that does not reach a self-signed root. */
  readonly chain: 'complete' | 'lenient'
}

export interface BundleParts {
  /** PEM of the leaf and of issuers, the leaf first or wherever the certificate of the key stands. */
  readonly certificate: string
  /** PEM of issuers, any order, duplicates allowed. */
  readonly issuers: readonly string[]
  readonly key: KeyObject | string
  readonly origin: string
  readonly receivedAt: Instant
}

/**
 * Parses and orders what a source delivered. All that is written later is encoded anew from the parsed form.
 * Throws BAD_RESPONSE when a part is no certificate or key, KEY_MISMATCH when the key belongs to another certificate.
 */
export function toBundle({ certificate, issuers, key, origin, receivedAt }: BundleParts): Bundle {
  const blocks = blocksOf(certificate)
  const [first] = blocks
  if (first === undefined) throw new SidecarError('BAD_RESPONSE', `the answer of ${origin} holds no certificate`)
  const privateKey = typeof key === 'string' ? parseKey(key, origin) : key
  const [leaf, leafBlock] = leafOf(first, blocks, privateKey, origin)
  const pool = [...blocks.filter((block) => block !== leafBlock), ...issuers.flatMap(blocksOf)]
  const { intermediates, roots, unrelated } = orderChain(leaf, pool.map(issuerOf))
  return {
    leaf,
    intermediates,
    roots,
    ...(unrelated.length > 0 && { unrelated: unrelated.map(({ subject }) => oneLine(subject)) }),
    key: privateKey,
    fingerprint: fingerprintOf(leaf),
    serial: serialOf(leaf),
    notBefore: leaf.validFromDate.getTime(),
    notAfter: leaf.validToDate.getTime(),
    receivedAt,
    origin,
  }
}

/** The first certificate; of a chain in another order, the one that the key belongs to. */
function leafOf(first: string, blocks: readonly string[], key: KeyObject, origin: string): [X509Certificate, string] {
  const leaf = parseBlock(first)
  if (leaf.checkPrivateKey(key)) return [leaf, first]
  const block = blocks.find((block) => issuerOf(block).checkPrivateKey(key))
  if (block !== undefined) return [issuerOf(block), block]
  throw new SidecarError(
    'KEY_MISMATCH',
    `certificate ${serialOf(leaf)} from ${origin} does not belong to its private key`,
  )
}

/**
 * What somebody else keeps, looked at anew: `serving` where nothing is new, otherwise `found`, as another edition where only the chain beside
 * the certificate is another one.
 */
export function newerOf(serving: Bundle, found: Bundle): Bundle {
  if (found.fingerprint !== serving.fingerprint) return found
  const chain = chainOf(found)
  if (chain === chainOf(serving)) return serving
  return { ...found, receivedAt: serving.receivedAt, edition: `chain ${chain.slice(0, 16)}` }
}

const chainOf = ({ intermediates, roots }: Bundle): string =>
  createHash('sha256')
    .update([...intermediates.map(fingerprintOf), 'roots', ...roots.map(fingerprintOf).sort()].join(' '))
    .digest('hex')

/** All certificates in a PEM text. Throws BAD_RESPONSE on a block that does not parse. */
export const parseCertificates = (text: string): X509Certificate[] => blocksOf(text).map(parseBlock)

const blocksOf = (text: string): string[] =>
  text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? []

function parseBlock(block: string): X509Certificate {
  try {
    return parseCertificate(block)
  } catch (cause) {
    throw new SidecarError('BAD_RESPONSE', 'a certificate in the answer does not parse as X.509', { cause })
  }
}

/**
 * One certificate, PEM or DER, with all in it that is used later. Throws what OpenSSL says, and a RangeError for a date that is none.
 * Node parses the public key only when asked, and ends with a segmentation fault where `toLegacyObject` meets one that does not parse;
 * of a date such as the 31st of February it makes NaN, with which every comparison is false, or whatever was in that memory before.
 */
export function parseCertificate(content: string | Buffer): X509Certificate {
  const certificate = new X509Certificate(content)
  void certificate.publicKey
  for (const [date, text] of [
    [certificate.validFromDate, certificate.validFrom],
    [certificate.validToDate, certificate.validTo],
  ] as const)
    if (Number.isNaN(date.getTime()) || text === BAD_TIME) throw new RangeError('a date of its validity is none')
  return certificate
}

/** What ASN1_TIME_print(3) of OpenSSL writes. */
const BAD_TIME = 'Bad time value'

function parseKey(text: string, origin: string): KeyObject {
  // Of a string, Node makes a copy of its own and leaves it.
  const content = Buffer.alloc(Buffer.byteLength(text), text)
  try {
    return createPrivateKey(content)
  } catch {
    // The cause is dropped on purpose: OpenSSL errors may quote the input.
    throw new SidecarError('BAD_RESPONSE', `the private key from ${origin} does not parse`)
  } finally {
    content.fill(0)
  }
}

/** Issuers by their PEM: certificates have them in common, and each parsed one takes time and memory. The last so many are kept. */
const issuers = new Map<string, X509Certificate>()
const MAX_ISSUERS_KEPT = 100

function issuerOf(block: string): X509Certificate {
  const issuer = issuers.get(block) ?? parseBlock(block)
  issuers.delete(block)
  issuers.set(block, issuer)
  const [oldest] = issuers.keys()
  if (issuers.size > MAX_ISSUERS_KEPT && oldest !== undefined) issuers.delete(oldest)
  return issuer
}

export const fingerprintOf = (certificate: X509Certificate): string =>
  certificate.fingerprint256.replaceAll(':', '').toLowerCase()
export const serialOf = (certificate: X509Certificate): string => certificate.serialNumber.toLowerCase()

/** More issuers than any real chain has: whoever sends so many wants to keep us busy. */
const MAX_ISSUERS = 20

/** Walks from the leaf to a root through `pool` (RFC 5280 §6.1: issuer name and signature). Certificates off the path are left out, roots kept. */
function orderChain(leaf: X509Certificate, pool: readonly X509Certificate[]) {
  const distinct = [...new Map(pool.map((one) => [fingerprintOf(one), one])).values()]
  if (distinct.length > MAX_ISSUERS)
    throw new SidecarError(
      'BAD_RESPONSE',
      `${distinct.length} issuers came with certificate ${serialOf(leaf)}; at most ${MAX_ISSUERS} are read`,
    )
  const roots = distinct.filter(isSelfIssued)
  const others = new Set(distinct.filter((one) => !roots.includes(one)))
  const intermediates: X509Certificate[] = []
  for (let current = leaf; !roots.some((root) => isIssuedBy(current, root)); ) {
    const issuer = lastToEnd([...others].filter((candidate) => isIssuedBy(current, candidate)))
    if (!issuer) break
    others.delete(issuer)
    intermediates.push(issuer)
    current = issuer
  }
  // A certificate may come twice, once as its own issuer; and an issuer as well, before and after it was renewed with its key.
  const path = [leaf, ...intermediates]
  const unrelated = [...others].filter(
    (one) => fingerprintOf(one) !== fingerprintOf(leaf) && !path.some((certificate) => isIssuedBy(certificate, one)),
  )
  return { intermediates, roots, unrelated }
}

/** Of issuers that are as good: those of one name and key, of which the first may be about to end. */
const lastToEnd = (issuers: readonly X509Certificate[]): X509Certificate | undefined =>
  issuers.toSorted((a, b) => b.validToDate.getTime() - a.validToDate.getTime())[0]

export const isIssuedBy = (certificate: X509Certificate, issuer: X509Certificate) =>
  certificate.checkIssued(issuer) && isSignedBy(certificate, issuer)

/** By each certificate the issuer whose signature on it was found good: neither of them can change, so one look at it is enough. */
const signers = new WeakMap<X509Certificate, X509Certificate>()

function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  if (signers.get(certificate) === issuer) return true
  const isGood = certificate.verify(issuer.publicKey)
  if (isGood) signers.set(certificate, issuer)
  return isGood
}
export const isSelfIssued = (certificate: X509Certificate) => isIssuedBy(certificate, certificate)

/**
 * Refuses a bundle that must not be put into service. Checks, in this order: key match, names, key algorithm, weakness,
 * validity, minimum TTL, chain to a trusted root, CA outlives leaf.
 * Throws KEY_MISMATCH, NAMES_MISMATCH, POLICY_REJECT, CERTIFICATE_EXPIRED, NOT_YET_VALID, TTL_TOO_SHORT, CHAIN_INVALID or CA_EXPIRING.
 */
export function assertUsable(bundle: Bundle, expect: Expectation, now: Instant): void {
  const name = `certificate ${bundle.serial}`
  if (!bundle.leaf.checkPrivateKey(bundle.key))
    throw new SidecarError('KEY_MISMATCH', `${name} does not belong to its private key`)
  const mismatch = configMismatch(bundle, expect)
  if (mismatch) throw new SidecarError(mismatch.code, `${name}: ${mismatch.message}`)
  const weakness = weaknessOf(bundle.leaf) ?? (expect.serverAuth ? misuseOf(bundle.leaf) : undefined)
  if (weakness) throw new SidecarError('POLICY_REJECT', `${name} ${weakness}`)
  if (bundle.notAfter <= now)
    throw new SidecarError('CERTIFICATE_EXPIRED', `${name} expired at ${iso(bundle.notAfter)}`)
  if (bundle.notBefore > now + CLOCK_TOLERANCE_MS)
    throw new SidecarError('NOT_YET_VALID', `${name} is valid from ${iso(bundle.notBefore)} only`)
  const ttl = bundle.notAfter - Math.max(bundle.notBefore, bundle.receivedAt)
  if (ttl < expect.minTtlMs)
    throw new SidecarError(
      'TTL_TOO_SHORT',
      `${name} lives ${Math.round(ttl / 1000)} s, less than check.minTtl of ${Math.round(expect.minTtlMs / 1000)} s`,
    )
  assertChain(bundle, expect, now)
}

/** Vault backdates notBefore by 30 s; a clock ahead of ours by as much is no reason to wait. */
const CLOCK_TOLERANCE_MS = 30_000

/** What differs between the bundle and what the config asks for now: such a certificate on disk is due. */
export function configMismatch(
  bundle: Bundle,
  expect: Pick<Expectation, 'names' | 'isCommonNameFree' | 'algorithm'>,
): { code: 'NAMES_MISMATCH' | 'POLICY_REJECT'; message: string } | undefined {
  const got = namesOf(bundle.leaf)
  const wanted = expect.names && { ...expect.names, ...(expect.isCommonNameFree && { commonName: got.commonName }) }
  const found = wanted ? differences(wanted, got) : []
  if (found.length > 0) return { code: 'NAMES_MISMATCH', message: found.join('; ') }
  const algorithm = describeKey(bundle.key)
  if (expect.algorithm && algorithm !== expect.algorithm)
    return { code: 'POLICY_REJECT', message: `has an ${algorithm} key, wanted ${expect.algorithm}` }
  return undefined
}

function weaknessOf(certificate: X509Certificate): string | undefined {
  if (certificate.ca) return 'is a CA certificate (basicConstraints CA:TRUE)'
  const bits = certificate.publicKey.asymmetricKeyDetails?.modulusLength
  if (bits !== undefined && bits < 2048) return `has an RSA key of ${bits} bits; at least 2048 are required`
  if (/sha1|md5|md2|md4/i.test(certificate.signatureAlgorithm ?? ''))
    return `is signed with ${certificate.signatureAlgorithm}`
  return undefined
}

/** Extended key usage (RFC 5280 §4.2.1.12), which Node calls keyUsage: without the extension a certificate serves any purpose. */
function misuseOf(certificate: X509Certificate): string | undefined {
  const usages = certificate.keyUsage
  if (!usages || usages.includes(SERVER_AUTH) || usages.includes(ANY_USAGE)) return undefined
  return `is not for servers (extended key usage ${usages.join(', ')}); TLS clients would refuse it`
}

const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const ANY_USAGE = '2.5.29.37.0'

/** When the first of its issuers ends; undefined where none came along. */
export function endOfIssuers({ intermediates, roots }: Pick<Bundle, 'intermediates' | 'roots'>): Instant | undefined {
  const ends = [...intermediates, ...roots].map(({ validToDate }) => validToDate.getTime())
  return ends.length > 0 ? Math.min(...ends) : undefined
}

function assertChain(bundle: Bundle, expect: Expectation, now: Instant): void {
  const path = [bundle.leaf, ...bundle.intermediates]
  const last = path.at(-1) ?? bundle.leaf
  const anchors = expect.anchors ?? bundle.roots
  const anchor = lastToEnd(
    anchors.filter((candidate) => isIssuedBy(last, candidate) || fingerprintOf(candidate) === fingerprintOf(last)),
  )
  if (!anchor && expect.chain === 'complete') {
    throw new SidecarError(
      'CHAIN_INVALID',
      `certificate ${bundle.serial}: no trusted root for issuer "${oneLine(last.issuer)}" (certificates in the chain: ${path.length}, trusted roots: ${anchors.length})`,
    )
  }
  const unfit = bundle.intermediates.find((ca) => !ca.ca || ca.validFromDate.getTime() > now + CLOCK_TOLERANCE_MS)
  if (unfit)
    throw new SidecarError(
      'CHAIN_INVALID',
      `certificate ${bundle.serial}: its issuer "${oneLine(unfit.subject)}" ${unfit.ca ? 'is not valid yet' : 'is no CA (basicConstraints)'}`,
    )
  const short = [...bundle.intermediates, ...(anchor ? [anchor] : [])].find(
    (ca) => ca.validToDate.getTime() < bundle.notAfter,
  )
  if (short) {
    throw new SidecarError(
      'CA_EXPIRING',
      `certificate ${bundle.serial} ends at ${iso(bundle.notAfter)}, after its CA "${oneLine(short.subject)}" at ${iso(short.validToDate.getTime())}`,
    )
  }
}

/** The DER of a certificate re-encoded as PEM; nothing of the received text is passed on. */
export const certificatePem = (certificate: X509Certificate): string => pem('CERTIFICATE', certificate.raw)
/** The private key as PKCS#8 PEM in a Buffer, which the writer overwrites after use. No string is made on the way: none could be overwritten. */
export function keyPem(key: KeyObject): Buffer {
  const content = key.export({ type: 'pkcs8', format: 'der' })
  try {
    return pemBytes('PRIVATE KEY', content)
  } finally {
    content.fill(0)
  }
}

const iso = (instant: Instant) => new Date(instant).toISOString()
const oneLine = (distinguishedName: string | undefined) => quote((distinguishedName ?? '').replaceAll('\n', ', '))
