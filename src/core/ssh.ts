import type { KeyObject } from 'node:crypto'
import type { Instant } from './content.ts'

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

/** The public half of a P-256 key as OpenSSH writes it (RFC 5656 §3.1). */
export function sshPublicKey(key: KeyObject): string {
  const { x = '', y = '' } = key.export({ format: 'jwk' })
  const point = Buffer.concat([Buffer.of(4), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')])
  const type = 'ecdsa-sha2-nistp256'
  const blob = Buffer.concat([type, 'nistp256', point].map(sshString))
  return `${type} ${blob.toString('base64')}`
}

function sshString(content: string | Buffer): Buffer {
  const bytes = Buffer.from(content)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}
