import type { Bundle } from './bundle.ts'
import type { Instant } from './content.ts'

/** A certificate that is to be revoked: all that is needed for it after a restart. */
export interface Outdated {
  readonly fingerprint: string
  readonly serial: string
  readonly notAfter: Instant
  /** Base64. */
  readonly der: string
  /** Of the source that issued it; undefined where an earlier version noted it, which knew of one source only. */
  readonly origin?: string | undefined
}

export const outdatedFrom = ({ fingerprint, serial, notAfter, leaf, origin }: Bundle): Outdated => ({
  fingerprint,
  serial,
  notAfter,
  der: leaf.raw.toString('base64'),
  origin,
})
