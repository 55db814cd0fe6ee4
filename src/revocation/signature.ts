import { type KeyObject, verify } from 'node:crypto'

/** Hash by algorithm of the signature (RFC 8017 A.2.4, RFC 5758 §3.2, RFC 8410 §3); SHA-1 is none. */
const HASHES: Readonly<Record<string, string | null>> = {
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  '1.3.101.112': null,
}

/** Whether `key` made this signature; false as well for an algorithm that is not accepted, or not one of this key. */
export function isSignedWith(
  key: KeyObject,
  { algorithm, signed, signature }: { algorithm: string; signed: Uint8Array; signature: Uint8Array },
): boolean {
  const hash = HASHES[algorithm]
  if (hash === undefined) return false
  try {
    return verify(hash, signed, key, signature)
  } catch {
    return false
  }
}

/** RFC 5280 §5.3.1. */
const REASONS: readonly (string | undefined)[] = [
  'unspecified',
  'keyCompromise',
  'cACompromise',
  'affiliationChanged',
  'superseded',
  'cessationOfOperation',
  'certificateHold',
  undefined,
  'removeFromCRL',
  'privilegeWithdrawn',
  'aACompromise',
]
export const reasonName = (code: number | undefined): string | undefined =>
  code === undefined ? undefined : (REASONS[code] ?? `reason ${code}`)
