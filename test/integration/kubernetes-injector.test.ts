import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { connect } from 'node:tls'
import * as z from 'zod'
import { systemClock } from '../../src/clock.ts'
import { parseCertificates } from '../../src/core/bundle.ts'
import { keepCaBundle } from '../../src/injector/ca-bundle.ts'
import { createKubernetes } from '../../src/kubernetes/client.ts'
import { KubernetesOptions } from '../../src/kubernetes/options.ts'
import { sources } from '../../src/sources/index.ts'
import { createTestCa } from '../support/ca.ts'
import { startCertferry } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { CONTROL_PLANE, startKubernetes, type TestKubernetes } from '../support/kubernetes.ts'
import { freePort } from '../support/nginx.ts'
import { until } from '../support/until.ts'
import { failure, forever } from '../vault/support.ts'

const needs = { skip: await skipReason(...CONTROL_PLANE) }
const running = needs.skip ? undefined : await startKubernetes()
after(() => running?.[Symbol.asyncDispose]())
const cluster = (): TestKubernetes => running ?? assert.fail('there is a cluster')
const folder = mkdtempSync(join(tmpdir(), 'certferry-injector-'))
after(() => rmSync(folder, { recursive: true, force: true }))
for (const namespace of ['certferry', 'shop']) await running?.createNamespace(namespace)

const CONFIGURATION = 'certferry-injector'
const CA_SECRET = 'certferry-injector-ca'
const WEBHOOKS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'
const PODS = '/api/v1/namespaces/shop/pods'
const ASKING = { 'certferry.io/certificate.web': 'pki/issue/web?common_name=web.example.com&ttl=72h' }

/** All that the injector may do: RBAC of the chart. */
const RIGHTS = {
  secrets: [
    { apiGroups: [''], resources: ['secrets'], verbs: ['create'] },
    { apiGroups: [''], resources: ['secrets'], resourceNames: [CA_SECRET], verbs: ['get'] },
  ],
  webhooks: [
    {
      apiGroups: ['admissionregistration.k8s.io'],
      resources: ['mutatingwebhookconfigurations'],
      resourceNames: [CONFIGURATION],
      verbs: ['get', 'patch'],
    },
  ],
}

let accounts = 0
/** The token of a service account that has these rights and no other, in a file. */
async function account({ secrets, webhooks }: { secrets: readonly object[]; webhooks: readonly object[] }) {
  const { api, createServiceAccount, createToken } = cluster()
  accounts += 1
  const name = `injector-${accounts}`
  await createServiceAccount(name, 'certferry')
  const rbac = '/apis/rbac.authorization.k8s.io/v1'
  const subjects = [{ kind: 'ServiceAccount', name, namespace: 'certferry' }]
  const bind = (kind: string) => ({
    metadata: { name },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind, name },
    subjects,
  })
  await api('POST', `${rbac}/namespaces/certferry/roles`, { metadata: { name }, rules: secrets })
  await api('POST', `${rbac}/namespaces/certferry/rolebindings`, bind('Role'))
  await api('POST', `${rbac}/clusterroles`, { metadata: { name }, rules: webhooks })
  await api('POST', `${rbac}/clusterrolebindings`, bind('ClusterRole'))
  const tokenFile = join(folder, name)
  writeFileSync(tokenFile, await createToken(name, 'certferry'))
  return { apiServer: cluster().url, caFile: cluster().caFile, tokenFile, namespace: 'certferry', pod: name }
}

