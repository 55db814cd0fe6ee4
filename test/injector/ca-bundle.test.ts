import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { applyPatch } from 'rfc6902'
import * as z from 'zod'
import { systemClock } from '../../src/clock.ts'
import { parseCertificates } from '../../src/core/bundle.ts'
import { SidecarError } from '../../src/errors.ts'
import { keepCaBundle, withRoots } from '../../src/injector/ca-bundle.ts'
import type { Kubernetes, KubernetesRequest } from '../../src/kubernetes/client.ts'
import type { Heard } from '../observe/admin-kit.ts'
import { createTestCa } from '../support/ca.ts'
import { until } from '../support/until.ts'
import { failure, forever } from '../vault/support.ts'

const NOW = Date.now()
const DAY_MS = 86_400_000
const [ours, theirs] = await Promise.all([createTestCa(), createTestCa({ commonName: 'Theirs' })])
const [old, recent] = await Promise.all([
  createTestCa({ commonName: 'Old', notAfter: new Date(NOW - 2 * DAY_MS) }),
  createTestCa({ commonName: 'Recent', notAfter: new Date(NOW - DAY_MS / 2) }),
])
const rootsIn = (pem: string) => (pem === '' ? [] : parseCertificates(pem).map(({ subject }) => subject))

describe('a caBundle', () => {
  const table: Readonly<Record<string, readonly [before: string, after: string[], change: object | undefined]>> = {
    'that is empty gets the root': ['', ['CN=Test Root'], { added: 1, dropped: 0 }],
    'that is a placeholder gets the root': ['\n', ['CN=Test Root'], { added: 1, dropped: 0 }],
    'that has the root is left as it is': [ours.rootPem, ['CN=Test Root'], undefined],
    'keeps the roots of others': [theirs.rootPem, ['CN=Theirs', 'CN=Test Root'], { added: 1, dropped: 0 }],
    'loses roots that expired': [old.rootPem + ours.rootPem, ['CN=Test Root'], { added: 0, dropped: 1 }],
    'keeps a root that expired today, as the clock here may be ahead': [
      recent.rootPem + ours.rootPem,
      ['CN=Recent', 'CN=Test Root'],
      undefined,
    ],
    'loses what is there twice': [ours.rootPem + ours.rootPem, ['CN=Test Root'], { added: 0, dropped: 1 }],
    'loses what is no certificate': [
      `-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n${ours.rootPem}`,
      ['CN=Test Root'],
      { added: 0, dropped: 1 },
    ],
  }
  for (const [claim, [before, after, change]] of Object.entries(table))
    test(claim, () => {
      const result = withRoots(before, [ours.root], NOW)
      assert.deepEqual(result.change, change)
      assert.deepEqual(rootsIn(result.pem), after)
      assert.equal(withRoots(result.pem, [ours.root], NOW).change, undefined, 'and then all is as it should be')
    })
})

const Operations = z.array(z.object({ op: z.literal(['test', 'add']), path: z.string(), value: z.string() }))
interface Configuration {
  metadata: { resourceVersion: string }
  webhooks: { clientConfig: { caBundle?: string } }[]
}

/** An API server that keeps one webhook configuration; `before` sees each request, and may throw. */
function apiServer(before: (request: KubernetesRequest) => void = () => {}) {
  let configuration: Configuration = {
    metadata: { resourceVersion: '1' },
    webhooks: [{ clientConfig: { caBundle: '' } }, { clientConfig: {} }],
  }
  const changed = () => {
    configuration.metadata.resourceVersion = String(Number(configuration.metadata.resourceVersion) + 1)
  }
  const api: Kubernetes = {
    address: 'https://api',
    namespace: 'certferry',
    pod: 'injector-0',
    ask: async (request, schema) => {
      before(request)
      if (request.method === 'PATCH') {
        const patched = structuredClone(configuration)
        const [error] = applyPatch(patched, Operations.parse(request.body)).filter((one) => one !== null)
        if (error) throw new SidecarError('KUBERNETES_INVALID', String(error))
        configuration = patched
        changed()
      }
      return schema.parse(structuredClone(configuration))
    },
    watch: () => {
      throw new Error('nothing is watched')
    },
    [Symbol.asyncDispose]: async () => {},
  }
  return {
    api,
    changed,
    roots: () =>
      configuration.webhooks.map(({ clientConfig }) =>
        rootsIn(Buffer.from(clientConfig.caBundle ?? '', 'base64').toString()),
      ),
    empty: () => {
      for (const { clientConfig } of configuration.webhooks) clientConfig.caBundle = ''
      changed()
    },
  }
}

