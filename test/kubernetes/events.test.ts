import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as z from 'zod'
import { SidecarError } from '../../src/errors.ts'
import type { Kubernetes, KubernetesRequest } from '../../src/kubernetes/client.ts'
import { createRecorder, type Happening } from '../../src/kubernetes/events.ts'
import type { Emit } from '../../src/observe/events.ts'
import { createKubernetesEvents } from '../../src/observe/kubernetes-events.ts'
import { createFakeClock, promisesSettled } from '../support/clock.ts'

const MINUTE = 60_000
const Body = z.looseObject({
  reason: z.string().optional(),
  type: z.string().optional(),
  message: z.string(),
  count: z.number(),
})

/** An API server that takes every event, unless it is told otherwise. */
function createPlace({ isKnown = true } = {}) {
  const clock = createFakeClock(Date.UTC(2026, 0, 1), { settle: promisesSettled })
  const requests: KubernetesRequest[] = []
  const lost: SidecarError[] = []
  const world: { fail: SidecarError | undefined; gone: boolean } = { fail: undefined, gone: false }
  const api: Kubernetes = {
    address: 'https://10.96.0.1',
    namespace: 'shop',
    pod: 'web-0',
    ask: async (request, schema) => {
      requests.push(request)
      if (world.fail) throw world.fail
      if (world.gone && request.method === 'PATCH') throw new SidecarError('KUBERNETES_NOT_FOUND', 'no such event')
      return schema.parse({ metadata: { name: 'web-0', uid: 'asked' } })
    },
    watch: () => {
      throw new Error('nothing is watched')
    },
    [Symbol.asyncDispose]: async () => {},
  }
  const recorder = createRecorder(api, {
    clock,
    uid: isKnown ? 'u-1' : undefined,
    onLost: (error) => lost.push(error),
  })
  const bodies = () => requests.filter(({ method }) => method !== 'GET').map(({ body }) => Body.parse(body))
  return { clock, requests, lost, world, api, recorder, bodies }
}

const failing = (about = 'web VAULT_DENIED'): Happening => ({
  type: 'Warning',
  reason: 'RotationFailed',
  about,
  message: `it failed: ${about}`,
})

test('the same thing again is the same event with a higher count', async () => {
  const { clock, requests, recorder, bodies } = createPlace()
  for (let n = 0; n < 3; n += 1) {
    recorder.record(failing())
    await clock.advance(MINUTE)
  }
  assert.deepEqual(
    requests.map(({ method }) => method),
    ['POST', 'PATCH', 'PATCH'],
  )
  assert.deepEqual(
    bodies().map(({ count }) => count),
    [1, 2, 3],
  )
  const [first] = requests
  assert.deepEqual(first?.path, ['api', 'v1', 'namespaces', 'shop', 'events'])
  const { involvedObject, firstTimestamp } = Body.parse(first?.body)
  assert.deepEqual(involvedObject, { apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'web-0', uid: 'u-1' })
  assert.equal(firstTimestamp, '2026-01-01T00:00:00Z')
})

test('a loop that fails ten times a second for an hour makes few requests, and none is forgotten', async () => {
  const { clock, requests, recorder, bodies } = createPlace()
  for (let n = 0; n < 36_000; n += 1) {
    recorder.record(failing())
    if (n % 10 === 9) await clock.advance(1000)
  }
  await clock.advance(MINUTE)
  assert.ok(requests.length <= 10 + 361, `${requests.length} requests`)
  assert.equal(bodies().at(-1)?.count, 36_000)
})

test('however many things happen, no more is kept than a hundred', async () => {
  const { clock, requests, recorder, world } = createPlace()
  world.fail = new SidecarError('KUBERNETES_UNREACHABLE', 'away')
  for (let n = 0; n < 10_000; n += 1) recorder.record(failing(`web-${n}`))
  world.fail = undefined
  await clock.advance(60 * MINUTE)
  assert.ok(requests.length <= 101, `${requests.length} requests`)
})

