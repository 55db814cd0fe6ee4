import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import { type ErrorCode, reasonOf } from '../errors.ts'
import type { EventMap, EventName } from './events.ts'
import { EVENT_METRICS, PREFIX } from './metric-table.ts'

type Handlers = { readonly [Name in EventName]?: (event: EventMap[Name]) => void }

/** Those metrics that count what happens, and how each event counts. */
export function createEventMetrics(registry: Registry) {
  const options = (name: keyof typeof EVENT_METRICS) => {
    const { help, labels, buckets } = EVENT_METRICS[name]
    return {
      name: PREFIX + name,
      help,
      labelNames: [...labels],
      registers: [registry],
      ...(buckets ? { buckets: [...buckets] } : {}),
    }
  }
  const rotations = new Counter(options('rotation_total'))
  const stages = new Histogram(options('rotation_duration_seconds'))
  const reloads = new Counter(options('reload_total'))
  const reloadOk = new Gauge(options('last_reload_successful'))
  const issued = new Counter(options('issued_total'))
  const fallbacks = new Counter(options('fallback_total'))
  const rollbacks = new Counter(options('rollback_total'))
  const deliveries = new Counter(options('secret_delivery_total'))
  const secretRollbacks = new Counter(options('secret_rollback_total'))
  const publications = new Counter(options('trust_publication_total'))
  const trustRollbacks = new Counter(options('trust_rollback_total'))
  const revocationChecks = new Counter(options('revocation_checks_total'))
  const foundRevoked = new Counter(options('certificate_revoked_total'))
  const tampers = new Counter(options('tamper_total'))
  const probes = new Counter(options('probe_total'))
  const requests = new Histogram(options('vault_request_duration_seconds'))
  const clockSkew = new Gauge(options('vault_clock_skew_seconds'))
  // Unknown until Vault has answered, which is not the same as none.
  clockSkew.remove()
  const tokenFailures = new Counter(options('vault_token_failure_total'))
  const wrapsReused = new Counter(options('wrap_reused_total'))
  const clockSteps = new Counter(options('clock_step_total'))
  const controls = new Counter(options('control_request_total'))
  const reviews = new Counter(options('injector_review_total'))
  const reviewTimes = new Histogram(options('injector_review_duration_seconds'))
  const caBundles = new Counter(options('injector_ca_bundle_update_total'))
  const namespaceOf = createLimit(MAX_NAMESPACES)
  const bugs = new Counter(options('internal_error_total'))

  const countRotation = (certificate: string, code?: ErrorCode) =>
    rotations.inc({ certificate, result: resultOf(!code), reason: code ? reasonOf(code) : '' })
  const countDelivery = (secret: string, code?: ErrorCode) =>
    deliveries.inc({ secret, result: resultOf(!code), reason: code ? reasonOf(code) : '' })
  const handlers: Handlers = {
    'secret.delivered': ({ secret }) => countDelivery(secret),
    'trust.published': ({ trust }) => publications.inc({ trust, result: resultOf(true), reason: '' }),
    'trust.failed': ({ trust, code }) => publications.inc({ trust, result: resultOf(false), reason: reasonOf(code) }),
    'trust.rolled-back': ({ trust }) => trustRollbacks.inc({ trust }),
    'secret.failed': ({ secret, code }) => countDelivery(secret, code),
    'secret.rolled-back': ({ secret }) => secretRollbacks.inc({ secret }),
    'rotation.finished': ({ certificate }) => countRotation(certificate),
    'rotation.failed': ({ certificate, code }) => countRotation(certificate, code),
    'rotation.stage': ({ stage, durationMs }) => stages.observe({ stage }, durationMs / 1000),
    'rotation.rolled-back': ({ certificate }) => rollbacks.inc({ certificate }),
    'source.fallback': ({ certificate, origin }) => fallbacks.inc({ certificate, source: kindOf(origin) }),
    'certificate.issued': ({ certificate }) => issued.inc({ certificate }),
    'certificate.probed': ({ certificate, notAfter, matches }) =>
      probes.inc({ certificate, result: notAfter === undefined ? 'down' : matches ? 'match' : 'other' }),
    'certificate.revocation-checked': ({ certificate, result }) => revocationChecks.inc({ certificate, result }),
    'security.certificate-revoked': ({ certificate }) => foundRevoked.inc({ certificate }),
    'reload.finished': ({ kind, certificates, ok }) => {
      reloads.inc({ kind, result: resultOf(ok) })
      for (const certificate of certificates) reloadOk.set({ certificate }, Number(ok))
    },
    'tamper.repaired': ({ certificate }) => tampers.inc({ certificate }),
    'vault.request': ({ operation, status, durationMs }) => requests.observe({ operation, status }, durationMs / 1000),
    'vault.clock-skew': ({ byMs }) => clockSkew.set(byMs / 1000),
    'vault.token-failed': () => tokenFailures.inc(),
    'security.wrap-reused': () => wrapsReused.inc(),
    'clock.stepped': () => clockSteps.inc(),
    'control.request': ({ command, allowed }) => controls.inc({ command, result: allowed ? 'allowed' : 'denied' }),
    'injector.reviewed': ({ namespace, result, durationMs }) => {
      reviews.inc({ namespace: namespaceOf(namespace), result })
      reviewTimes.observe(durationMs / 1000)
    },
    'injector.ca-bundle-updated': () => caBundles.inc({ result: resultOf(true) }),
    'injector.ca-bundle-failed': () => caBundles.inc({ result: resultOf(false) }),
    'internal.error': () => bugs.inc(),
  }

  return {
    handlers,
    /** Drops the series of certificates and secrets that are no longer managed, and gives the others theirs. */
    async limitTo({
      certificate: certificates,
      secret: secrets,
      trust,
    }: Record<'certificate' | 'secret' | 'trust', ReadonlySet<string>>) {
      // Reloads and files are of all.
      const all = new Set([...certificates, ...secrets, ...trust])
      for (const metric of [rotations, issued, fallbacks, rollbacks, probes, revocationChecks, foundRevoked])
        await limit(metric, 'certificate', certificates)
      for (const metric of [reloadOk, tampers]) await limit(metric, 'certificate', all)
      for (const metric of [deliveries, secretRollbacks]) await limit(metric, 'secret', secrets)
      for (const metric of [publications, trustRollbacks]) await limit(metric, 'trust', trust)
      // From zero, so that the first increase is seen as one.
      for (const secret of secrets) {
        deliveries.inc({ secret, result: resultOf(true), reason: '' }, 0)
        secretRollbacks.inc({ secret }, 0)
        tampers.inc({ certificate: secret }, 0)
      }
      for (const one of trust) {
        publications.inc({ trust: one, result: resultOf(true), reason: '' }, 0)
        trustRollbacks.inc({ trust: one }, 0)
        tampers.inc({ certificate: one }, 0)
      }
      for (const certificate of certificates) {
        rotations.inc({ certificate, result: resultOf(true), reason: '' }, 0)
        for (const counter of [issued, rollbacks, tampers, foundRevoked]) counter.inc({ certificate }, 0)
      }
    },
  }
}

/** Drops the series whose `label` is none of `names`. */
async function limit(metric: Counter | Gauge, label: string, names: ReadonlySet<string>): Promise<void> {
  for (const { labels } of (await metric.get()).values) if (!names.has(String(labels[label]))) metric.remove(labels)
}

const MAX_NAMESPACES = 200

/** So that series do not grow without bound: a namespace may be made for each run of a pipeline. */
function createLimit(most: number): (label: string) => string {
  const known = new Set<string>()
  return (label) => {
    if (known.size < most) known.add(label)
    return known.has(label) ? label : '_other'
  }
}

/** Its origin begins with it. */
const kindOf = (origin: string) => origin.split(' ', 1)[0] ?? ''

const resultOf = (ok: boolean) => (ok ? 'success' : 'error')