/** A webhook at each port, and one by a Service that is never asked. */
async function configureWebhooks(...ports: readonly number[]) {
  const { api, send } = cluster()
  const common = {
    admissionReviewVersions: ['v1'],
    sideEffects: 'None',
    rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'], scope: 'Namespaced' }],
    namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } },
  }
  const webhooks = [
    ...ports.map((port) => ({
      ...common,
      name: `port-${port}.certferry.io`,
      clientConfig: { url: `https://127.0.0.1:${port}/mutate` },
    })),
    {
      ...common,
      name: 'service.certferry.io',
      clientConfig: { service: { name: 'certferry-injector', namespace: 'certferry', path: '/mutate' } },
      objectSelector: { matchLabels: { never: 'asked' } },
    },
  ]
  await api('POST', WEBHOOKS, { metadata: { name: CONFIGURATION }, webhooks })
  return {
    [Symbol.asyncDispose]: async () => {
      await send('DELETE', `${WEBHOOKS}/${CONFIGURATION}`)
      await send('DELETE', `/api/v1/namespaces/certferry/secrets/${CA_SECRET}`)
    },
  }
}

const Bundles = z.object({
  webhooks: z.array(z.object({ clientConfig: z.object({ caBundle: z.string().default('') }) })),
})

/** Fingerprints of the roots that each webhook trusts. */
async function trusted(): Promise<string[][]> {
  const { webhooks } = Bundles.parse(await cluster().api('GET', `${WEBHOOKS}/${CONFIGURATION}`))
  return webhooks.map(({ clientConfig }) => fingerprintsIn(Buffer.from(clientConfig.caBundle, 'base64').toString()))
}

const fingerprintsIn = (pem: string): string[] =>
  pem === '' ? [] : parseCertificates(pem).map(({ fingerprint256 }) => fingerprint256)

const empty = () =>
  cluster().api(
    'PATCH',
    `${WEBHOOKS}/${CONFIGURATION}`,
    [{ op: 'remove', path: '/webhooks/0/clientConfig/caBundle' }],
    { contentType: 'application/json-patch+json' },
  )

let replicas = 0
/** `certferry injector` as a process of its own, ready or not. */
async function startInjector({ port, kubernetes }: { port: number; kubernetes: object }) {
  replicas += 1
  const home = mkdtempSync(join(folder, `replica-${replicas}-`))
  const socket = join(home, 'control.sock')
  const configFile = join(home, 'c.yaml')
  const config = {
    injector: {
      listen: `127.0.0.1:${port}`,
      certificate: 'injector',
      webhookConfiguration: CONFIGURATION,
      image: 'certferry:0.1.0',
      namespace: 'certferry',
      defaults: { 'vault-address': 'https://vault.vault.svc:8200', 'vault-role': 'web' },
    },
    kubernetes,
    admin: { listen: '127.0.0.1:0', socket },
    log: { format: 'json', level: 'debug' },
    certificates: [
      {
        name: 'injector',
        source: { kind: 'dev-ca', secret: CA_SECRET, altNames: ['127.0.0.1', 'localhost'], ttl: '24h' },
        outputs: [{ kind: 'pem', directory: join(home, 'tls') }],
        verify: [{ kind: 'tls', address: `127.0.0.1:${port}`, serverName: 'localhost' }],
      },
    ],
  }
  writeFileSync(configFile, JSON.stringify(config), { mode: 0o600 })
  return { ...startCertferry({ verb: 'injector', configFile, socket }), socket }
}
type Replica = Awaited<ReturnType<typeof startInjector>>

async function ready(replica: Replica) {
  let last: unknown
  const look = async () => {
    last = await replica.get('/readyz')
    return (await replica.get('/readyz')).status === 200
  }
  await until('the injector is ready', look, { timeoutMs: 60_000 }).catch((cause) => {
    throw new Error(
      `${JSON.stringify(last)}\n${JSON.stringify(replica.log().slice(-20), null, 1)}\n${replica.stderr()}`,
      { cause },
    )
  })
}

const MadePod = z.object({
  metadata: z.object({ name: z.string(), annotations: z.record(z.string(), z.string()).default({}) }),
  spec: z.object({
    initContainers: z.array(z.object({ name: z.string(), restartPolicy: z.string().optional() })).default([]),
  }),
})

const podWith = (annotations: Readonly<Record<string, string>>) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { generateName: 'web-', annotations },
  spec: { containers: [{ name: 'app', image: 'nginx', securityContext: { runAsUser: 101 } }] },
})

