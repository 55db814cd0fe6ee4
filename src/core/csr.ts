import { createPublicKey, type KeyObject, sign } from 'node:crypto'
import { isIPv4 } from 'node:net'
import { promisify } from 'node:util'
import * as asn1 from 'asn1js'
import type { Names } from './names.ts'

const OID = {
  commonName: '2.5.4.3',
  extensionRequest: '1.2.840.113549.1.9.14',
  subjectAltName: '2.5.29.17',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  ecdsaWithSha384: '1.2.840.10045.4.3.3',
  ed25519: '1.3.101.112',
  sha256WithRsa: '1.2.840.113549.1.1.11',
}

const signAsync = promisify(sign)

/** A PKCS#10 certification request (RFC 2986) in PEM for `names`, signed with `key`. */
export async function createCsr(names: Names, key: KeyObject): Promise<string> {
  const { oid, digest } = signatureOf(key)
  const info = new asn1.Sequence({
    value: [
      new asn1.Integer({ value: 0 }),
      subject(names.commonName),
      der(createPublicKey(key).export({ type: 'spki', format: 'der' })),
      attributes(names),
    ],
  })
  const signed = Buffer.from(info.toBER())
  const signature = await signAsync(digest, signed, key)
  const algorithm = [
    new asn1.ObjectIdentifier({ value: oid }),
    ...(key.asymmetricKeyType === 'rsa' ? [new asn1.Null()] : []),
  ]
  const request = new asn1.Sequence({
    value: [der(signed), new asn1.Sequence({ value: algorithm }), new asn1.BitString({ valueHex: bytes(signature) })],
  })
  return pem('CERTIFICATE REQUEST', Buffer.from(request.toBER()))
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

function signatureOf(key: KeyObject): { oid: string; digest: string | null } {
  if (key.asymmetricKeyType === 'ed25519') return { oid: OID.ed25519, digest: null }
  if (key.asymmetricKeyType === 'rsa') return { oid: OID.sha256WithRsa, digest: 'sha256' }
  return key.asymmetricKeyDetails?.namedCurve === 'secp384r1'
    ? { oid: OID.ecdsaWithSha384, digest: 'sha384' }
    : { oid: OID.ecdsaWithSha256, digest: 'sha256' }
}

function subject(commonName: string | undefined): asn1.Sequence {
  if (commonName === undefined) return new asn1.Sequence({ value: [] })
  const attribute = new asn1.Sequence({
    value: [new asn1.ObjectIdentifier({ value: OID.commonName }), new asn1.Utf8String({ value: commonName })],
  })
  return new asn1.Sequence({ value: [new asn1.Set({ value: [attribute] })] })
}

/** The extensionRequest attribute (RFC 2985 §5.4.2) with the subjectAltName, tagged [0]; empty without names. */
function attributes(names: Names): asn1.Constructed {
  const generalNames = [
    ...names.email.map((name) => tagged(1, Buffer.from(name, 'latin1'))),
    ...names.dns.map((name) => tagged(2, Buffer.from(name, 'latin1'))),
    ...names.uri.map((name) => tagged(6, Buffer.from(name, 'latin1'))),
    ...names.ip.map((name) => tagged(7, addressBytes(name))),
  ]
  const idBlock = { tagClass: 3, tagNumber: 0 }
  if (generalNames.length === 0) return new asn1.Constructed({ idBlock, value: [] })
  const san = new asn1.Sequence({
    value: [
      new asn1.ObjectIdentifier({ value: OID.subjectAltName }),
      new asn1.OctetString({ valueHex: new asn1.Sequence({ value: generalNames }).toBER() }),
    ],
  })
  const attribute = new asn1.Sequence({
    value: [
      new asn1.ObjectIdentifier({ value: OID.extensionRequest }),
      new asn1.Set({ value: [new asn1.Sequence({ value: [san] })] }),
    ],
  })
  return new asn1.Constructed({ idBlock, value: [attribute] })
}

const tagged = (tagNumber: number, value: Buffer) =>
  new asn1.Primitive({ idBlock: { tagClass: 3, tagNumber }, valueHex: bytes(value) })

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

function der(content: Buffer): asn1.AsnType {
  const { result, offset } = asn1.fromBER(bytes(content))
  if (offset === -1) throw new TypeError('not DER')
  return result
}

const bytes = (buffer: Buffer): ArrayBuffer => Uint8Array.from(buffer).buffer
