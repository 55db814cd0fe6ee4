import * as z from 'zod'
import type { TrustSet } from '../core/trust.ts'
import { storedTrust, toTrustSet, trustFrom } from '../core/trust.ts'
import type { Codec } from './store.ts'

const Stored = z.object({
  anchors: z.array(
    z.object({
      certificate: z.string(),
      since: z.number(),
      inForceSince: z.number().optional(),
      retiredAt: z.number().optional(),
    }),
  ),
  lists: z.array(
    z.object({
      der: z.string(),
      issuer: z.string(),
      issuerFingerprint: z.string(),
      thisUpdate: z.number(),
      nextUpdate: z.number().optional(),
      number: z.string().optional(),
      isDelta: z.boolean(),
    }),
  ),
})

/** A trust in a generation: its CAs with since when they are there, and its lists. */
export const trustFile: Codec<TrustSet> = {
  file: '..trust.json',
  encode: (set) => Buffer.from(JSON.stringify(storedTrust(set))),
  decode: (bytes, { origin, receivedAt }) =>
    toTrustSet({ ...trustFrom(Stored.parse(JSON.parse(bytes.toString()))), origin, receivedAt }),
}
