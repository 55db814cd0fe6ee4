import { Counter, Gauge, Registry } from 'prom-client'
import { PHASES } from '../core/state.ts'
import { createEventMetrics } from './event-metrics.ts'
import type { Observer } from './events.ts'
import {
  CERTIFICATE_GAUGES,
  type Metric,
  PREFIX,
  PROCESS_METRICS,
  SECRET_GAUGES,
  SELF_METRICS,
  SIDECAR_GAUGES,
  TRUST_GAUGES,
} from './metric-table.ts'
import { processReadings } from './process-metrics.ts'
import type { CertificateStatus, SecretStatus, SidecarStatus, TrustStatus } from './status.ts'

export interface MetricsDeps {
  readonly version: string
  /** Read once per scrape. */
  readonly snapshot: () => SidecarStatus
  readonly logDropped: () => number
  readonly auditLost: () => number
}

export interface Metrics {
  readonly observe: Observer
  readonly contentType: string
  /** The Prometheus text format. */
  text(): Promise<string>
}

type Labels = Readonly<Record<string, string>>
type Reading = readonly [value: number, labels?: Labels]

/** The metrics of one sidecar, in a registry of its own. Series of a certificate that is no longer managed disappear. */
export function createMetrics({ version, snapshot, logDropped, auditLost }: MetricsDeps): Metrics {
  const registry = new Registry()
  const counting = createEventMetrics(registry)
  let current: SidecarStatus

  const read = (
    table: Readonly<Record<string, Metric>>,
    readings: Readonly<Record<string, () => readonly Reading[]>>,
    prefix = PREFIX,
  ) => {
    for (const [name, metric] of Object.entries(table)) readOnScrape(registry, prefix + name, metric, readings[name])
  }
  read(
    CERTIFICATE_GAUGES,
    certificateReadings(() => current.certificates),
  )
  read(
    SECRET_GAUGES,
    secretReadings(() => current.secrets),
  )
  read(
    TRUST_GAUGES,
    trustReadings(() => current.trust),
  )
  read(
    SIDECAR_GAUGES,
    sidecarReadings(() => current),
  )
  read(SELF_METRICS, {
    log_dropped_total: () => [[logDropped()]],
    audit_lost_total: () => [[auditLost()]],
    build_info: () => [[1, { version, node_version: process.version }]],
  } satisfies Record<keyof typeof SELF_METRICS, () => readonly Reading[]>)
  read(PROCESS_METRICS, processReadings(), '')

  return {
    observe: (name, event) => counting.handlers[name]?.(event),
    contentType: registry.contentType,
    async text() {
      current = snapshot()
      await counting.limitTo({
        certificate: new Set(current.certificates.map(({ name }) => name)),
        secret: new Set(current.secrets.map(({ name }) => name)),
        trust: new Set(current.trust.map(({ name }) => name)),
      })
      return registry.metrics()
    },
  }
}

/** A gauge or counter without memory: its series are what `readings` says at each scrape. */
function readOnScrape(registry: Registry, name: string, metric: Metric, readings: () => readonly Reading[] = () => []) {
  const options = { name, help: metric.help, labelNames: [...metric.labels], registers: [registry] }
  if (metric.type === 'counter') {
    new Counter({
      ...options,
      collect() {
        this.reset()
        for (const [value, labels = {}] of readings()) this.inc(labels, value)
      },
    })
    return
  }
  new Gauge({
    ...options,
    collect() {
      this.reset()
      // A gauge without labels starts at 0, which would be a lie where nothing is known.
      if (metric.labels.length === 0) this.remove()
      for (const [value, labels = {}] of readings()) this.set(labels, value)
    },
  })
}

type CertificateGauge = keyof typeof CERTIFICATE_GAUGES

