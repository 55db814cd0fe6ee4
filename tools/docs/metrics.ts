import {
  CERTIFICATE_GAUGES,
  EVENT_METRICS,
  type Metric,
  PREFIX,
  PROCESS_METRICS,
  SECRET_GAUGES,
  SELF_METRICS,
  SIDECAR_GAUGES,
  TRUST_GAUGES,
} from '../../src/observe/metric-table.ts'
import { code, GENERATED, table } from './table.ts'

/** Alerts worth having, as expressions for Prometheus. */
export const ALERTS: readonly (readonly [what: string, expression: string])[] = [
  [
    'Less than a twentieth of a lifetime is left',
    '(certferry_certificate_not_after_timestamp_seconds - time()) / (certferry_certificate_not_after_timestamp_seconds - certferry_certificate_not_before_timestamp_seconds) < 0.05',
  ],
  ['A renewal is overdue by ten minutes', 'time() - certferry_certificate_renewal_timestamp_seconds > 600'],
  ['Clients get another certificate than the one on disk', 'max_over_time(certferry_served_matches_disk[5m]) == 0'],
  ['No usable certificate', 'certferry_certificate_phase{phase=~"PENDING|EXPIRED"} == 1'],
  ['Something fails, the old certificate still serves', 'certferry_certificate_phase{phase="DEGRADED"} == 1'],
  ['The target refused a new certificate', 'increase(certferry_rollback_total[1h]) > 0'],
  ['Somebody else writes to the volume', 'increase(certferry_tamper_total[1h]) > 0'],
  ['A config was rejected, the old one stays', 'certferry_config_last_reload_successful == 0'],
  ['A wrapping token was used by somebody else', 'increase(certferry_wrap_reused_total[1d]) > 0'],
  ['The sidecar itself is gone', 'absent(certferry_build_info)'],
]

export function renderMetrics(): string {
  return `${GENERATED}

# Metrics

\`GET /metrics\` on \`admin.listen\` and on the control socket, in the Prometheus text format. Times are seconds since 1970, durations are
seconds. What is not known has no series. The series of a certificate end when it leaves the config. \`reason\` is a code of
[errors.md](errors.md) in lower case. No series carries a key, a token or a serial.

## Per certificate

${rows(CERTIFICATE_GAUGES)}

## Per secret

${rows(SECRET_GAUGES)}

## Per trust

${rows(TRUST_GAUGES)}

## Sidecar, Vault and target

${rows({ ...SIDECAR_GAUGES, ...EVENT_METRICS, ...SELF_METRICS })}

## Process

${rows(PROCESS_METRICS, '')}

## Alerts to start from

${table(
  ['When', 'Expression'],
  ALERTS.map(([what, expression]) => [what, code(expression)]),
)}
`
}

const rows = (metrics: Readonly<Record<string, Metric>>, prefix = PREFIX) =>
  table(
    ['Name', 'Type', 'Labels', 'Meaning'],
    Object.entries(metrics).map(([name, { type, labels, help }]) => [
      code(prefix + name),
      type,
      labels.map(code).join(', '),
      help,
    ]),
  )