const isInjected = (pod: unknown) =>
  MadePod.parse(pod).spec.initContainers.some(
    ({ name, restartPolicy }) => name === 'certferry' && restartPolicy === 'Always',
  )

/** The certificate that is served now, and its issuers up to the root. */
function served(port: number): Promise<{ leaf: X509Certificate; issuer: X509Certificate | undefined }> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, servername: 'localhost', rejectUnauthorized: false }, () => {
      const leaf = socket.getPeerX509Certificate()
      socket.destroy()
      if (leaf) resolve({ leaf, issuer: leaf.issuerCertificate })
      else reject(new Error('no certificate is served'))
    })
    socket.once('error', reject)
  })
}

/** Which CA signed what is served now. */
async function issuerServed(port: number): Promise<string> {
  return (await served(port)).issuer?.fingerprint256 ?? assert.fail('the intermediate is sent along')
}

describe('certferry injector', needs, () => {
  test('with exactly its rights it makes itself trusted, and the API server has it inject pods', async () => {
    const port = await freePort()
    await using _webhooks = await configureWebhooks(port)
    await using replica = await startInjector({ port, kubernetes: await account(RIGHTS) })
    await ready(replica)
    const [byUrl, byService] = await trusted()
    assert.equal(byUrl?.length, 1)
    assert.deepEqual(byService, byUrl, 'a webhook by Service is trusted alike')
    assert.ok(isInjected(await cluster().api('POST', PODS, podWith(ASKING))))
    assert.ok(!isInjected(await cluster().api('POST', PODS, podWith({}))))
    assert.ok(isInjected(await cluster().api('POST', `${PODS}?dryRun=All`, podWith(ASKING))))
    const refused = await cluster().send('POST', PODS, podWith({ 'certferry.io/certifcate.web': 'misspelt' }))
    assert.equal(refused.status, 422)
    assert.match(JSON.stringify(refused.body), /admission webhook .* denied the request: .*did you mean/)
    const series = (result: string) => `certferry_injector_review_total{namespace="shop",result="${result}"}`
    assert.deepEqual(
      await Promise.all(['injected', 'skipped', 'denied'].map((result) => replica.metric(series(result)))),
      [2, 1, 1],
    )
    assert.equal(await replica.metric('certferry_injector_review_duration_seconds_count'), 4)
    const [cluster_] = replica.log('injector.cluster')
    assert.equal(cluster_?.nativeSidecars, true)
    await replica.certificate('injector', 'is proven to be served', ({ verified }) => verified === 'verified')
    assert.deepEqual(replica.log('rotation.failed'), [])
  })

  test('an emptied caBundle is put right when the certificate is rotated', async () => {
    const port = await freePort()
    await using _webhooks = await configureWebhooks(port)
    await using replica = await startInjector({ port, kubernetes: await account(RIGHTS) })
    await ready(replica)
    const before = await trusted()
    await empty()
    assert.deepEqual((await trusted())[0], [])
    const { results } = await replica.control.rotate({ certificates: 'all', reason: 'test', wait: true }, forever)
    assert.ok(
      results.every(({ ok }) => ok),
      JSON.stringify(results),
    )
    assert.deepEqual(await trusted(), before)
    assert.ok(isInjected(await cluster().api('POST', PODS, podWith(ASKING))))
  })

  test('500 pods are admitted without a failure while the certificate and then its CA are replaced', async (t) => {
    const port = await freePort()
    await using _webhooks = await configureWebhooks(port)
    await using replica = await startInjector({ port, kubernetes: await account(RIGHTS) })
    await ready(replica)
    const first = (await served(port)).leaf.fingerprint256
    const rotating = new AbortController()
    const seen = new Set<string>([first])
    const rotations = rotateUntil(
      rotating.signal,
      replica,
      async () => void seen.add((await served(port)).leaf.fingerprint256),
    )
    const probing = handshakeUntil(rotating.signal, port)
    const { times, failures } = await admit(500, () => rotationsOf(seen) >= 4)
    rotating.abort()
    await rotations
    const handshakes = await probing
    const sorted = times.toSorted((a, b) => a - b)
    const at = (share: number) => Math.round(sorted[Math.floor(sorted.length * share)] ?? 0)
    t.diagnostic(
      `${times.length} admissions and ${handshakes.count} handshakes, ${seen.size - 1} certificates and ${(await trusted())[0]?.length} CAs: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${at(0.9999)} ms`,
    )
    assert.deepEqual(failures, [])
    assert.deepEqual(handshakes.failures, [])
    assert.ok(times.length >= 500)
    assert.ok(((await trusted())[0]?.length ?? 0) >= 2, 'another CA came into service')
    assert.deepEqual(
      replica.log('injector.tls-failed').filter(({ reason }) => reason !== 'injector_tls'),
      [],
    )
  })

  test('a certificate of a CA that cannot be made trusted stays out of service, and nothing is lost', async () => {
    const port = await freePort()
    await using _webhooks = await configureWebhooks(port)
    const kubernetes = await account(RIGHTS)
    await using replica = await startInjector({ port, kubernetes })
    await ready(replica)
    const before = await issuerServed(port)
    const role = `/apis/rbac.authorization.k8s.io/v1/clusterroles/${kubernetes.pod}`
    await cluster().api('PATCH', role, { rules: [] })
    await cluster().api('DELETE', `/api/v1/namespaces/certferry/secrets/${CA_SECRET}`)
    const rotate = () => replica.control.rotate({ certificates: 'all', reason: 'test', wait: true }, forever)
    const { error } = await until(
      'the right is taken away',
      async () => (await rotate()).results.find(({ ok }) => !ok) ?? false,
    )
    assert.equal(error?.code, 'KUBERNETES_DENIED')
    const meanwhile = await issuerServed(port)
    assert.equal((await replica.get('/readyz')).status, 200)
    assert.deepEqual(replica.log('rotation.rolled-back'), [])
    assert.ok(isInjected(await cluster().api('POST', PODS, podWith(ASKING))))
    await cluster().api('PATCH', role, { rules: RIGHTS.webhooks })
    await until('it is taken into service', async () => (await rotate()).results.every(({ ok }) => ok))
    assert.equal(meanwhile, before)
    assert.notEqual(await issuerServed(port), before)
    assert.equal((await trusted())[0]?.length, 2)
  })

  test('two replicas that start at the same time share a CA, and the API server asks both', async () => {
    const ports = [await freePort(), await freePort()] as const
    await using _webhooks = await configureWebhooks(...ports)
    const kubernetes = await account(RIGHTS)
    await using one = await startInjector({ port: ports[0], kubernetes })
    await using two = await startInjector({ port: ports[1], kubernetes })
    await Promise.all([ready(one), ready(two)])
    for (const bundle of await trusted()) assert.equal(bundle.length, 1)
    const pod = await cluster().api('POST', PODS, podWith(ASKING))
    assert.ok(isInjected(pod))
    for (const replica of [one, two]) assert.equal(replica.log('injector.reviewed').length, 1)
    assert.deepEqual(
      [one, two].flatMap((replica) => replica.log('injector.reviewed').map(({ result }) => result)).sort(),
      ['injected', 'unchanged'],
    )
  })

  test('at SIGTERM health says so first, and who is connected is still answered', async () => {
    const port = await freePort()
    await using _webhooks = await configureWebhooks(port)
    await using replica = await startInjector({ port, kubernetes: await account(RIGHTS) })
    await ready(replica)
    // The API server keeps its connection.
    await cluster().api('POST', PODS, podWith(ASKING))
    const ending = replica.stop('SIGTERM')
    const { body } = await until('health says that it stops', async () => {
      const health = await replica.get('/readyz')
      return health.status === 503 && health
    })
    assert.match(body, /the webhook stops/)
    assert.ok(isInjected(await cluster().api('POST', PODS, podWith(ASKING))))
    assert.equal((await ending).code, 0)
  })

  test('a review of an old version is refused with what to do about it', async () => {
    const port = await freePort()
    await using _webhooks = await configureWebhooks(port)
    await using replica = await startInjector({ port, kubernetes: await account(RIGHTS) })
    await ready(replica)
    const change = [{ op: 'replace', path: '/webhooks/0/admissionReviewVersions', value: ['v1beta1'] }]
    const contentType = 'application/json-patch+json'
    await cluster().api('PATCH', `${WEBHOOKS}/${CONFIGURATION}`, change, { contentType })
    await until('the API server sends the old version', async () => {
      const { status, body } = await cluster().send('POST', PODS, podWith(ASKING))
      return status === 500 && /set admissionReviewVersions: \[v1\]/.test(JSON.stringify(body))
    })
  })
})

