import type { CertificateStatus, SecretStatus, SidecarStatus, TrustStatus } from '../../src/observe/status.ts'

export const NOW = Date.UTC(2026, 0, 2, 3, 4, 5)
const HOUR = 3_600_000

/** A certificate in best order. */
export const active = (name: string, change: Partial<CertificateStatus> = {}): CertificateStatus => ({
  name,
  phase: 'ACTIVE',
  reason: null,
  lastError: null,
  origin: 'vault-pki https://vault.example.com:8200 pki',
  fallback: false,
  serial: '3fa2b1c09d8e7f60123456789abcdef012349c01',
  fingerprint: 'ab'.repeat(32),
  notBefore: NOW - 24 * HOUR,
  notAfter: NOW + 48 * HOUR,
  issuerNotAfter: NOW + 365 * 24 * HOUR,
  expiresInSeconds: 172_800,
  renewAt: NOW + 24 * HOUR,
  nextAt: NOW + 24 * HOUR,
  lastRotationAt: NOW - 24 * HOUR,
  verified: 'verified',
  verifiedAt: NOW - 24 * HOUR,
  served: {
    up: true,
    notAfter: NOW + 48 * HOUR,
    serial: '3fa2b1c09d8e7f60123456789abcdef012349c01',
    fingerprint: 'ab'.repeat(32),
    at: NOW - 30_000,
  },
  servedEqualsDisk: true,
  failures: 0,
  issuedRecently: 0,
  budgetLeft: 5,
  directories: ['/tls'],
  names: [`${name}.example.com`],
  ...change,
})

/** One that has nothing on disk yet. */
export const pending = (name: string, change: Partial<CertificateStatus> = {}): CertificateStatus =>
  active(name, {
    phase: 'PENDING',
    reason: 'vault_unreachable',
    lastError: {
      code: 'VAULT_UNREACHABLE',
      message: 'cannot connect to https://vault.example.com:8200 (ECONNREFUSED)',
      hint: 'Check vault.address, the network path and that Vault is running.',
      stage: 'fetch',
      at: NOW - 4000,
    },
    origin: null,
    serial: null,
    fingerprint: null,
    notBefore: null,
    notAfter: null,
    issuerNotAfter: null,
    expiresInSeconds: null,
    renewAt: null,
    nextAt: NOW + 8000,
    lastRotationAt: null,
    verified: 'pending',
    verifiedAt: null,
    served: null,
    servedEqualsDisk: null,
    failures: 3,
    names: [],
    ...change,
  })

export const leased = (name: string, change: Partial<SecretStatus> = {}): SecretStatus => ({
  name,
  phase: 'ACTIVE',
  reason: null,
  lastError: null,
  values: [
    { name: 'api', version: 'v3', expiresAt: null },
    { name: 'db', version: 'since 2026-01-01T00:00:00.000Z', expiresAt: NOW + HOUR },
  ],
  expiresAt: NOW + HOUR,
  nextAt: NOW + 5 * 60_000,
  deliveredAt: NOW - 2 * HOUR,
  failures: 0,
  directories: ['/secrets'],
  ...change,
})

export const sidecar = (
  certificates: readonly CertificateStatus[],
  change: Partial<SidecarStatus> = {},
): SidecarStatus => ({
  version: '0.1.0',
  startedAt: NOW - 26 * HOUR,
  config: { file: '/etc/certferry.yaml', loadedAt: NOW - 26 * HOUR, lastReloadOk: true, error: null },
  vault: { address: 'https://vault.example.com:8200', tokenExpiresAt: NOW + 45 * 60_000 },
  certificates,
  secrets: [],
  trust: [],
  ...change,
})

export const trusting = (name: string, change: Partial<TrustStatus> = {}): TrustStatus => ({
  name,
  phase: 'ACTIVE',
  reason: null,
  lastError: null,
  anchors: [
    { subject: 'CN=New Root', fingerprint: 'b'.repeat(64), notAfter: NOW + 5000 * HOUR, retiring: false },
    { subject: 'CN=Old Root', fingerprint: 'a'.repeat(64), notAfter: NOW + 1000 * HOUR, retiring: true },
  ],
  crls: [{ issuer: 'CN=New Root', number: '7', nextUpdate: NOW + 72 * HOUR, delta: false }],
  verified: 'verified',
  notAfter: NOW + 72 * HOUR,
  nextAt: NOW + 5 * 60_000,
  publishedAt: NOW - 2 * HOUR,
  failures: 0,
  directories: ['/trust'],
  ...change,
})
