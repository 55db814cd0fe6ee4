import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { EventMap } from '../../src/observe/events.ts'
import {
  CERTIFICATE_GAUGES,
  EVENT_METRICS,
  PREFIX,
  PROCESS_METRICS,
  SECRET_GAUGES,
  SELF_METRICS,
  SIDECAR_GAUGES,
  TRUST_GAUGES,
} from '../../src/observe/metric-table.ts'
import { createMetrics } from '../../src/observe/metrics.ts'
import type { SidecarStatus } from '../../src/observe/status.ts'
import { active, leased, NOW, pending, sidecar, trusting } from './samples.ts'

test('the names that dashboards rely on are all there', () => {
  const names = { ...CERTIFICATE_GAUGES, ...SIDECAR_GAUGES, ...EVENT_METRICS, ...SELF_METRICS }
  const promised = `certificate_not_after_timestamp_seconds certificate_not_before_timestamp_seconds
    certificate_renewal_timestamp_seconds certificate_phase served_not_after_timestamp_seconds rotation_total
    rotation_duration_seconds reload_total last_reload_successful last_verified_timestamp_seconds
    vault_request_duration_seconds vault_token_expiry_timestamp_seconds issued_total rollback_total tamper_total
    config_last_reload_successful build_info`.split(/\s+/)
  assert.deepEqual(
    promised.filter((name) => !Object.hasOwn(names, name)),
    [],
  )
})

test('every metric of the table is exposed with its type and, once there is something to tell, a value', async () => {
  const { metrics } = start(sidecar([active('web')], { secrets: [leased('app')], trust: [trusting('peers')] }))
  everyEvent(metrics)
  const { types, series } = parse(await metrics.text())
  const tables = [CERTIFICATE_GAUGES, SECRET_GAUGES, TRUST_GAUGES, SIDECAR_GAUGES, EVENT_METRICS, SELF_METRICS]
  const expected = new Map([
    ...tables.flatMap((table) => Object.entries(table).map(([name, { type }]) => [PREFIX + name, type] as const)),
    ...Object.entries(PROCESS_METRICS).map(([name, { type }]) => [name, type] as const),
  ])
  assert.deepEqual(types, expected)
  for (const [name, type] of types) {
    const sample = type === 'histogram' ? `${name}_count` : name
    assert.ok(
      series.some((each) => each.name === sample),
      `no sample of ${name}`,
    )
  }
})

test('gauges follow the snapshot at the moment of the scrape', async () => {
  const { metrics, show } = start(sidecar([active('web')]))
  const first = parse(await metrics.text())
  assert.equal(first.value('certificate_not_after_timestamp_seconds', { certificate: 'web' }), NOW / 1000 + 172_800)
  assert.equal(first.value('certificate_phase', { certificate: 'web', phase: 'ACTIVE' }), 1)
  assert.equal(first.value('served_matches_disk', { certificate: 'web' }), 1)
  show(sidecar([active('web', { phase: 'EXPIRED', servedEqualsDisk: false })]))
  const second = parse(await metrics.text())
  assert.deepEqual(
    ['PENDING', 'ACTIVE', 'DEGRADED', 'EXPIRED'].map((phase) =>
      second.value('certificate_phase', { certificate: 'web', phase }),
    ),
    [0, 0, 0, 1],
  )
  assert.equal(second.value('served_matches_disk', { certificate: 'web' }), 0)
})

test('what is not known has no series, rather than a zero', async () => {
  const { metrics } = start(sidecar([pending('mail')], { vault: null }))
  const { series } = parse(await metrics.text())
  const names = series.map(({ name }) => name)
  for (const name of [
    'certificate_not_after_timestamp_seconds',
    'served_not_after_timestamp_seconds',
    'served_matches_disk',
    'last_verified_timestamp_seconds',
    'vault_token_expiry_timestamp_seconds',
    'vault_clock_skew_seconds',
  ])
    assert.ok(!names.includes(PREFIX + name), name)
})

test('counters of a certificate exist from the first scrape, at zero', async () => {
  const { metrics } = start(sidecar([active('web')]))
  const { value } = parse(await metrics.text())
  assert.equal(value('rotation_total', { certificate: 'web', result: 'success', reason: '' }), 0)
  for (const name of ['issued_total', 'rollback_total', 'tamper_total'])
    assert.equal(value(name, { certificate: 'web' }), 0)
})

test('rotations are counted by result and reason, reloads by kind and result', async () => {
  const { metrics } = start(sidecar([active('web'), active('api')]))
  everyEvent(metrics)
  everyEvent(metrics)
  const { value } = parse(await metrics.text())
  assert.equal(value('rotation_total', { certificate: 'web', result: 'success', reason: '' }), 2)
  assert.equal(value('rotation_total', { certificate: 'web', result: 'error', reason: 'vault_sealed' }), 2)
  assert.equal(value('rotation_total', { certificate: 'api', result: 'success', reason: '' }), 0)
  assert.equal(value('reload_total', { kind: 'signal', result: 'error' }), 2)
  assert.equal(value('last_reload_successful', { certificate: 'web' }), 0)
  assert.equal(value('probe_total', { certificate: 'web', result: 'down' }), 2)
  assert.equal(value('probe_total', { certificate: 'web', result: 'other' }), 2)
  assert.equal(value('rotation_duration_seconds_sum', { stage: 'fetch' }), 3)
  assert.equal(value('vault_request_duration_seconds_count', { operation: 'sign', status: '200' }), 2)
  assert.equal(value('log_dropped_total', {}), 7)
  assert.equal(value('audit_lost_total', {}), 3)
})