function start(api: Kubernetes) {
  const heard: Pick<Heard, 'name' | 'event'>[] = []
  const options = { webhookConfiguration: 'certferry-injector', settleMs: 0, checkMs: 20 }
  const bundle = keepCaBundle(api, options, {
    clock: systemClock,
    emit: (name, event) => void heard.push({ name, event }),
  })
  return { bundle, heard, [Symbol.asyncDispose]: () => bundle[Symbol.asyncDispose]() }
}

describe('keeping it', () => {
  const root = ['CN=Test Root']

  test('covers every webhook of the configuration, in one change', async () => {
    const asked: string[] = []
    const server = apiServer(({ method }) => void asked.push(method))
    await using keeper = start(server.api)
    await keeper.bundle.trust([ours.root], forever)
    assert.deepEqual(server.roots(), [root, root])
    assert.deepEqual(asked, ['GET', 'PATCH'])
    assert.deepEqual(
      keeper.heard.map(({ event }) => event),
      [{ webhookConfiguration: 'certferry-injector', added: 1, dropped: 0 }],
    )
  })

  test('tries again when somebody else changes the configuration in between', async () => {
    let rivals = 3
    const server = apiServer(({ method }) => {
      if (method === 'PATCH' && rivals-- > 0) server.changed()
    })
    await using keeper = start(server.api)
    await keeper.bundle.trust([ours.root], forever)
    assert.deepEqual(server.roots(), [root, root])
  })

  test('gives up for now when that never ends', async () => {
    const server = apiServer(({ method }) => {
      if (method === 'PATCH') server.changed()
    })
    await using keeper = start(server.api)
    assert.equal((await failure(keeper.bundle.trust([ours.root], forever))).code, 'KUBERNETES_INVALID')
  })

  test('what the API server refuses for another reason is not tried again', async () => {
    let patches = 0
    const server = apiServer(({ method }) => {
      if (method !== 'PATCH') return
      patches += 1
      throw new SidecarError('KUBERNETES_INVALID', 'no such field')
    })
    await using keeper = start(server.api)
    assert.match((await failure(keeper.bundle.trust([ours.root], forever))).message, /no such field/)
    assert.equal(patches, 1)
  })

  test('goes on when the API server was away, which is told once', async () => {
    let isAway = false
    const server = apiServer(() => {
      if (isAway) throw new SidecarError('KUBERNETES_UNREACHABLE', 'away')
    })
    await using keeper = start(server.api)
    await keeper.bundle.trust([ours.root], forever)
    isAway = true
    server.empty()
    const failures = () => keeper.heard.filter(({ name }) => name === 'injector.ca-bundle-failed')
    await until('it is told', () => failures().length === 1)
    isAway = false
    await until('it is put right', () => server.roots().every((found) => found.length === 1))
    assert.equal(failures().length, 1)
  })

  test('nothing is looked after that was never trusted', async () => {
    let requests = 0
    const server = apiServer(() => {
      requests += 1
      throw new SidecarError('KUBERNETES_UNREACHABLE', 'away')
    })
    await using keeper = start(server.api)
    assert.equal((await failure(keeper.bundle.trust([ours.root], forever))).code, 'KUBERNETES_UNREACHABLE')
    await systemClock.sleep(60)
    assert.equal(requests, 1)
  })
})
