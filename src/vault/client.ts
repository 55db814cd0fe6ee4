/** What a Vault PKI mount answers to `issue` and `sign` (https://developer.hashicorp.com/vault/api-docs/secret/pki). */
export interface IssuedCertificate {
  readonly certificate: string
  readonly issuingCa: string
  readonly caChain: readonly string[]
  /** PEM, only from `issue`. */
  readonly privateKey?: import('../core/secret.ts').Secret
  /** Warnings of the reply, such as a TTL cut down to the role's maximum. */
  readonly warnings: readonly string[]
}

/** All that certferry asks of Vault. Every call logs in when needed, fails fast with a SidecarError and stops when `signal` aborts. */
export interface Vault extends AsyncDisposable {
  readonly address: string
  /** POST {mount}/sign/{role}: a certificate for a CSR made here. */
  sign(
    mount: string,
    role: string,
    body: Readonly<Record<string, unknown>>,
    signal: AbortSignal,
  ): Promise<IssuedCertificate>
  /** POST {mount}/issue/{role}: certificate and key made by Vault. */
  issue(
    mount: string,
    role: string,
    body: Readonly<Record<string, unknown>>,
    signal: AbortSignal,
  ): Promise<IssuedCertificate>
}