test('the series of a removed certificate disappear, those of the others stay', async () => {
  const { metrics, show } = start(sidecar([active('web'), active('api')]))
  everyEvent(metrics)
  await metrics.text()
  show(sidecar([active('api')]))
  const { series } = parse(await metrics.text())
  const certificates = new Set(series.flatMap(({ labels }) => labels.certificate ?? []))
  assert.deepEqual([...certificates], ['api'])
})

test('two sidecars in one process count for themselves', async () => {
  const [one, two] = [start(sidecar([active('web')])), start(sidecar([active('web')]))]
  one.metrics.observe('certificate.issued', { certificate: 'web', serial: '1', notAfter: 1, forced: false })
  const issued = async ({ metrics }: typeof one) =>
    parse(await metrics.text()).value('issued_total', { certificate: 'web' })
  assert.deepEqual([await issued(one), await issued(two)], [1, 0])
})

function start(initial: SidecarStatus) {
  let status = initial
  const metrics = createMetrics({
    version: '0.1.0',
    snapshot: () => status,
    logDropped: () => 7,
    auditLost: () => 3,
  })
  return {
    metrics,
    show: (next: SidecarStatus) => {
      status = next
    },
  }
}

test('the namespaces of reviewed pods are bounded', async () => {
  const { metrics } = start(sidecar([active('web')]))
  everyEvent(metrics)
  const lines = (await metrics.text()).split('\n').filter((line) => line.startsWith('certferry_injector_review_total{'))
  assert.equal(lines.length, 201)
  assert.ok(lines.includes('certferry_injector_review_total{namespace="_other",result="injected"} 50'))
})

function everyEvent({ observe }: ReturnType<typeof createMetrics>) {
  const certificate = 'web'
  const failure = { code: 'VAULT_SEALED', message: 'sealed' } as const
  const reload: EventMap['reload.finished'] = {
    kind: 'signal',
    target: 'nginx',
    certificates: [certificate],
    ok: false,
    durationMs: 1,
    code: 'RELOAD_EPERM',
  }
  observe('rotation.finished', {
    certificate,
    serial: '1',
    notAfter: NOW,
    renewAt: NOW,
    verified: true,
    issued: true,
    durationMs: 1,
  })
  observe('rotation.failed', { certificate, stage: 'fetch', attempt: 1, nextAt: NOW, hint: '', ...failure })
  observe('rotation.stage', { certificate, stage: 'fetch', durationMs: 1500, ok: true })
  observe('source.fallback', {
    certificate,
    origin: 'dev-ca /ca',
    serial: '1',
    instead: 'vault-pki',
    code: 'VAULT_SEALED',
    message: 'sealed',
  })
  observe('certificate.revocation-checked', { certificate, serial: '1', result: 'good', by: 'ocsp', isNews: true })
  observe('security.certificate-revoked', { certificate, serial: '1', by: 'ocsp' })
  observe('rotation.rolled-back', { certificate, serial: '1', refused: '2' })
  observe('certificate.issued', { certificate, serial: '1', notAfter: NOW, forced: false })
  observe('certificate.probed', { certificate, notAfter: undefined, matches: false })
  observe('certificate.probed', { certificate, notAfter: NOW, matches: false })
  observe('reload.finished', reload)
  observe('tamper.repaired', { certificate, path: '/tls/tls.key', what: 'mode' })
  observe('vault.request', { operation: 'sign', status: '200', durationMs: 12 })
  observe('vault.clock-skew', { byMs: -1500 })
  const review = { pod: 'web-', result: 'injected', dryRun: false, durationMs: 2 } as const
  for (let index = 0; index < 250; index += 1) observe('injector.reviewed', { ...review, namespace: `shop-${index}` })
  observe('injector.ca-bundle-updated', { webhookConfiguration: 'certferry', added: 1, dropped: 0 })
  observe('vault.token-failed', { nextAt: NOW, ...failure })
  observe('security.wrap-reused', { file: '/run/wrap' })
  observe('clock.stepped', { byMs: 7_200_000 })
  observe('control.request', { command: 'rotate', certificates: [], reason: '', allowed: true })
  observe('internal.error', { code: 'BUG', message: 'm', error: new Error('m') })
}

/** The Prometheus text format, as strictly as a scraper reads it. */
function parse(text: string) {
  assert.match(text, /\n$/)
  const types = new Map<string, string>()
  const series: { name: string; labels: Record<string, string>; value: number }[] = []
  for (const line of text.split('\n')) {
    const [, named, type] = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line) ?? []
    if (named && type) types.set(named, type)
    if (line === '' || line.startsWith('#')) continue
    const [, name = '', inner = '', value] = /^([a-z_][a-z0-9_]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? assert.fail(line)
    const labels = [...inner.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"(?:,|$)/g)]
    assert.ok(Number.isFinite(Number(value)), line)
    series.push({ name, labels: Object.fromEntries(labels.map(([, key, text]) => [key, text])), value: Number(value) })
  }
  const value = (name: string, labels: Record<string, string>) =>
    series.find(
      (each) =>
        each.name === PREFIX + name &&
        Object.keys(each.labels).length === Object.keys(labels).length &&
        Object.entries(labels).every(([key, wanted]) => each.labels[key] === wanted),
    )?.value
  return { types, series, value }
}
