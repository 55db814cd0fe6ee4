import { createCipheriv, createHash, createHmac, type KeyObject, pbkdf2Sync } from 'node:crypto'
import { der, integer, octets, oid, sequence, TAG } from './der.ts'

/** As keytool of Java 17 and later; more would hold up the event loop, and the password lies on the same machine. */
export const ITERATIONS = 10_000

export interface Sealed {
  /** AlgorithmIdentifier. */
  readonly algorithm: Buffer
  readonly content: Buffer
}

/**
 * Encrypts with a password: PBES2 of PBKDF2-HMAC-SHA-256 and AES-256-CBC (RFC 8018 §6.2, A.2, A.4).
 * Salt and IV are drawn from `draw` and not at random, so that the same content gives the same bytes; see {@link drawFrom}.
 */
export function seal(plain: Buffer, password: Buffer, draw: Draw): Sealed {
  const [salt, iv] = [draw('salt', plain), draw('iv', plain)]
  const secret = pbkdf2Sync(password, salt, ITERATIONS, 32, 'sha256')
  try {
    const cipher = createCipheriv('aes-256-cbc', secret, iv)
    return { algorithm: algorithmOf(salt, iv), content: Buffer.concat([cipher.update(plain), cipher.final()]) }
  } finally {
    secret.fill(0)
  }
}

const algorithmOf = (salt: Buffer, iv: Buffer) =>
  sequence(
    oid('1.2.840.113549.1.5.13'),
    sequence(
      sequence(
        oid('1.2.840.113549.1.5.12'),
        sequence(octets(salt), integer(ITERATIONS), sequence(oid('1.2.840.113549.2.9'), der(TAG.null))),
      ),
      sequence(oid('2.16.840.1.101.3.4.1.42'), octets(iv)),
    ),
  )

/** The private key as EncryptedPrivateKeyInfo (RFC 5958 §3) in DER. */
export function encryptKey(key: KeyObject, password: Buffer): Buffer {
  const plain = key.export({ type: 'pkcs8', format: 'der' })
  try {
    const { algorithm, content } = seal(plain, password, drawFrom(key))
    return sequence(algorithm, octets(content))
  } finally {
    plain.fill(0)
  }
}

/** 16 bytes for one purpose and one content. */
export type Draw = (purpose: string, content: Buffer) => Buffer

/**
 * Salts that follow from what they are for: HMAC-SHA-256 keyed by the private key, over the purpose and all that is encrypted.
 * Why that is as good as chance: who has not got the key cannot tell the output of HMAC from random bytes; another content gets another salt,
 * so another AES key, and no key and IV ever serve two contents. All that shows is that two files hold the same, which the certificate in
 * them shows anyway. The password has no part in it: a salt made of it would be a quicker way to try passwords than PBKDF2.
 */
export function drawFrom(key: KeyObject): Draw {
  return (purpose, content) => {
    const secret = key.export({ type: 'pkcs8', format: 'der' })
    try {
      return createHmac('sha256', secret).update(`certferry ${purpose}\0`).update(content).digest().subarray(0, 16)
    } finally {
      secret.fill(0)
    }
  }
}

/** The same where there is no key, and nothing secret in the content: the salt need only be another for another content. */
export const drawFromContent: Draw = (purpose, content) =>
  createHash('sha256').update(`certferry ${purpose}\0`).update(content).digest().subarray(0, 16)
