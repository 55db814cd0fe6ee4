import * as z from 'zod'
import { Secret } from '../core/secret.ts'

/** One request for a certificate. */
export interface PkiRequest {
  readonly mount: string
  readonly role: string
  /** Issuer to use instead of the one the role names. */
  readonly issuerRef?: string | undefined
  /** Parameters as the API documents them, such as `common_name`. */
  readonly body: Readonly<Record<string, unknown>>
}

/**
 * Segments of the path that a policy must allow with the capability `update`. The issuer is part of the path: in the body Vault ignores it.
 * https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-certificate
 */
export const pkiPath = (verb: 'sign' | 'issue', { mount, role, issuerRef }: Omit<PkiRequest, 'body'>): string[] => [
  ...mount.split('/'),
  ...(issuerRef === undefined ? [] : ['issuer', issuerRef]),
  verb,
  role,
]

/** What a Vault PKI mount answers to `issue` and `sign`. */
export interface IssuedCertificate {
  readonly certificate: string
  readonly issuingCa: string
  readonly caChain: readonly string[]
  /** PEM, only from `issue`. */
  readonly privateKey?: Secret
  /** The role says `generate_lease`: it is revoked with the token that asked for it. */
  readonly isLeased?: true
}

export const IssuedReply = z
  .object({
    data: z.object({
      certificate: z.string().min(1),
      issuing_ca: z.string().default(''),
      ca_chain: z.array(z.string()).nullish(),
      private_key: z.string().min(1).optional(),
    }),
    lease_id: z.string().default(''),
  })
  .transform(
    ({ data, lease_id: leaseId }): IssuedCertificate => ({
      certificate: data.certificate,
      issuingCa: data.issuing_ca,
      caChain: data.ca_chain ?? [],
      ...(data.private_key === undefined ? {} : { privateKey: new Secret(data.private_key) }),
      ...(leaseId === '' ? {} : { isLeased: true }),
    }),
  )

/** GET {mount}/cert/{serial}: seconds since 1970, 0 where it is not revoked. */
export const RevocationReply = z
  .object({ data: z.object({ revocation_time: z.int().min(0).default(0) }) })
  .transform(({ data }) => data.revocation_time * 1000)

/** GET {mount}/issuer/{ref}/json: the issuer and its issuers, as far as the mount knows them. */
export const IssuerReply = z
  .object({ data: z.object({ certificate: z.string().default(''), ca_chain: z.array(z.string()).nullish() }) })
  .transform(({ data }) => [data.certificate, ...(data.ca_chain ?? [])].filter((text) => text !== ''))

/** LIST {mount}/issuers. */
export const IssuersReply = z
  .object({ data: z.object({ keys: z.array(z.string()) }) })
  .transform(({ data }) => data.keys)

/** GET {mount}/issuer/{ref}/crl; empty where there is none. */
export const CrlReply = z
  .object({ data: z.object({ crl: z.string().default('') }) })
  .transform(({ data }) => (data.crl === '' ? undefined : data.crl))

/** Those settings of a PKI role that decide whether a request is granted. Times in seconds, 0 for the default of the mount. */
export const PkiRole = z
  .object({
    data: z.object({
      allow_any_name: z.boolean().default(false),
      allow_bare_domains: z.boolean().default(false),
      allow_glob_domains: z.boolean().default(false),
      allow_ip_sans: z.boolean().default(true),
      allow_localhost: z.boolean().default(true),
      allow_subdomains: z.boolean().default(false),
      allow_wildcard_certificates: z.boolean().default(true),
      allowed_domains: z.array(z.string()).nullish(),
      allowed_uri_sans: z.array(z.string()).nullish(),
      enforce_hostnames: z.boolean().default(true),
      issuer_ref: z.string().default('default'),
      key_bits: z.int().default(0),
      key_type: z.string().default(''),
      max_ttl: z.int().default(0),
      require_cn: z.boolean().default(true),
      ttl: z.int().default(0),
    }),
  })
  .transform(({ data }) => ({
    allowAnyName: data.allow_any_name,
    allowBareDomains: data.allow_bare_domains,
    allowGlobDomains: data.allow_glob_domains,
    allowIpSans: data.allow_ip_sans,
    allowLocalhost: data.allow_localhost,
    allowSubdomains: data.allow_subdomains,
    allowWildcardCertificates: data.allow_wildcard_certificates,
    allowedDomains: data.allowed_domains ?? [],
    allowedUriSans: data.allowed_uri_sans ?? [],
    enforceHostnames: data.enforce_hostnames,
    issuerRef: data.issuer_ref,
    keyBits: data.key_bits,
    keyType: data.key_type,
    maxTtlSeconds: data.max_ttl,
    requireCommonName: data.require_cn,
    ttlSeconds: data.ttl,
  }))
export type PkiRole = z.output<typeof PkiRole>