const rotationsOf = (seen: ReadonlySet<string>) => seen.size - 1

/** Over and over; every other time the CA is thrown away before, so that a new one is made. */
async function rotateUntil(signal: AbortSignal, replica: Replica, rotated: () => Promise<void>): Promise<void> {
  for (let turn = 0; !signal.aborted; turn += 1) {
    if (turn % 2 === 1) await cluster().api('DELETE', `/api/v1/namespaces/certferry/secrets/${CA_SECRET}`)
    const { results } = await replica.control.rotate({ certificates: 'all', reason: 'test', wait: true }, forever)
    assert.ok(
      results.every(({ ok }) => ok),
      JSON.stringify(results),
    )
    await rotated()
  }
}

/**
 * The API server keeps its connections, so that it looks at few certificates. This looks as it would on new ones: trusting what the
 * configuration said before.
 */
async function handshakeUntil(signal: AbortSignal, port: number) {
  const failures: string[] = []
  let count = 0
  for (; !signal.aborted; count += 1) {
    const { webhooks } = Bundles.parse(await cluster().api('GET', `${WEBHOOKS}/${CONFIGURATION}`))
    const ca = Buffer.from(webhooks[0]?.clientConfig.caBundle ?? '', 'base64')
    await new Promise<void>((resolve) => {
      const socket = connect({ host: '127.0.0.1', port, servername: 'localhost', ca }, () => socket.destroy())
      socket.once('error', ({ message }) => failures.push(message))
      socket.once('close', () => resolve())
    })
  }
  return { count, failures: failures.slice(0, 3) }
}

