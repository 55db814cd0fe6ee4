import type { Stage } from '../core/state.ts'
import type { ErrorCode } from '../errors.ts'

export type Level = 'debug' | 'info' | 'warn' | 'error'

interface Failure {
  readonly code: ErrorCode
  /** What failed, with which value; never a secret. */
  readonly message: string
}

interface Versions {
  readonly secret: string
  /** Of each value, such as `api v3, db since …`. */
  readonly versions: string
  /** The end of the lease that ends first; absent where nothing ends. */
  readonly expiresAt?: number
}

interface Connection {
  /** Name in `vaults`; absent for that of `vault`. */
  readonly connection?: string | undefined
}

/** What happens, for people and machines. Payloads hold no secret. */
export interface EventMap {
  'sidecar.started': { version: string; certificates: number; secrets: number; config: string }
  'sidecar.stopped': { signal: string }
  'config.loaded': {
    changed: readonly string[]
    added: readonly string[]
    removed: readonly string[]
    /** Sections that differ from those read at the start, and are not applied before the next one. */
    needRestart?: readonly string[]
  }
  'config.warning': { message: string }
  'config.rejected': Failure & { errors: readonly string[] }
  'rotation.started': { certificate: string; why: string }
  'rotation.stage': { certificate: string; stage: Stage; durationMs: number; ok: boolean; code?: ErrorCode | undefined }
  'rotation.finished': {
    certificate: string
    serial: string
    notAfter: number
    renewAt: number
    verified: boolean
    issued: boolean
    durationMs: number
  }
  'rotation.failed': Failure & { certificate: string; stage: Stage; attempt: number; nextAt: number; hint: string }
  'rotation.waiting': Failure & { certificate: string; stage: Stage; nextAt: number }
  'rotation.recovered': { certificate: string; failures: number }
  'rotation.rolled-back': { certificate: string; serial: string; refused: string }
  'certificate.resumed': { certificate: string; serial: string; notAfter: number; renewAt: number }
  'certificate.issued': { certificate: string; serial: string; notAfter: number; forced: boolean }
  'certificate.written': { certificate: string; serial: string; directories: readonly string[] }
  'source.warning': { certificate: string; message: string }
  /** `instead` of the source that could not deliver, and why that could not. */
  'source.fallback': Failure & { certificate: string; origin: string; serial: string; instead: string }
  'certificate.published': { certificate: string; serial: string; place: string }
  'certificate.served': { certificate: string; serial: string; notAfter: number }
  'certificate.phase': { certificate: string; from: string; to: string; reason?: string | undefined }
  'certificate.probed': { certificate: string; notAfter: number | undefined; matches: boolean }
  'certificate.removed': { certificate: string }
  'certificate.revoked': { certificate: string; serial: string; why: 'superseded' | 'cessationOfOperation' }
  'certificate.revoke-failed': Failure & { certificate: string; serial: string }
  'certificate.revocation-checked': {
    certificate: string
    serial: string
    result: 'good' | 'revoked' | 'unknown' | 'error'
    by?: string
    /** The first after one that went well. */
    isNews: boolean
    code?: ErrorCode
    message?: string
  }
  'certificate.staple-ended': { certificate: string; serial: string; endedAt: number }
  'security.certificate-revoked': {
    certificate: string
    serial: string
    by: string
    revokedAt?: number | undefined
    reason?: string | undefined
  }
  'secret.started': { secret: string; why: string }
  'secret.read': Versions
  'secret.written': { secret: string; versions: string; directories: readonly string[] }
  'secret.delivered': Versions & { durationMs: number }
  'secret.resumed': Versions
  'secret.failed': Failure & { secret: string; stage: Stage; attempt: number; nextAt: number; hint: string }
  'secret.waiting': Failure & { secret: string; stage: Stage; nextAt: number }
  'secret.recovered': { secret: string; failures: number }
  'secret.rolled-back': { secret: string; versions: string; refused: string }
  'secret.phase': { secret: string; from: string; to: string; reason?: string | undefined }
  'secret.removed': { secret: string }
  'trust.started': { trust: string; why: string }
  'trust.written': { trust: string; content: string; directories: readonly string[] }
  'trust.published': { trust: string; content: string; notAfter: number; durationMs: number }
  'trust.proven': { trust: string; content: string }
  'trust.resumed': { trust: string; content: string; notAfter: number }
  'trust.failed': Failure & { trust: string; stage: Stage; attempt: number; nextAt: number; hint: string }
  'trust.waiting': Failure & { trust: string; stage: Stage; nextAt: number }
  'trust.recovered': { trust: string; failures: number }
  'trust.rolled-back': { trust: string; content: string; refused: string }
  'trust.phase': { trust: string; from: string; to: string; reason?: string | undefined }
  'trust.removed': { trust: string }
  /** Once each. */
  'trust.warning': { trust: string; message: string }
  /** A CA that is still named ends soon: leaves cannot outlive it. */
  'trust.ca-expiring': { trust: string; subject: string; notAfter: number }
  'reload.finished': {
    kind: string
    target: string
    certificates: readonly string[]
    ok: boolean
    durationMs: number
    code?: ErrorCode | undefined
  }
  'tamper.repaired': { certificate: string; path: string; what: string }
  'exec.started': { command: string }
  'exec.told': { how: 'restart' | 'signal'; changed: readonly string[] }
  'exec.waits': { changed: readonly string[]; nextAt: number }
  'exec.failed': Failure
  'exec.warning': { message: string }
  'exec.ended': { exitCode: number; why: string }
  'clock.stepped': { byMs: number }
  'vault.request': Connection & { operation: string; status: string; durationMs: number }
  'vault.warning': Connection & { message: string }
  'vault.token': Connection & { expiresAt: number | undefined; renewable: boolean; how: 'login' | 'renewed' }
  'vault.token-failed': Connection & Failure & { nextAt: number }
  'vault.clock-skew': Connection & { byMs: number }
  'kubernetes.events-lost': Failure & { pod: string }
  'security.wrap-reused': Connection & { file: string }
  'control.request': { command: string; certificates: readonly string[]; reason: string; allowed: boolean }
  'admin.listening': { address: string }
  'admin.tls-loaded': { certFile: string; fingerprint: string; notAfter: number }
  'admin.tls-failed': Failure & { certFile: string }
  'injector.listening': { address: string }
  'injector.reviewed': {
    namespace: string
    pod: string
    result: 'injected' | 'unchanged' | 'skipped' | 'denied'
    why?: string | undefined
    dryRun: boolean
    durationMs: number
  }
  'injector.request-refused': { status: number; message: string }
  'injector.tls-loaded': { certFile: string; fingerprint: string; notAfter: number }
  'injector.tls-failed': Failure & { certFile: string }
  'injector.ca-bundle-updated': { webhookConfiguration: string; added: number; dropped: number }
  'injector.ca-bundle-failed': Failure & { webhookConfiguration: string; nextAt: number }
  'injector.cluster': { version: string; nativeSidecars: boolean }
  'injector.cluster-unknown': Failure & { nextAt: number }
  'log.dropped': { lines: number }
  'audit.failed': Failure & { file: string }
  'audit.recovered': { file: string; lost: number }
  'internal.error': Failure & { error: unknown }
}

