import * as z from 'zod'
import { PHASES } from '../core/state.ts'

/** ms since 1970 inside, ISO 8601 in JSON. */
const Timestamp = z.codec(z.iso.datetime(), z.number(), {
  decode: (iso) => Date.parse(iso),
  encode: (instant) => new Date(instant).toISOString(),
})

/** What went wrong last, until the next complete success. */
export const LastError = z.object({
  /** Row of `docs/errors.md`. */
  code: z.string(),
  message: z.string(),
  hint: z.string(),
  stage: z.string(),
  at: Timestamp,
})
export type LastError = z.output<typeof LastError>

/** What the target was last seen to serve. */
export const ServedStatus = z.object({
  up: z.boolean(),
  /** Null while the target does not answer. */
  notAfter: Timestamp.nullable(),
  serial: z.string().nullable(),
  fingerprint: z.string().nullable(),
  at: Timestamp,
})
export type ServedStatus = z.output<typeof ServedStatus>

/** One certificate as it stands: facts and what follows from them now. No secret. Null: not known, or there is none yet. */
export const CertificateStatus = z.object({
  name: z.string(),
  phase: z.enum(PHASES),
  /** Why it is not ACTIVE: an error code in lower case. */
  reason: z.string().nullable(),
  lastError: LastError.nullable(),
  /** Where the set on disk came from. */
  origin: z.string().nullable(),
  /** True where that is not `source` of the config but one of its `fallback`. */
  fallback: z.boolean(),
  /** Of the set on disk, lower-case hex. */
  serial: z.string().nullable(),
  /** SHA-256 of the leaf on disk, lower-case hex. */
  fingerprint: z.string().nullable(),
  notBefore: Timestamp.nullable(),
  notAfter: Timestamp.nullable(),
  /** Of the issuers that came with it, the end of the one that ends first. */
  issuerNotAfter: Timestamp.nullable(),
  /** Negative once expired. */
  expiresInSeconds: z.number().nullable(),
  renewAt: Timestamp.nullable(),
  /** Nothing is tried before: the end of a backoff, or the next renewal. */
  nextAt: Timestamp.nullable(),
  lastRotationAt: Timestamp.nullable(),
  /** `none`: no verifier is configured, so nobody asks the target. */
  verified: z.enum(['none', 'pending', 'verified', 'failed']),
  verifiedAt: Timestamp.nullable(),
  served: ServedStatus.nullable(),
  /** Null while the target was not seen. */
  servedEqualsDisk: z.boolean().nullable(),
  /** Failed tries since the last complete success. */
  failures: z.number(),
  /** Certificates asked for in the last hour. */
  issuedRecently: z.number(),
  /** How many may still be issued without a person asking; the last two not at once while one is in service. */
  budgetLeft: z.number(),
  directories: z.array(z.string()).readonly(),
  /** Names in the certificate. */
  names: z.array(z.string()).readonly(),
})
export type CertificateStatus = z.output<typeof CertificateStatus>

/** One secret as it stands. No secret in it. Null: not known, or there is none yet. */
export const SecretStatus = z.object({
  name: z.string(),
  phase: z.enum(PHASES),
  /** Why it is not ACTIVE: an error code in lower case. */
  reason: z.string().nullable(),
  lastError: LastError.nullable(),
  values: z
    .array(
      z.object({
        name: z.string(),
        /** `v3` in a key-value engine, or since when; null where there is no telling. */
        version: z.string().nullable(),
        /** End of its lease; null where it has none. */
        expiresAt: Timestamp.nullable(),
      }),
    )
    .readonly(),
  /** The end of the lease that ends first; null where nothing ends. */
  expiresAt: Timestamp.nullable(),
  /** Nothing is tried before: the end of a backoff, or the next look at Vault. */
  nextAt: Timestamp.nullable(),
  /** When a change was delivered last. */
  deliveredAt: Timestamp.nullable(),
  /** Failed tries since the last complete success. */
  failures: z.number(),
  directories: z.array(z.string()).readonly(),
})
export type SecretStatus = z.output<typeof SecretStatus>

/** One trust as it stands. Null: not known, or there is none yet. */
export const TrustStatus = z.object({
  name: z.string(),
  phase: z.enum(PHASES),
  /** Why it is not ACTIVE: an error code in lower case. */
  reason: z.string().nullable(),
  lastError: LastError.nullable(),
  anchors: z
    .array(
      z.object({
        subject: z.string(),
        fingerprint: z.string(),
        notAfter: Timestamp,
        /** No source names it any more: it stays until nothing needs it. */
        retiring: z.boolean(),
      }),
    )
    .readonly(),
  crls: z
    .array(
      z.object({
        issuer: z.string(),
        number: z.string().nullable(),
        nextUpdate: Timestamp.nullable(),
        delta: z.boolean(),
      }),
    )
    .readonly(),
  verified: z.enum(['none', 'pending', 'verified', 'failed']),
  /** The end of the last CA, or the next update of the first list; null where there is none yet. */
  notAfter: Timestamp.nullable(),
  /** Nothing is tried before: the end of a backoff, or the next look at the sources. */
  nextAt: Timestamp.nullable(),
  /** When a change was published last. */
  publishedAt: Timestamp.nullable(),
  /** Failed tries since the last complete success. */
  failures: z.number(),
  directories: z.array(z.string()).readonly(),
})
export type TrustStatus = z.output<typeof TrustStatus>

/** The whole sidecar at one moment; the body of GET /status. */
export const SidecarStatus = z.object({
  version: z.string(),
  startedAt: Timestamp,
  config: z.object({
    file: z.string(),
    loadedAt: Timestamp,
    lastReloadOk: z.boolean(),
    /** Why the last reload was rejected. */
    error: z.string().nullable(),
  }),
  vault: z.object({ address: z.string(), tokenExpiresAt: Timestamp.nullable() }).nullable(),
  certificates: z.array(CertificateStatus).readonly(),
  secrets: z.array(SecretStatus).readonly(),
  trust: z.array(TrustStatus).readonly(),
})
export type SidecarStatus = z.output<typeof SidecarStatus>

/** The JSON of a snapshot; `SidecarStatus.parse` is the way back. */
export const statusJson = (status: SidecarStatus): z.input<typeof SidecarStatus> => z.encode(SidecarStatus, status)
