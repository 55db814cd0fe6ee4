import { createHmac, hash, type KeyObject, type X509Certificate } from 'node:crypto'
import { fingerprintOf } from './bundle.ts'
import { der, explicit, integer, octets, oid, sequence, TAG } from './der.ts'
import { type Draw, drawFrom, drawFromContent, encryptKey, ITERATIONS, seal } from './pbes2.ts'

const OID = {
  data: '1.2.840.113549.1.7.1',
  encryptedData: '1.2.840.113549.1.7.6',
  friendlyName: '1.2.840.113549.1.9.20',
  localKeyId: '1.2.840.113549.1.9.21',
  x509Certificate: '1.2.840.113549.1.9.22.1',
  shroudedKeyBag: '1.2.840.113549.1.12.10.1.2',
  certBag: '1.2.840.113549.1.12.10.1.3',
  sha256: '2.16.840.1.101.3.4.2.1',
  /** Of Oracle; without it Java takes a certificate for one of somebody's chain, and trusts it in nothing. */
  trustedKeyUsage: '2.16.840.1.113894.746875.1.1',
  anyExtendedKeyUsage: '2.5.29.37.0',
} as const

export interface KeyEntry {
  readonly key: KeyObject
  /** That of the key first, then its issuers. */
  readonly certificates: readonly X509Certificate[]
  /** Under which programs find it: friendlyName. */
  readonly alias: string
}

/**
 * A PKCS#12 key store (RFC 7292): AES-256, PBKDF2 and the integrity check with SHA-256. The same entry and password give the same bytes.
 * Encoded here, since the library that reads PKCS#12 draws its salts at random and would make each look a change; what encrypts is node:crypto.
 */
export function keyStoreOf({ key, certificates, alias }: KeyEntry, password: Buffer): Buffer {
  const draw = drawFrom(key)
  const [leaf] = certificates
  const mark = [attribute(OID.localKeyId, octets(Buffer.from(leaf ? fingerprintOf(leaf) : '', 'hex'))), name(alias)]
  const certificateBags = certificates.map((certificate) =>
    certificateBag(certificate, certificate === leaf ? mark : []),
  )
  const keyBag = bag(OID.shroudedKeyBag, encryptKey(key, password), mark)
  return pfx([encrypted(certificateBags, password, draw), plain([keyBag])], password, draw)
}

/** A PKCS#12 file of certificates that Java trusts: `keytool -list` calls each a trustedCertEntry. The same ones and password give the same bytes. */
export function trustStoreOf(certificates: readonly X509Certificate[], password: Buffer): Buffer {
  const distinct = [...new Map(certificates.map((one) => [fingerprintOf(one), one])).values()]
  const bags = distinct.map((certificate) =>
    certificateBag(certificate, [
      name(aliasOf(certificate)),
      attribute(OID.trustedKeyUsage, oid(OID.anyExtendedKeyUsage)),
    ]),
  )
  return pfx([encrypted(bags, password, drawFromContent)], password, drawFromContent)
}

/** For people, and no two alike. */
function aliasOf(certificate: X509Certificate): string {
  const called = /^(?:CN|O)=(.+)$/m.exec(certificate.subject ?? '')?.[1] ?? 'ca'
  return `${called.toLowerCase()} ${fingerprintOf(certificate).slice(0, 8)}`
}

const bag = (type: string, value: Buffer, attributes: readonly Buffer[]) =>
  // The parts of a set are in the order of their encodings (X.690 §11.6).
  sequence(
    oid(type),
    explicit(0, value),
    ...(attributes.length > 0 ? [der(TAG.set, ...attributes.toSorted(Buffer.compare))] : []),
  )

const certificateBag = ({ raw }: X509Certificate, attributes: readonly Buffer[]) =>
  bag(OID.certBag, sequence(oid(OID.x509Certificate), explicit(0, octets(raw))), attributes)

const attribute = (type: string, value: Buffer) => sequence(oid(type), der(TAG.set, value))
const name = (text: string) => attribute(OID.friendlyName, der(TAG.bmpString, bmp(text)))
/** UTF-16 with the high byte first. */
const bmp = (text: string) => Buffer.from(text, 'utf16le').swap16()

const plain = (bags: readonly Buffer[]) => sequence(oid(OID.data), explicit(0, octets(sequence(...bags))))

function encrypted(bags: readonly Buffer[], password: Buffer, draw: Draw): Buffer {
  const { algorithm, content } = seal(sequence(...bags), password, draw)
  // The content is tagged [0] in place of its own tag.
  const info = sequence(oid(OID.data), algorithm, der(0x80, content))
  return sequence(oid(OID.encryptedData), explicit(0, sequence(integer(0), info)))
}

function pfx(parts: readonly Buffer[], password: Buffer, draw: Draw): Buffer {
  const safe = sequence(...parts)
  const salt = draw('integrity', safe)
  const secret = macKey(password, salt)
  const digest = createHmac('sha256', secret).update(safe).digest()
  secret.fill(0)
  const info = sequence(sequence(oid(OID.sha256), der(TAG.null)), octets(digest))
  return sequence(
    integer(3),
    sequence(oid(OID.data), explicit(0, octets(safe))),
    sequence(info, octets(salt), integer(ITERATIONS)),
  )
}

/** Bytes in a block of SHA-256. */
const BLOCK = 64

/** RFC 7292 B.2 with SHA-256, for the 32 bytes of an integrity key (id 3), which are one round of it. */
function macKey(password: Buffer, salt: Buffer): Buffer {
  // ASCII as BMPString with a NUL at its end, by way of no string.
  const text = Buffer.alloc(2 * password.length + 2)
  for (const [index, byte] of password.entries()) text[2 * index + 1] = byte
  let block = Buffer.concat([Buffer.alloc(BLOCK, 3), filled(salt), filled(text)])
  text.fill(0)
  for (let round = 0; round < ITERATIONS; round += 1) {
    const next = hash('sha256', block, 'buffer')
    block.fill(0)
    block = next
  }
  return block
}

/** Repeated until it fills whole blocks. */
const filled = (content: Buffer) => Buffer.alloc(BLOCK * Math.ceil(content.length / BLOCK), content)