export type EventName = keyof EventMap

/** Tells all observers. Never throws and never waits. */
export type Emit = <Name extends EventName>(name: Name, event: EventMap[Name]) => void

/** Tells one of those who watch: the log, the metrics, the audit log. May throw; `combine` in `index.ts` sees to it. */
export type Observer = Emit

interface EventKind<Name extends EventName> {
  readonly level: Level
  /** Where the payload decides: the level instead of the one above. */
  readonly escalate?: (event: EventMap[Name]) => Level | undefined
  /** Constant text of the log line; the data goes in fields. */
  readonly message: string
  /** True where the audit log keeps a line of it. */
  readonly audit: boolean
}

/** How each event is told; `docs/events.md` is generated from it. */
export const EVENTS: { readonly [Name in EventName]: EventKind<Name> } = {
  'sidecar.started': { level: 'info', message: 'certferry started', audit: true },
  'sidecar.stopped': { level: 'info', message: 'certferry stopped', audit: true },
  'config.loaded': {
    level: 'info',
    escalate: ({ needRestart }) => (needRestart ? 'warn' : undefined),
    message: 'config loaded',
    audit: true,
  },
  'config.warning': { level: 'warn', message: 'something of the environment means nothing here', audit: false },
  'config.rejected': { level: 'error', message: 'config rejected, the old one stays', audit: true },
  'rotation.started': {
    level: 'debug',
    // Why a certificate is asked for belongs in the log; a look at what is there does not.
    escalate: ({ why }) => (why === 'verify' || why === 'retry' ? undefined : 'info'),
    message: 'rotation started',
    audit: false,
  },
  'rotation.stage': { level: 'debug', message: 'stage finished', audit: false },
  'rotation.finished': { level: 'info', message: 'rotation finished', audit: false },
  'rotation.failed': { level: 'warn', message: 'rotation failed', audit: true },
  'rotation.waiting': { level: 'info', message: 'files are in place, waiting for the target', audit: false },
  'rotation.recovered': { level: 'info', message: 'rotation recovered', audit: true },
  'rotation.rolled-back': { level: 'error', message: 'rolled back to the last verified certificate', audit: true },
  'certificate.resumed': { level: 'info', message: 'certificate on disk is good, nothing issued', audit: false },
  'certificate.issued': { level: 'info', message: 'certificate issued', audit: true },
  'certificate.written': { level: 'info', message: 'certificate written', audit: true },
  'source.warning': { level: 'warn', message: 'what the source holds was mended', audit: false },
  'source.fallback': { level: 'warn', message: 'the source could not deliver, a fallback did', audit: true },
  'certificate.published': { level: 'info', message: 'certificate copied', audit: true },
  'certificate.served': { level: 'info', message: 'certificate proven to be served', audit: true },
  'certificate.phase': {
    level: 'info',
    // The failure that led to DEGRADED has had its warning; nothing else says that a certificate has ended.
    escalate: ({ to }) => (to === 'EXPIRED' ? 'error' : undefined),
    message: 'phase changed',
    audit: false,
  },
  'certificate.probed': { level: 'debug', message: 'target probed', audit: false },
  'certificate.removed': { level: 'info', message: 'certificate no longer managed, its files stay', audit: true },
  'certificate.revoked': { level: 'info', message: 'certificate revoked, as asked for', audit: true },
  'certificate.revoke-failed': { level: 'warn', message: 'certificate could not be revoked', audit: true },
  'certificate.revocation-checked': {
    level: 'debug',
    // While nobody can say it counts as good, which is worth one line and no more.
    escalate: ({ result, isNews }) => (result === 'error' && isNews ? 'warn' : undefined),
    message: 'asked whether the certificate is revoked',
    audit: false,
  },
  'certificate.staple-ended': {
    level: 'error',
    message: 'the OCSP response in service has ended, clients may refuse it',
    audit: true,
  },
  'security.certificate-revoked': { level: 'error', message: 'certificate found revoked', audit: true },
  'secret.started': {
    level: 'debug',
    escalate: ({ why }) => (why === 'verify' || why === 'retry' ? undefined : 'info'),
    message: 'delivery of a secret started',
    audit: false,
  },
  'secret.read': { level: 'info', message: 'secret read', audit: true },
  'secret.written': { level: 'info', message: 'secret written', audit: true },
  'secret.delivered': { level: 'info', message: 'secret delivered', audit: false },
  'secret.resumed': { level: 'info', message: 'secret on disk is delivered', audit: false },
  'secret.failed': { level: 'warn', message: 'delivery of a secret failed, the last good one stays', audit: true },
  'secret.waiting': { level: 'info', message: 'secret is in place, waiting for the target', audit: false },
  'secret.recovered': { level: 'info', message: 'delivery of a secret recovered', audit: true },
  'secret.rolled-back': {
    level: 'error',
    message: 'the target refused a secret, the last good one is back',
    audit: true,
  },
  'secret.phase': {
    level: 'info',
    escalate: ({ to }) => (to === 'EXPIRED' ? 'error' : undefined),
    message: 'phase of a secret changed',
    audit: false,
  },
  'secret.removed': { level: 'info', message: 'secret no longer delivered, its files stay', audit: true },
  'trust.started': {
    level: 'info',
    message: 'publication of a trust started',
    audit: false,
  },
  'trust.written': { level: 'info', message: 'trust written', audit: true },
  'trust.published': { level: 'info', message: 'trust published', audit: false },
  'trust.proven': { level: 'info', message: 'trust proven to be in force', audit: true },
  'trust.resumed': { level: 'info', message: 'trust on disk is delivered', audit: false },
  'trust.failed': { level: 'warn', message: 'publication of a trust failed, the last good one stays', audit: true },
  'trust.waiting': { level: 'info', message: 'trust is in place, waiting for the target', audit: false },
  'trust.recovered': { level: 'info', message: 'publication of a trust recovered', audit: true },
  'trust.rolled-back': {
    level: 'error',
    message: 'the target refused a trust, the last good one is back',
    audit: true,
  },
  'trust.phase': {
    level: 'info',
    escalate: ({ to }) => (to === 'EXPIRED' ? 'error' : undefined),
    message: 'phase of a trust changed',
    audit: false,
  },
  'trust.removed': { level: 'info', message: 'trust no longer published, its files stay', audit: true },
  'trust.warning': { level: 'warn', message: 'what a trust was given was left out in part', audit: false },
  'trust.ca-expiring': { level: 'warn', message: 'a trusted CA ends soon, or has ended', audit: true },
  'reload.finished': {
    level: 'info',
    escalate: ({ ok }) => (ok ? undefined : 'warn'),
    message: 'reload finished',
    audit: true,
  },
  'tamper.repaired': { level: 'warn', message: 'file was changed by someone else, restored', audit: true },
  'exec.started': { level: 'info', message: 'command started', audit: true },
  'exec.told': { level: 'info', message: 'command is told of a change', audit: true },
  'exec.waits': { level: 'info', message: 'command is told of a change later', audit: false },
  'exec.failed': { level: 'error', message: 'command cannot be told of a change, it keeps what it has', audit: true },
  'exec.warning': { level: 'warn', message: 'warning about the command', audit: false },
  'exec.ended': { level: 'info', message: 'command ended', audit: true },
  'clock.stepped': { level: 'warn', message: 'wall clock stepped', audit: false },
  'vault.request': { level: 'debug', message: 'Vault answered', audit: false },
  'vault.warning': { level: 'warn', message: 'Vault warning', audit: false },
  'vault.token': { level: 'debug', message: 'Vault token obtained', audit: false },
  'vault.token-failed': { level: 'warn', message: 'Vault token could not be renewed', audit: false },
  'vault.clock-skew': {
    level: 'debug',
    // So far off, certificates are not valid yet, or no longer, for one of the two.
    escalate: ({ byMs }) => (Math.abs(byMs) > 60_000 ? 'warn' : undefined),
    message: "Vault's clock differs",
    audit: false,
  },
  'kubernetes.events-lost': { level: 'warn', message: 'Kubernetes Events cannot be sent', audit: false },
  'security.wrap-reused': { level: 'error', message: 'wrapping token was already used', audit: true },
  'control.request': {
    level: 'info',
    escalate: ({ allowed }) => (allowed ? undefined : 'warn'),
    message: 'control request',
    audit: true,
  },
  'admin.listening': { level: 'info', message: 'admin server listens', audit: false },
  'admin.tls-loaded': { level: 'info', message: 'certificate of the admin server loaded', audit: false },
  'admin.tls-failed': { level: 'warn', message: 'certificate of the admin server not loaded', audit: false },
  'injector.listening': { level: 'info', message: 'the webhook listens', audit: false },
  'injector.reviewed': {
    level: 'debug',
    escalate: ({ result }) => (result === 'denied' ? 'warn' : result === 'injected' ? 'info' : undefined),
    message: 'pod reviewed',
    audit: false,
  },
  'injector.request-refused': { level: 'warn', message: 'the webhook refused a request', audit: false },
  'injector.tls-loaded': { level: 'info', message: 'certificate of the webhook loaded', audit: false },
  'injector.tls-failed': { level: 'warn', message: 'certificate of the webhook not loaded', audit: false },
  'injector.ca-bundle-updated': { level: 'info', message: 'caBundle of the webhook updated', audit: true },
  'injector.ca-bundle-failed': { level: 'warn', message: 'caBundle of the webhook cannot be kept', audit: false },
  'injector.cluster': { level: 'info', message: 'version of the cluster is known', audit: false },
  'injector.cluster-unknown': {
    level: 'warn',
    message: 'version of the cluster is not known, native sidecars are assumed',
    audit: false,
  },
  'log.dropped': { level: 'warn', message: 'log lines were dropped, their reader was too slow', audit: false },
  'audit.failed': { level: 'error', message: 'audit log cannot be written', audit: false },
  'audit.recovered': { level: 'info', message: 'audit log is written again', audit: false },
  'internal.error': { level: 'error', message: 'internal error', audit: false },
}