const WORKERS = 8
/** Makes pods, `amount` of them or more until `isEnough`; those that were refused, or not injected, are failures. */
async function admit(amount: number, isEnough: () => boolean) {
  const times: number[] = []
  const failures: unknown[] = []
  const work = async () => {
    while (times.length < amount || (!isEnough() && times.length < 20 * amount)) {
      const startedAt = performance.now()
      const { status, body } = await cluster().send('POST', `${PODS}?dryRun=All`, podWith(ASKING))
      times.push(performance.now() - startedAt)
      if (status !== 201 || !isInjected(body)) failures.push(body)
    }
  }
  await Promise.all(Array.from({ length: WORKERS }, work))
  return { times, failures: failures.slice(0, 3) }
}

describe('caBundle', needs, () => {
  const kubernetesOf = (options: object) => createKubernetes(KubernetesOptions.parse(options), { env: {} })
  const quick = { webhookConfiguration: CONFIGURATION, settleMs: 0, checkMs: 50 }
  const quiet = { clock: systemClock, emit: () => {} }

  test('that somebody empties is put right by itself', async () => {
    await using _webhooks = await configureWebhooks(1)
    const { root } = await createTestCa()
    await using api = kubernetesOf(await account(RIGHTS))
    await using bundle = keepCaBundle(api, quick, quiet)
    await bundle.trust([root], forever)
    await empty()
    await until('the root is there again', async () => (await trusted()).every((roots) => roots.length === 1))
  })

  test('is extended by many at the same time, and nobody is lost', async () => {
    await using _webhooks = await configureWebhooks(1)
    const options = await account(RIGHTS)
    const roots = await Promise.all(Array.from({ length: 4 }, async () => (await createTestCa()).root))
    await Promise.all(
      roots.map(async (root) => {
        await using api = kubernetesOf(options)
        await using bundle = keepCaBundle(api, { ...quick, checkMs: 60_000 }, quiet)
        await bundle.trust([root], forever)
      }),
    )
    for (const found of await trusted())
      assert.deepEqual(found.toSorted(), roots.map(({ fingerprint256 }) => fingerprint256).toSorted())
  })

  for (const verb of ['get', 'patch'])
    test(`cannot be kept without the right to ${verb} the webhook configuration`, async () => {
      await using _webhooks = await configureWebhooks(1)
      const { root } = await createTestCa()
      const [rule] = RIGHTS.webhooks
      const webhooks = [{ ...rule, verbs: ['get', 'patch'].filter((one) => one !== verb) }]
      await using api = kubernetesOf(await account({ ...RIGHTS, webhooks }))
      await using bundle = keepCaBundle(api, quick, quiet)
      const error = await failure(bundle.trust([root], forever))
      assert.equal(error.code, 'KUBERNETES_DENIED')
      assert.ok(error.message.includes(`verbs: ["${verb}"], resourceNames: ["${CONFIGURATION}"]`), error.message)
    })
})

