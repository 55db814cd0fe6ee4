import { createHash } from 'node:crypto'
import type { Bundle } from './bundle.ts'
import type { Instant } from './content.ts'

/** An OCSP response about a certificate that its server shows with it (RFC 6066 §8), already found good. */
export interface Staple {
  readonly der: Buffer
  readonly thisUpdate: Instant
  /** undefined where the responder promises nothing newer at any time. */
  readonly nextUpdate: Instant | undefined
}

/** The same certificate with this response beside it: another edition of it. */
export const withStaple = (bundle: Bundle, staple: Staple): Bundle => ({
  ...bundle,
  staple,
  edition: createHash('sha256').update(staple.der).digest('hex'),
})
