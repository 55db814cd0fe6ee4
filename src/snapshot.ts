import type { Clock, Instant } from './clock.ts'
import { budgetLeft, countedLifetime, recentIssues } from './core/budget.ts'
import { endOfIssuers, fingerprintOf } from './core/bundle.ts'
import { NEVER } from './core/content.ts'
import { namesOf } from './core/names.ts'
import type { Snapshot } from './core/snapshot.ts'
import { phase, reasonFor } from './core/state.ts'
import type { TrustSet } from './core/trust.ts'
import type { Loop } from './loop.ts'
import type { Observer } from './observe/events.ts'
import type { CertificateStatus, SecretStatus, SidecarStatus, TrustStatus } from './observe/status.ts'
import type { Sidecar } from './sidecar.ts'

/** The whole sidecar at one moment, put together from what the loops published and what events told. */
export interface Snapshots {
  take(sidecar: Pick<Sidecar, 'config' | 'certificates' | 'secrets' | 'trust'>): SidecarStatus
  /** Learns config reloads and token lifetimes. */
  readonly observe: Observer
}

export function createSnapshots(version: string, { now }: Pick<Clock, 'now'>): Snapshots {
  const startedAt = now()
  let reload: Omit<SidecarStatus['config'], 'file'> = { loadedAt: startedAt, lastReloadOk: true, error: null }
  let tokenExpiresAt: Instant | null = null
  return {
    observe: (name, event) => {
      if (name === 'config.loaded') reload = { loadedAt: now(), lastReloadOk: true, error: null }
      if (name === 'config.rejected' && 'message' in event)
        reload = { ...reload, lastReloadOk: false, error: event.message }
      if (name === 'vault.token' && 'renewable' in event && event.connection === undefined)
        tokenExpiresAt = event.expiresAt ?? null
    },
    take: ({ config, certificates, secrets, trust }) => ({
      version,
      startedAt,
      config: { file: config.file, ...reload },
      vault: config.vault ? { address: config.vault.address, tokenExpiresAt } : null,
      certificates: certificates.map((loop) => certificateStatus(loop, now())),
      secrets: secrets.map((loop) => secretStatus(loop, now())),
      trust: trust.map((loop) => trustStatus(loop, now())),
    }),
  }
}

const HOUR_MS = 3_600_000

/** One certificate: facts from its last report, and what follows from them at `now`. */
export function certificateStatus({ cert, report }: Loop, now: Instant): CertificateStatus {
  const state = report?.state
  const serving = state?.serving
  const served = report?.served
  const { issuedAt } = cert.store.memory
  return {
    name: cert.name,
    phase: state ? phase(state, now) : 'PENDING',
    reason: (state && reasonFor(state)) ?? null,
    lastError: state?.failure ?? state?.awaited ?? null,
    origin: serving?.origin ?? null,
    fallback: serving !== undefined && cert.source.alternatives?.includes(serving.origin) === true,
    serial: serving?.serial ?? null,
    fingerprint: serving?.fingerprint ?? null,
    notBefore: serving?.notBefore ?? null,
    notAfter: serving?.notAfter ?? null,
    issuerNotAfter: (serving && endOfIssuers(serving)) ?? null,
    expiresInSeconds: serving ? Math.floor((serving.notAfter - now) / 1000) : null,
    renewAt: state?.renewAt ?? null,
    nextAt: report?.next.kind === 'wait' ? report.next.until : (state?.nextAt ?? null),
    lastRotationAt: serving ? (state?.rotatedAt ?? serving.receivedAt) : null,
    verified: state?.verification ?? 'pending',
    verifiedAt: state?.verifiedAt ?? null,
    served: served
      ? {
          up: served.up,
          notAfter: served.up ? served.notAfter : null,
          serial: served.up ? served.serial : null,
          fingerprint: served.up ? served.fingerprint : null,
          at: served.at,
        }
      : null,
    servedEqualsDisk: served?.up && serving ? served.fingerprint === serving.fingerprint : null,
    failures: state?.failures ?? 0,
    issuedRecently: issuedAt.filter((at) => at > now - HOUR_MS).length,
    budgetLeft: budgetLeft(recentIssues(issuedAt, now), now, countedLifetime(serving, cert.source.ttlMs)),
    directories: [...new Set(cert.outputs.map((output) => output.directory))],
    names: serving ? namesIn(serving.leaf) : [],
  }
}

/** One secret: the same. */
export function secretStatus({ cert, report }: Loop<Snapshot>, now: Instant): SecretStatus {
  const state = report?.state
  const serving = state?.serving
  const end = (at: Instant | undefined) => (at === undefined || at === NEVER ? null : at)
  return {
    name: cert.name,
    phase: state ? phase(state, now) : 'PENDING',
    reason: (state && reasonFor(state)) ?? null,
    lastError: state?.failure ?? state?.awaited ?? null,
    values: Object.entries(serving?.readings ?? {}).map(([name, { version, notAfter }]) => ({
      name,
      version: version || null,
      expiresAt: end(notAfter),
    })),
    expiresAt: end(serving?.notAfter),
    nextAt: report?.next.kind === 'wait' ? report.next.until : (state?.nextAt ?? null),
    deliveredAt: serving ? (state?.rotatedAt ?? serving.receivedAt) : null,
    failures: state?.failures ?? 0,
    directories: [...new Set(cert.outputs.map((output) => output.directory))],
  }
}

/** One trust: the same. */
export function trustStatus({ cert, report }: Loop<TrustSet>, now: Instant): TrustStatus {
  const state = report?.state
  const serving = state?.serving
  return {
    name: cert.name,
    phase: state ? phase(state, now) : 'PENDING',
    reason: (state && reasonFor(state)) ?? null,
    lastError: state?.failure ?? state?.awaited ?? null,
    anchors: (serving?.anchors ?? []).map(({ certificate, retiredAt }) => ({
      subject: certificate.subject.replaceAll('\n', ', '),
      fingerprint: fingerprintOf(certificate),
      notAfter: certificate.validToDate.getTime(),
      retiring: retiredAt !== undefined,
    })),
    crls: (serving?.lists ?? []).map(({ issuer, number, nextUpdate, isDelta }) => ({
      issuer,
      number: number === undefined ? null : String(number),
      nextUpdate: nextUpdate === NEVER ? null : nextUpdate,
      delta: isDelta,
    })),
    verified: state?.verification ?? 'pending',
    notAfter: serving?.notAfter ?? null,
    nextAt: report?.next.kind === 'wait' ? report.next.until : (state?.nextAt ?? null),
    publishedAt: serving ? (state?.rotatedAt ?? serving.receivedAt) : null,
    failures: state?.failures ?? 0,
    directories: [...new Set(cert.outputs.map((output) => output.directory))],
  }
}

function namesIn(leaf: Parameters<typeof namesOf>[0]): string[] {
  const { commonName, dns, ip, uri, email } = namesOf(leaf)
  return [...new Set([...(commonName === undefined ? [] : [commonName]), ...dns, ...ip, ...uri, ...email])]
}
