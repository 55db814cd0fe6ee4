import type { KeyObject } from 'node:crypto'
import { SidecarError } from '../errors.ts'
import { keyPem } from './bundle.ts'
import { pemBytes } from './csr.ts'
import { describeKey, type KeyAlgorithm } from './key.ts'
import { encryptKey } from './pbes2.ts'

/** How a private key may stand in PEM. */
export const KEY_FORMATS = ['pkcs8', 'pkcs1', 'sec1', 'pkcs8-encrypted'] as const
export type KeyFormat = (typeof KEY_FORMATS)[number]

/** Why a key of this algorithm cannot be written so; undefined where it can. */
export function misfitOf(format: KeyFormat | 'ssh', algorithm: KeyAlgorithm | (string & {})): string | undefined {
  const isMisfit =
    (format === 'pkcs1' && !algorithm.startsWith('rsa-')) ||
    (format === 'sec1' && !algorithm.startsWith('ecdsa-')) ||
    (format === 'ssh' && !/^(?:rsa-|ecdsa-p|ed25519$)/.test(algorithm))
  return isMisfit ? `${format} is a form of ${WANTS[format]} keys, and the key is ${algorithm}` : undefined
}

const WANTS: Readonly<Record<string, string>> = { pkcs1: 'RSA', sec1: 'elliptic curve', ssh: 'RSA, ECDSA and Ed25519' }

/** The private key in PEM, in a Buffer that the writer overwrites. Throws KEY_FORMAT where the format is for keys of another algorithm. */
export function formatKey(key: KeyObject, format: Exclude<KeyFormat, 'pkcs8-encrypted'>): Buffer {
  const misfit = misfitOf(format, describeKey(key))
  if (misfit) throw new SidecarError('KEY_FORMAT', misfit)
  if (format === 'pkcs8') return keyPem(key)
  const content =
    format === 'pkcs1' ? key.export({ type: 'pkcs1', format: 'der' }) : key.export({ type: 'sec1', format: 'der' })
  try {
    return pemBytes(format === 'pkcs1' ? 'RSA PRIVATE KEY' : 'EC PRIVATE KEY', content)
  } finally {
    content.fill(0)
  }
}

/** The same encrypted with a password (RFC 7468 §11). */
export const encryptedKeyPem = (key: KeyObject, password: Buffer): Buffer =>
  pemBytes('ENCRYPTED PRIVATE KEY', encryptKey(key, password))
