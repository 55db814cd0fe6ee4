import { generateKeyPair, type KeyObject } from 'node:crypto'
import { promisify } from 'node:util'

/** Key algorithms a certificate may ask for; RSA with its modulus length in bits. */
export const KEY_ALGORITHMS = ['ecdsa-p256', 'ecdsa-p384', 'ed25519', 'rsa-2048', 'rsa-3072', 'rsa-4096'] as const
export type KeyAlgorithm = (typeof KEY_ALGORITHMS)[number]

const generate = promisify(generateKeyPair)

/** A fresh private key, made on the thread pool. The KeyObject keeps it in native memory. */
export async function generateKey(algorithm: KeyAlgorithm): Promise<KeyObject> {
  switch (algorithm) {
    case 'ecdsa-p256':
      return (await generate('ec', { namedCurve: 'P-256' })).privateKey
    case 'ecdsa-p384':
      return (await generate('ec', { namedCurve: 'P-384' })).privateKey
    case 'ed25519':
      return (await generate('ed25519')).privateKey
    case 'rsa-2048':
    case 'rsa-3072':
    case 'rsa-4096':
      return (await generate('rsa', { modulusLength: Number(algorithm.slice(4)) })).privateKey
  }
}

/** The algorithm of a key in the words above, or its raw description where it is none of them. */
export function describeKey(key: KeyObject): KeyAlgorithm | (string & {}) {
  const details = key.asymmetricKeyDetails
  if (key.asymmetricKeyType === 'rsa') return `rsa-${details?.modulusLength ?? '?'}`
  if (key.asymmetricKeyType !== 'ec') return key.asymmetricKeyType ?? 'unknown'
  return (
    { prime256v1: 'ecdsa-p256', secp384r1: 'ecdsa-p384', secp521r1: 'ecdsa-p521' }[details?.namedCurve ?? ''] ??
    `ecdsa-${details?.namedCurve ?? '?'}`
  )
}