describe('a development CA in a Secret', needs, () => {
  const source = (options: object) => {
    const api = createKubernetes(KubernetesOptions.parse(options), { env: {} })
    const given = sources.schema.parse({ kind: 'dev-ca', secret: CA_SECRET, commonName: 'localhost' })
    const vault = () => assert.fail('no Vault is needed')
    const made = sources.create(given, {
      vault,
      kubernetes: () => api,
      key: { algorithm: 'ecdsa-p256' },
      clock: systemClock,
      env: {},
      warn: () => {},
    })
    return { ...made, [Symbol.asyncDispose]: () => api[Symbol.asyncDispose]() }
  }
  const remove = () => cluster().send('DELETE', `/api/v1/namespaces/certferry/secrets/${CA_SECRET}`)

  test('is the same for all who start at the same time', async () => {
    const options = await account(RIGHTS)
    const roots = await Promise.all(
      Array.from({ length: 6 }, async () => {
        await using one = source(options)
        return (await one.fetch(forever)).roots[0]?.fingerprint256
      }),
    )
    assert.equal(new Set(roots).size, 1)
    await remove()
  })

  test('shows its root by itself, for clients', async () => {
    await using one = source(await account(RIGHTS))
    const { roots } = await one.fetch(forever)
    const Data = z.object({ data: z.record(z.string(), z.string()) })
    const { data } = Data.parse(await cluster().api('GET', `/api/v1/namespaces/certferry/secrets/${CA_SECRET}`))
    assert.deepEqual(Object.keys(data).sort(), ['ca.crt', 'dev-ca.pem'])
    const root = new X509Certificate(Buffer.from(data['ca.crt'] ?? '', 'base64'))
    assert.equal(root.fingerprint256, roots[0]?.fingerprint256)
    await remove()
  })

  test('is not made where the Secret holds something else', async () => {
    const foreign = { metadata: { name: CA_SECRET }, stringData: { password: 'of somebody else' } }
    await cluster().api('POST', '/api/v1/namespaces/certferry/secrets', foreign)
    await using one = source(await account(RIGHTS))
    const error = await failure(one.fetch(forever))
    assert.equal(error.code, 'FOREIGN_OBJECT')
    await remove()
  })

  for (const [index, verb] of ['create', 'get'].entries())
    test(`cannot be kept without the right to ${verb} it`, async () => {
      const secrets = RIGHTS.secrets.filter((_, position) => position !== index)
      await using one = source(await account({ ...RIGHTS, secrets }))
      const error = await failure(one.fetch(forever))
      assert.equal(error.code, 'KUBERNETES_DENIED')
      assert.ok(error.message.includes(`verbs: ["${verb}"]`), error.message)
    })
})
