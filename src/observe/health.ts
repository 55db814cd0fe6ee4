import {
  type CertificateStatus,
  type SecretStatus,
  type SidecarStatus,
  statusJson,
  type TrustStatus,
} from './status.ts'

/** An answer to a probe: 200 or 503, one line for people, and the same with reasons for machines. */
export interface Health {
  readonly ok: boolean
  readonly line: string
  readonly detail: object
}

/** Whether the process works at all. Vault, target and certificates have no part in it: a restart would not mend them. */
export const liveness = (stuck: string | undefined): Health =>
  stuck === undefined
    ? { ok: true, line: 'ok', detail: { ok: true } }
    : { ok: false, line: `not live: ${stuck}`, detail: { ok: false, reason: stuck } }

/**
 * Ready as soon as every certificate, secret and trust has a valid set on disk, and what this process serves itself can be asked (`unready` says why not).
 * Never waits for the target, which may start only afterwards.
 */
export function readiness({ certificates, secrets, trust }: SidecarStatus, unready: string | undefined): Health {
  const missing = [...certificates, ...secrets, ...trust].filter((each) => !isReady(each))
  const why = [...(missing.length > 0 ? [list(missing)] : []), ...(unready === undefined ? [] : [unready])]
  const ok = why.length === 0
  const detail = {
    ok,
    ...(unready !== undefined && { reason: unready }),
    certificates: certificates.map((certificate) => ({
      name: certificate.name,
      ok: isReady(certificate),
      phase: certificate.phase,
      reason: certificate.reason,
      message: certificate.lastError?.message ?? null,
      verified: certificate.verified,
    })),
    secrets: secrets.map((secret) => ({
      name: secret.name,
      ok: isReady(secret),
      phase: secret.phase,
      reason: secret.reason,
      message: secret.lastError?.message ?? null,
    })),
    trust: trust.map((each) => ({
      name: each.name,
      ok: isReady(each),
      phase: each.phase,
      reason: each.reason,
      message: each.lastError?.message ?? null,
      verified: each.verified,
    })),
  }
  return { ok, line: ok ? 'ok' : `not ready: ${why.join('; ')}`, detail }
}

/** Both of the above, and what is degraded. */
export function overallHealth(
  status: SidecarStatus,
  { stuck, unready }: { readonly stuck: string | undefined; readonly unready: string | undefined },
): Health {
  const [live, ready] = [liveness(stuck), readiness(status, unready)]
  const ok = live.ok && ready.ok
  const degraded = [...status.certificates, ...status.secrets, ...status.trust].filter(
    ({ phase }) => phase === 'DEGRADED',
  )
  const notes = [
    ...[live, ready].filter((each) => !each.ok).map(({ line }) => line),
    ...(degraded.length > 0 ? [`degraded: ${list(degraded)}`] : []),
    ...(status.config.lastReloadOk ? [] : ['the last config was rejected']),
  ]
  const { config, vault, version } = statusJson(status)
  const detail = { ok, notes, version, live: live.detail, ready: ready.detail, config, vault }
  return { ok, line: notes.length > 0 ? `${ok ? 'ok; ' : ''}${notes.join('; ')}` : 'ok', detail }
}

const isReady = ({ phase }: Pick<CertificateStatus, 'phase'>) => phase === 'ACTIVE' || phase === 'DEGRADED'

const MAX_LISTED = 5

/** `web PENDING (vault_unreachable), api EXPIRED and 3 more` */
function list(certificates: readonly (CertificateStatus | SecretStatus | TrustStatus)[]): string {
  const shown = certificates
    .slice(0, MAX_LISTED)
    .map(({ name, phase, reason }) => `${name} ${phase}${reason ? ` (${reason})` : ''}`)
  const more = certificates.length - shown.length
  return shown.join(', ') + (more > 0 ? ` and ${more} more` : '')
}
