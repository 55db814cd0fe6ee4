import type { Bundle } from './bundle.ts'
import type { Instant } from './content.ts'

/** A certificate that is to be revoked: all that is needed for it after a restart. */
export interface Outdated {
  readonly fingerprint: string
  readonly serial: string
  readonly notAfter: Instant
  /** Base64. */
  readonly der: string
}

export const outdatedFrom = ({ fingerprint, serial, notAfter, leaf }: Bundle): Outdated => ({
  fingerprint,
  serial,
  notAfter,
  der: leaf.raw.toString('base64'),
})
