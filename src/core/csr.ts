import { createPublicKey, type KeyObject, sign } from 'node:crypto'
import { isIPv4 } from 'node:net'
import { promisify } from 'node:util'
import { der, TAG } from './der.ts'
import type { Names } from './names.ts'

/** Object identifiers as DER holds them, in hex. */
const OID = {
  commonName: '550403',
  extensionRequest: '2a864886f70d01090e',
  subjectAltName: '551d11',
  ecdsaWithSha256: '2a8648ce3d040302',
  ecdsaWithSha384: '2a8648ce3d040303',
  ed25519: '2b6570',
  sha256WithRsa: '2a864886f70d01010b',
}

const signAsync = promisify(sign)

/**
 * A PKCS#10 certification request (RFC 2986) in PEM for `names`, signed with `key`. Encoded here: the few shapes it takes need less code
 * than a library for all of ASN.1 needs to be fed, which took 9 ms to load and 1 ms for each request (docs/performance.md).
 */
export async function createCsr(names: Names, key: KeyObject): Promise<string> {
  const { algorithm, digest } = signatureOf(key)
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const info = der(
    TAG.sequence,
    der(TAG.integer, Buffer.of(0)),
    subject(names.commonName),
    publicKey,
    attributes(names),
  )
  const signature = await signAsync(digest, info, key)
  return pem('CERTIFICATE REQUEST', der(TAG.sequence, info, algorithm, der(TAG.bitString, Buffer.of(0), signature)))
}

/** DER → PEM, 64 characters a line (RFC 7468). */
export const pem = (label: string, content: Buffer): string =>
  `-----BEGIN ${label}-----\n${content.toString('base64').replace(/.{1,64}/g, '$&\n')}-----END ${label}-----\n`

/** The same in a Buffer that can be overwritten, by way of no string: for private keys. */
export function pemBytes(label: string, content: Buffer): Buffer {
  const [begin, end] = [`-----BEGIN ${label}-----\n`, `-----END ${label}-----\n`]
  const characters = 4 * Math.ceil(content.length / 3)
  const text = Buffer.alloc(begin.length + characters + Math.ceil(characters / 64) + end.length)
  let at = text.write(begin)
  for (let index = 0; index < characters; index += 1) {
    // Four characters for three bytes; `=` where there are none left.
    const bit = index * 6
    const [high, low] = [content[bit >> 3], content[(bit >> 3) + 1] ?? 0]
    const sextet = high === undefined ? PADDING : (((high << 8) | low) >> (10 - (bit & 7))) & 63
    text[at++] = BASE64[sextet] ?? 0
    if (index % 64 === 63 || index === characters - 1) text[at++] = 0x0a
  }
  text.write(end, at)
  return text
}

const BASE64 = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=')
const PADDING = 64

function signatureOf(key: KeyObject): { algorithm: Buffer; digest: string | null } {
  const named = (identifier: string, ...parameters: readonly Buffer[]) =>
    der(TAG.sequence, oid(identifier), ...parameters)
  if (key.asymmetricKeyType === 'ed25519') return { algorithm: named(OID.ed25519), digest: null }
  if (key.asymmetricKeyType === 'rsa') return { algorithm: named(OID.sha256WithRsa, der(TAG.null)), digest: 'sha256' }
  return key.asymmetricKeyDetails?.namedCurve === 'secp384r1'
    ? { algorithm: named(OID.ecdsaWithSha384), digest: 'sha384' }
    : { algorithm: named(OID.ecdsaWithSha256), digest: 'sha256' }
}

function subject(commonName: string | undefined): Buffer {
  if (commonName === undefined) return der(TAG.sequence)
  const attribute = der(TAG.sequence, oid(OID.commonName), der(TAG.utf8String, Buffer.from(commonName)))
  return der(TAG.sequence, der(TAG.set, attribute))
}

/** The extensionRequest attribute (RFC 2985 §5.4.2) with the subjectAltName, tagged [0]; empty without names. */
function attributes(names: Names): Buffer {
  const generalNames = [
    ...names.email.map((name) => der(contextual(1), Buffer.from(name, 'latin1'))),
    ...names.dns.map((name) => der(contextual(2), Buffer.from(name, 'latin1'))),
    ...names.uri.map((name) => der(contextual(6), Buffer.from(name, 'latin1'))),
    ...names.ip.map((name) => der(contextual(7), addressBytes(name))),
  ]
  if (generalNames.length === 0) return der(ATTRIBUTES)
  const san = der(TAG.sequence, oid(OID.subjectAltName), der(TAG.octetString, der(TAG.sequence, ...generalNames)))
  const attribute = der(TAG.sequence, oid(OID.extensionRequest), der(TAG.set, der(TAG.sequence, san)))
  return der(ATTRIBUTES, attribute)
}

/** [n] of a context, of a primitive type. */
const contextual = (number: number) => 0x80 | number
/** [0] of a context, of a constructed type. */
const ATTRIBUTES = 0xa0

const oid = (hex: string) => der(TAG.oid, Buffer.from(hex, 'hex'))

/** 4 or 16 bytes of an address, as GeneralName iPAddress wants them. */
function addressBytes(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number))
  const embedded = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address)
  const hex = (high: string | undefined, low: string | undefined) => ((Number(high) << 8) | Number(low)).toString(16)
  const plain = embedded ? `${embedded[1]}${hex(embedded[2], embedded[3])}:${hex(embedded[4], embedded[5])}` : address
  const [head = '', tail] = plain.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const groups =
    tail === undefined ? left : [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right]
  return Buffer.from(groups.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 0xff]))
}