test('what cannot be sent is told once, waits longer and longer, and comes with all that happened meanwhile', async () => {
  const { clock, requests, recorder, world, lost, bodies } = createPlace()
  world.fail = new SidecarError('KUBERNETES_DENIED', 'cannot create events shop')
  recorder.record(failing())
  for (let n = 0; n < 60; n += 1) {
    await clock.advance(MINUTE)
    recorder.record(failing())
  }
  assert.deepEqual(
    lost.map(({ code }) => code),
    ['KUBERNETES_DENIED'],
  )
  assert.ok(requests.length < 25, `${requests.length} requests in an hour`)
  world.fail = undefined
  await clock.advance(6 * MINUTE)
  assert.equal(bodies().at(-1)?.count, 61)
  assert.equal(requests.at(-1)?.method, 'POST')
})

test('an event that the API server has dropped is made anew', async () => {
  const { clock, requests, recorder, world, lost, bodies } = createPlace()
  recorder.record(failing())
  await clock.advance(MINUTE)
  world.gone = true
  recorder.record(failing())
  await clock.advance(MINUTE)
  world.gone = false
  recorder.record(failing())
  await clock.advance(MINUTE)
  assert.deepEqual(
    requests.map(({ method }) => method),
    ['POST', 'PATCH', 'POST', 'PATCH'],
  )
  assert.equal(bodies().at(-1)?.count, 3)
  assert.deepEqual(lost, [])
})

test('the pod is asked for its uid once, where it is not known', async () => {
  const { clock, requests, recorder } = createPlace({ isKnown: false })
  recorder.record(failing('a'))
  recorder.record(failing('b'))
  await clock.advance(MINUTE)
  assert.deepEqual(
    requests.map(({ method }) => method),
    ['GET', 'POST', 'POST'],
  )
  assert.match(JSON.stringify(requests.at(-1)?.body), /"uid":"asked"/)
})

test('a stop sends what waits, and waits for nobody', async () => {
  const { clock, requests, recorder, bodies } = createPlace()
  for (let n = 0; n < 20; n += 1) recorder.record(failing(`web-${n}`))
  await clock.advance(1)
  assert.equal(requests.length, 10)
  await recorder[Symbol.asyncDispose]()
  assert.equal(bodies().length, 20)
  recorder.record(failing('later'))
  await clock.advance(MINUTE)
  assert.equal(requests.length, 20)
})

test('rotations, failures, what was rolled back, has expired or was rejected are events; the rest is not', async () => {
  const { clock, api, bodies } = createPlace()
  const told: string[] = []
  const emit: Emit = (name) => void told.push(name)
  await using events = createKubernetesEvents(api, { clock, podUid: 'u-1', emit })
  const at = clock.now()
  events.observe('sidecar.started', { version: '1', certificates: 1, secrets: 0, config: '/c' })
  events.observe('certificate.phase', { certificate: 'web', from: 'PENDING', to: 'ACTIVE' })
  events.observe('rotation.finished', {
    certificate: 'web',
    serial: '4a',
    notAfter: at,
    renewAt: at,
    verified: true,
    issued: true,
    durationMs: 1500,
  })
  events.observe('rotation.failed', {
    certificate: 'web',
    stage: 'fetch',
    attempt: 2,
    nextAt: at,
    code: 'VAULT_5XX',
    message: 'Vault said no to hvs.CAESIcanarycanary',
    hint: "Look into Vault's server log.",
  })
  events.observe('rotation.rolled-back', { certificate: 'web', serial: '4a', refused: '4b' })
  events.observe('certificate.phase', { certificate: 'web', from: 'ACTIVE', to: 'EXPIRED', reason: 'vault_5xx' })
  events.observe('config.rejected', { code: 'CONFIG_INVALID', message: 'x', errors: ['c.yaml:1:1 a'] })
  await clock.advance(MINUTE)
  assert.deepEqual(
    bodies().map(({ type, reason }) => `${type} ${reason}`),
    [
      'Normal CertificateRotated',
      'Warning RotationFailed',
      'Warning CertificateRolledBack',
      'Warning CertificateExpired',
      'Warning ConfigRejected',
    ],
  )
  assert.equal(
    bodies()[0]?.message,
    'web: serial 4a, valid until 2026-01-01T00:00:00.000Z, proven to be served; took 2s',
  )
  assert.equal(
    bodies()[1]?.message,
    "web: fetch failed (VAULT_5XX), attempt 2, next at 2026-01-01T00:00:00.000Z: Vault said no to [secret]. Look into Vault's server log.",
  )
  assert.deepEqual(told, [])
})
