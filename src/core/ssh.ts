import { createPublicKey, hash, type KeyObject } from 'node:crypto'
import { SidecarError } from '../errors.ts'
import type { Instant } from './content.ts'
import { pemBytes } from './csr.ts'
import { integersIn, TAG } from './der.ts'
import { describeKey } from './key.ts'

/** What an OpenSSH certificate says of itself: PROTOCOL.certkeys of OpenSSH. */
export interface SshCertificate {
  readonly serial: string
  readonly notBefore: Instant
  /** Undefined where it has no end. */
  readonly notAfter: Instant | undefined
}

/** How many fields the public key has, by the type of the certificate. */
const KEY_FIELDS: ReadonlyMap<string, number> = new Map([
  ['ssh-rsa-cert-v01@openssh.com', 2],
  ['ssh-ed25519-cert-v01@openssh.com', 1],
  ['ecdsa-sha2-nistp256-cert-v01@openssh.com', 2],
  ['ecdsa-sha2-nistp384-cert-v01@openssh.com', 2],
  ['ecdsa-sha2-nistp521-cert-v01@openssh.com', 2],
  ['sk-ssh-ed25519-cert-v01@openssh.com', 2],
  ['sk-ecdsa-sha2-nistp256-cert-v01@openssh.com', 3],
])

/** Reads one line as `ssh-keygen` writes it. Throws a RangeError for what is none. */
export function readSshCertificate(line: string): SshCertificate {
  const [type = '', base64 = ''] = line.trim().split(/\s+/)
  const keyFields = KEY_FIELDS.get(type)
  if (keyFields === undefined) throw new RangeError('is no OpenSSH certificate')
  const reader = createReader(Buffer.from(base64, 'base64'))
  if (reader.string().toString() !== type) throw new RangeError('is no OpenSSH certificate')
  // The nonce, then the public key.
  for (let field = 0; field < 1 + keyFields; field += 1) reader.string()
  const serial = reader.uint64()
  reader.uint32()
  // Key id and principals.
  reader.string()
  reader.string()
  const [after, before] = [reader.uint64(), reader.uint64()]
  const FOREVER = 0xffff_ffff_ffff_ffffn
  return {
    serial: serial.toString(),
    notBefore: Number(after) * 1000,
    notAfter: before === FOREVER ? undefined : Number(before) * 1000,
  }
}

function createReader(bytes: Buffer) {
  let at = 0
  const take = (length: number) => {
    if (at + length > bytes.length) throw new RangeError('is cut off')
    at += length
    return bytes.subarray(at - length, at)
  }
  const uint32 = () => take(4).readUInt32BE()
  return { uint32, uint64: () => take(8).readBigUInt64BE(), string: () => take(uint32()) }
}

/** The public half of a key as OpenSSH writes it: type and base64 (RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4). Throws KEY_FORMAT for one that it has no form for. */
export function sshPublicKey(key: KeyObject): string {
  const { type, blob } = publicParts(key)
  return `${type} ${blob.toString('base64')}`
}

function publicParts(key: KeyObject): { readonly type: string; readonly blob: Buffer } {
  const { kty, crv = '', x = '', y = '', n = '', e = '' } = key.export({ format: 'jwk' })
  const bytes = (text: string) => Buffer.from(text, 'base64url')
  const made = (type: string, ...fields: (string | Buffer)[]) => ({
    type,
    blob: Buffer.concat([type, ...fields].map(sshString)),
  })
  const curve = NIST[crv]
  if (kty === 'RSA') return made('ssh-rsa', mpint(bytes(e)), mpint(bytes(n)))
  if (crv === 'Ed25519') return made('ssh-ed25519', bytes(x))
  if (kty === 'EC' && curve)
    return made(`ecdsa-sha2-${curve}`, curve, Buffer.concat([Buffer.of(4), bytes(x), bytes(y)]))
  throw new SidecarError('KEY_FORMAT', `OpenSSH has no form for an ${describeKey(key)} key`)
}

const NIST: Readonly<Record<string, string>> = { 'P-256': 'nistp256', 'P-384': 'nistp384', 'P-521': 'nistp521' }

/**
 * A private key as OpenSSH writes it, without a passphrase: PROTOCOL.key of OpenSSH. No string is made of it: none could be overwritten.
 * The two equal numbers that tell a right passphrase are no secret; they follow from the key, so that the same key gives the same bytes.
 */
export function sshPrivateKey(key: KeyObject, comment: string): Buffer {
  const { type, blob } = publicParts(createPublicKey(key))
  const check = hash('sha256', blob, 'buffer').subarray(0, 4)
  const fields = privateFields(key, type, blob)
  const body = Buffer.concat([check, check, sshString(type), ...fields, sshString(comment)])
  const padding = Buffer.from(Array.from({ length: (8 - (body.length % 8)) % 8 }, (_, index) => index + 1))
  const file = Buffer.concat([
    Buffer.from('openssh-key-v1\0'),
    ...['none', 'none', ''].map(sshString),
    uint32(1),
    sshString(blob),
    uint32(body.length + padding.length),
    body,
    padding,
  ])
  try {
    return pemBytes('OPENSSH PRIVATE KEY', file)
  } finally {
    for (const part of [...fields, body, file]) part.fill(0)
  }
}

/** What follows the type of the key, all of it strings with their length. */
function privateFields(key: KeyObject, type: string, blob: Buffer): Buffer[] {
  // The public key after its type is what the private part of an ECDSA or Ed25519 key begins with.
  const shown = Buffer.from(blob.subarray(4 + type.length))
  if (key.asymmetricKeyType === 'rsa') {
    const encoded = key.export({ type: 'pkcs1', format: 'der' })
    const [, n, e, d, p, q, , , iqmp] = integersIn(encoded)
    const fields = [n, e, d, iqmp, p, q].map((field) => sshString(field ?? ''))
    encoded.fill(0)
    return fields
  }
  if (key.asymmetricKeyType === 'ed25519') {
    const encoded = key.export({ type: 'pkcs8', format: 'der' })
    const pair = Buffer.concat([encoded.subarray(-32), shown.subarray(4)])
    const field = sshString(pair)
    encoded.fill(0)
    pair.fill(0)
    return [shown, field]
  }
  const encoded = key.export({ type: 'sec1', format: 'der' })
  // ECPrivateKey (RFC 5915 §3): SEQUENCE, INTEGER 1, OCTET STRING of the number.
  const at = encoded.indexOf(Buffer.of(TAG.integer, 1, 1, TAG.octetString)) + 4
  const length = encoded[at] ?? 0
  const number = mpint(encoded.subarray(at + 1, at + 1 + length))
  const field = sshString(number)
  encoded.fill(0)
  number.fill(0)
  return [shown, field]
}

/** A number that is not negative: no zeros in front but one where the first bit is set (RFC 4251 §5). */
function mpint(number: Buffer): Buffer {
  const start = number.findIndex((byte) => byte !== 0)
  const bytes = start < 0 ? Buffer.alloc(0) : number.subarray(start)
  return Buffer.concat([Buffer.alloc((bytes[0] ?? 0) & 0x80 ? 1 : 0), bytes])
}

function sshString(content: string | Buffer): Buffer {
  const bytes = Buffer.from(content)
  return Buffer.concat([uint32(bytes.length), bytes])
}

function uint32(number: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(number)
  return bytes
}
