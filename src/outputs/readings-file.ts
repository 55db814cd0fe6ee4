import * as z from 'zod'
import { Secret } from '../core/secret.ts'
import type { Snapshot } from '../core/snapshot.ts'
import { Fields } from '../core/values.ts'
import type { Codec } from './store.ts'

const Stored = z.object({
  serial: z.string(),
  readings: z.record(
    z.string(),
    z.object({
      fields: Fields.transform((fields) => new Secret(fields)),
      version: z.string(),
      made: z.boolean(),
      lease: z.object({ id: z.string(), renewable: z.boolean(), fullTtlMs: z.number() }).optional(),
      receivedAt: z.number(),
      notAfter: z.number(),
    }),
  ),
})

/** A secret in a generation: its values as they were read. */
export const readingsFile: Codec<Snapshot> = {
  file: '..values.json',
  encode: ({ serial, readings }) => {
    const stored = Object.entries(readings).map(([name, { fields, ...facts }]) => [
      name,
      { ...facts, fields: fields.reveal() },
    ])
    return Buffer.from(JSON.stringify({ serial, readings: Object.fromEntries(stored) }))
  },
  decode: (bytes, { origin, fingerprint, notBefore, notAfter, receivedAt }) => ({
    ...Stored.parse(JSON.parse(bytes.toString())),
    origin,
    fingerprint,
    notBefore,
    notAfter,
    receivedAt,
  }),
}