function certificateReadings(
  certificates: () => readonly CertificateStatus[],
): Record<CertificateGauge, () => readonly Reading[]> {
  const each = (value: (certificate: CertificateStatus) => number | boolean | null | undefined) => () =>
    certificates().flatMap((certificate): Reading[] => known(value(certificate), { certificate: certificate.name }))
  return {
    certificate_not_after_timestamp_seconds: each(({ notAfter }) => seconds(notAfter)),
    certificate_not_before_timestamp_seconds: each(({ notBefore }) => seconds(notBefore)),
    issuer_not_after_timestamp_seconds: each(({ issuerNotAfter }) => seconds(issuerNotAfter)),
    certificate_renewal_timestamp_seconds: each(({ renewAt }) => seconds(renewAt)),
    certificate_phase: () =>
      certificates().flatMap(({ name, phase }) =>
        PHASES.map((each): Reading => [Number(each === phase), { certificate: name, phase: each }]),
      ),
    served_not_after_timestamp_seconds: each(({ served }) => seconds(served?.notAfter)),
    served_matches_disk: each(({ servedEqualsDisk }) => servedEqualsDisk),
    last_verified_timestamp_seconds: each(({ verifiedAt }) => seconds(verifiedAt)),
    rotation_consecutive_failures: each(({ failures }) => failures),
    issue_budget_left: each(({ budgetLeft }) => budgetLeft),
  }
}

function secretReadings(
  secrets: () => readonly SecretStatus[],
): Record<keyof typeof SECRET_GAUGES, () => readonly Reading[]> {
  const each = (value: (secret: SecretStatus) => number | null) => () =>
    secrets().flatMap((secret): Reading[] => known(value(secret), { secret: secret.name }))
  return {
    secret_phase: () =>
      secrets().flatMap(({ name, phase }) =>
        PHASES.map((each): Reading => [Number(each === phase), { secret: name, phase: each }]),
      ),
    secret_lease_expiry_timestamp_seconds: each(({ expiresAt }) => seconds(expiresAt)),
    secret_last_delivered_timestamp_seconds: each(({ deliveredAt }) => seconds(deliveredAt)),
    secret_consecutive_failures: each(({ failures }) => failures),
  }
}

function trustReadings(
  trust: () => readonly TrustStatus[],
): Record<keyof typeof TRUST_GAUGES, () => readonly Reading[]> {
  const each = (value: (trust: TrustStatus) => number | null) => () =>
    trust().flatMap((one): Reading[] => known(value(one), { trust: one.name }))
  return {
    trust_phase: () =>
      trust().flatMap(({ name, phase }) =>
        PHASES.map((each): Reading => [Number(each === phase), { trust: name, phase: each }]),
      ),
    ca_not_after_timestamp_seconds: () =>
      trust().flatMap(({ name, anchors }) =>
        lastPerName(anchors, ({ subject, retiring }) => `${retiring} ${subject}`)
          .slice(0, MOST_AUTHORITIES)
          .map(
            ({ subject, notAfter, retiring }): Reading => [
              notAfter / 1000,
              { trust: name, subject, state: retiring ? 'retiring' : 'named' },
            ],
          ),
      ),
    crl_next_update_timestamp_seconds: () =>
      trust().flatMap(({ name, crls }) =>
        lastPerName(
          crls.filter(({ delta }) => !delta),
          ({ issuer }) => issuer,
        ).flatMap(({ issuer, nextUpdate }): Reading[] =>
          nextUpdate === null ? [] : [[nextUpdate / 1000, { trust: name, issuer }]],
        ),
      ),
    trust_last_published_timestamp_seconds: each(({ publishedAt }) => seconds(publishedAt)),
    trust_consecutive_failures: each(({ failures }) => failures),
  }
}

/** The public CAs of a system are more than anybody watches. */
const MOST_AUTHORITIES = 20

/** Two CAs may share a name; a series is there once. */
const lastPerName = <T>(all: readonly T[], nameOf: (one: T) => string): T[] => [
  ...new Map(all.map((one) => [nameOf(one), one])).values(),
]

const sidecarReadings = (
  current: () => SidecarStatus,
): Record<keyof typeof SIDECAR_GAUGES, () => readonly Reading[]> => ({
  config_last_reload_successful: () => known(current().config.lastReloadOk),
  config_last_reload_success_timestamp_seconds: () => known(seconds(current().config.loadedAt)),
  vault_token_expiry_timestamp_seconds: () => known(seconds(current().vault?.tokenExpiresAt)),
})

const known = (value: number | boolean | null | undefined, labels?: Labels): Reading[] =>
  value === null || value === undefined ? [] : [labels ? [Number(value), labels] : [Number(value)]]
const seconds = (ms: number | null | undefined) => (ms === null || ms === undefined ? null : ms / 1000)
