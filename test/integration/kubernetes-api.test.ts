import assert from 'node:assert/strict'
import { randomBytes, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { after, describe, test } from 'node:test'
import * as z from 'zod'
import { systemClock } from '../../src/clock.ts'
import { plan } from '../../src/commands/plan.ts'
import { loadConfig } from '../../src/config/config.ts'
import { createKubernetes, type Kubernetes } from '../../src/kubernetes/client.ts'
import { KubernetesOptions } from '../../src/kubernetes/options.ts'
import { outputs } from '../../src/outputs/index.ts'
import { isRemote, type RemoteOutput } from '../../src/outputs/output.ts'
import { reloaders } from '../../src/reloaders/index.ts'
import type { ReloadContext, Reloader } from '../../src/reloaders/reloader.ts'
import { openService } from '../../src/service.ts'
import { createTestCa } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { CONTROL_PLANE, startKubernetes, type TestKubernetes } from '../support/kubernetes.ts'
import { isDone, type Running, run, serialOf } from '../support/sidecar.ts'
import { until } from '../support/until.ts'
import { failure, forever } from '../vault/support.ts'

const skip = await skipReason(...CONTROL_PLANE)
const running = skip ? undefined : await startKubernetes({ controllerManager: true })
after(() => running?.[Symbol.asyncDispose]())
const cluster = (): TestKubernetes => running ?? assert.fail('there is a cluster')
const folder = mkdtempSync(join(tmpdir(), 'certferry-kubernetes-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const adminTokenFile = join(folder, 'admin-token')
if (running) writeFileSync(adminTokenFile, running.token)
const ca = await createTestCa()

/** What the documentation of each feature says that a Role must hold. */
const RESTART: readonly Rule[] = [
  { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
  { apiGroups: ['apps'], resources: ['replicasets'], verbs: ['get'] },
  { apiGroups: ['apps'], resources: ['deployments'], resourceNames: ['web'], verbs: ['get', 'patch'] },
  {
    apiGroups: ['coordination.k8s.io'],
    resources: ['leases'],
    resourceNames: ['certferry-deployment-web'],
    verbs: ['get', 'update'],
  },
  { apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: ['create'] },
]
const SECRET: readonly Rule[] = [
  { apiGroups: [''], resources: ['secrets'], resourceNames: ['web-tls'], verbs: ['get', 'patch', 'create'] },
]
const SOURCE: readonly Rule[] = [
  { apiGroups: [''], resources: ['secrets'], resourceNames: ['web-tls'], verbs: ['get', 'watch'] },
]
const EVENTS: readonly Rule[] = [{ apiGroups: [''], resources: ['events'], verbs: ['create', 'patch'] }]

interface Rule {
  readonly apiGroups: readonly string[]
  readonly resources: readonly string[]
  readonly resourceNames?: readonly string[]
  readonly verbs: readonly string[]
}

/** The rules with one verb less, for each verb. */
const lessOne = (rules: readonly Rule[]) =>
  rules.flatMap((rule) =>
    rule.verbs.map((verb) => ({
      verb,
      resource: rule.resources.join(),
      rules: without(rules, rule, verb),
    })),
  )

const without = (rules: readonly Rule[], rule: Rule, verb: string): Rule[] =>
  rules
    .map((each) => (each === rule ? { ...each, verbs: each.verbs.filter((one) => one !== verb) } : each))
    .filter(({ verbs }) => verbs.length > 0)

const Names = z.object({ items: z.array(z.object({ metadata: z.object({ name: z.string() }) })) })
const Workload = z.object({
  metadata: z.object({ generation: z.int() }),
  spec: z.object({
    template: z.object({ metadata: z.object({ annotations: z.record(z.string(), z.string()).default({}) }) }),
  }),
})
const Uid = z.object({ metadata: z.object({ uid: z.string() }) })
const LeaseObject = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.string()) }),
  spec: z.object({ holderIdentity: z.string(), leaseTransitions: z.int(), leaseDurationSeconds: z.int() }),
})
const SecretObject = z.object({
  type: z.string(),
  metadata: z.object({
    resourceVersion: z.string(),
    labels: z.record(z.string(), z.string()).default({}),
    annotations: z.record(z.string(), z.string()).default({}),
  }),
  data: z.record(z.string(), z.string()),
})
const EventList = z.object({
  items: z.array(
    z.object({
      type: z.string(),
      reason: z.string(),
      message: z.string(),
      count: z.int(),
      metadata: z.object({ name: z.string() }),
    }),
  ),
})

/** A client of the cluster, as somebody. */
function clientOf(namespace: string, tokenFile: string, pod = 'nobody'): Kubernetes {
  return createKubernetes(
    KubernetesOptions.parse({ apiServer: cluster().url, caFile: cluster().caFile, tokenFile, namespace, pod }),
    { env: {} },
  )
}

/** A namespace of its own, with a Deployment in it, and a service account for those who act as its pods. */
async function createShop({ replicas = 1, rules = [] as readonly Rule[], spec = {} } = {}) {
  const { api, createNamespace, createServiceAccount, createToken } = cluster()
  const namespace = `shop-${randomBytes(4).toString('hex')}`
  const core = `/api/v1/namespaces/${namespace}`
  const apps = `/apis/apps/v1/namespaces/${namespace}`
  const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`
  const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`
  await createNamespace(namespace)
  await createServiceAccount('certferry', namespace)
  await api('POST', `${rbac}/roles`, { metadata: { name: 'certferry' }, rules })
  await api('POST', `${rbac}/rolebindings`, {
    metadata: { name: 'certferry' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'certferry' },
    subjects: [{ kind: 'ServiceAccount', name: 'certferry', namespace }],
  })
  await api('POST', `${apps}/deployments`, {
    metadata: { name: 'web' },
    spec: { replicas, selector: { matchLabels: { app: 'web' } }, template: templateOf('web'), ...spec },
  })
  const tokenFile = join(folder, `${namespace}-token`)
  writeFileSync(tokenFile, await createToken('certferry', namespace))

  const get = async <T>(path: string, schema: z.ZodType<T>) => schema.parse(await api('GET', path))
  const list = async (path: string) => (await get(path, Names)).items.map(({ metadata }) => metadata.name).sort()
  const pods = () => list(`${core}/pods`)
  await until('the pods are there', async () => (await pods()).length === replicas)
  await until('the role is in force', () => isAllowed(clientOf(namespace, tokenFile), rules))
  return {
    namespace,
    core,
    apps,
    tokenFile,
    pods,
    replicaSets: () => list(`${apps}/replicasets`),
    deployment: () => get(`${apps}/deployments/web`, Workload),
    lease: () => get(`${leases}/certferry-deployment-web`, LeaseObject),
    hasLease: async () => (await list(leases)).length > 0,
    secret: () => get(`${core}/secrets/web-tls`, SecretObject),
    hasSecret: async () => (await list(`${core}/secrets`)).includes('web-tls'),
    events: async () => (await get(`${core}/events`, EventList)).items,
    as: (pod: string) => clientOf(namespace, tokenFile, pod),
    asAdmin: (pod: string) => clientOf(namespace, adminTokenFile, pod),
    allow: (more: readonly Rule[]) => api('PATCH', `${rbac}/roles/certferry`, { rules: more }),
  }
}

const templateOf = (app: string) => ({
  metadata: { labels: { app } },
  spec: { serviceAccountName: 'certferry', containers: [{ name: 'app', image: 'example.com/app:1' }] },
})
type Shop = Awaited<ReturnType<typeof createShop>>

/** One that takes pods, though nobody runs them. */
async function addNode(name: string): Promise<void> {
  await cluster().api('POST', '/api/v1/nodes', { metadata: { name } })
  await cluster().api('PATCH', `/api/v1/nodes/${name}`, { spec: { taints: null } })
}

/** A role comes into force as a whole. */
async function isAllowed(client: Kubernetes, rules: readonly Rule[]): Promise<boolean> {
  const rule = rules.find(({ verbs }) => verbs.length > 0)
  if (!rule) return true
  const { apiGroups, resources, verbs } = rule
  const name = rule.resourceNames?.[0]
  const resourceAttributes = {
    namespace: client.namespace,
    group: apiGroups[0],
    resource: resources[0],
    verb: verbs[0],
    name,
  }
  const Review = z.object({ status: z.object({ allowed: z.boolean() }) })
  const path = ['apis', 'authorization.k8s.io', 'v1', 'selfsubjectaccessreviews']
  const review = {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SelfSubjectAccessReview',
    spec: { resourceAttributes },
  }
  return (await client.ask({ method: 'POST', path, body: review }, Review, forever)).status.allowed
}

/** Its old pods stay: without a kubelet no new one becomes ready. */
const KEEPS_OLD = { strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } } }
/** They go at once. */
const REPLACES = { strategy: { type: 'Recreate' } }

const DAY = 86_400_000
const context: ReloadContext = {
  certificates: ['web'],
  serial: '4a',
  fingerprint: 'f00d',
  notAfter: Date.now() + DAY,
  lifetimeMs: DAY,
  isFirst: false,
  directories: [],
}

const restarter = (api: Kubernetes, options: object = {}): Reloader =>
  reloaders.create(reloaders.schema.parse({ kind: 'rollout-restart', ...options }), {
    clock: systemClock,
    env: {},
    kubernetes: () => api,
  })

/** Begins a reload, which lasts until the pod ends. */
function beginReload(reloader: Reloader, more: Partial<ReloadContext> = {}) {
  const stop = new AbortController()
  const done = reloader.reload({ ...context, ...more }, stop.signal)
  done.catch(() => {})
  return {
    done,
    /** As the kubelet ends a pod: the reload resolves, but where it was in the middle of a request. */
    end: async () => {
      const reason = new DOMException('SIGTERM', 'AbortError')
      stop.abort(reason)
      await done.catch((error: unknown) => assert.equal(error, reason))
    },
  }
}

const restartedAt = async (shop: Shop) =>
  (await shop.deployment()).spec.template.metadata.annotations['kubectl.kubernetes.io/restartedAt']

/** A sidecar in a pod, with a certificate of dev-ca. */
function sidecarIn(
  shop: Shop,
  pod: string,
  { ttl = '24h', outputs: more = '', reload = '', source = '' } = {},
): Running & { file: string } {
  const own = mkdtempSync(join(folder, 'pod-'))
  const file = join(own, 'c.yaml')
  const text = `
kubernetes: { apiServer: '${cluster().url}', caFile: ${cluster().caFile}, tokenFile: ${shop.tokenFile}, namespace: ${shop.namespace}, pod: ${pod} }
certificates:
  - name: web
    source: ${source || `{ kind: dev-ca, directory: ${own}/ca, commonName: web.example, ttl: ${ttl} }`}
    outputs: [{ kind: pem, directory: ${own}/tls }${more}]
    renew: { jitter: 0 }
${reload}
`
  writeFileSync(file, text, { mode: 0o600 })
  return { ...run(loadConfig(file, {})), file }
}
const RELOAD = '    reload: [{ kind: rollout-restart, timeout: 60s }]'
const failed = ({ events }: Running) => events.filter(({ name }) => name === 'rotation.failed')

describe('rollout-restart', { skip }, () => {
  test('three replicas that rotate at once cause one restart, and none of them fails by it', async () => {
    const shop = await createShop({ replicas: 3, rules: RESTART, spec: KEEPS_OLD })
    const pods = await shop.pods()
    const running = pods.map((pod) => sidecarIn(shop, pod, { reload: RELOAD }))
    for (const each of running) await each.once('web', 'has its first certificate', isDone)
    assert.equal((await shop.replicaSets()).length, 1, 'a first certificate restarts nobody')

    const rotations = running.map(({ sidecar }) => sidecar.rotate(['web'], 'test', forever))
    for (const rotation of rotations) rotation.catch(() => {})
    await until('a second ReplicaSet is there', async () => (await shop.replicaSets()).length === 2)
    for (const each of running)
      await each.once(
        'web',
        'has a second certificate on disk',
        ({ cert }) => cert.store.current?.serial !== serialOf(each.loop('web')),
      )
    const { metadata } = await shop.deployment()
    for (const each of running) await each[Symbol.asyncDispose]()
    assert.equal((await shop.replicaSets()).length, 2)
    assert.equal((await shop.deployment()).metadata.generation, metadata.generation)
    assert.deepEqual(running.flatMap(failed), [])
    const { metadata: lease, spec } = await shop.lease()
    assert.equal(lease.annotations['certferry.io/restarted-at'], await restartedAt(shop))
    assert.equal(lease.annotations['certferry.io/certificates'], 'web')
    assert.ok(pods.includes(spec.holderIdentity))
    assert.equal(spec.leaseDurationSeconds, 8 * 3600, 'a third of the lifetime')
  })

  test('twenty that ask in the same moment make one revision', async () => {
    const shop = await createShop({ replicas: 20, rules: RESTART, spec: KEEPS_OLD })
    const errors = await Promise.all(
      (await shop.pods()).map((pod) => failure(restarter(shop.as(pod), { timeout: '2s' }).reload(context, forever))),
    )
    assert.deepEqual(new Set(errors.map(({ code }) => code)), new Set(['RELOAD_TIMEOUT']))
    assert.equal((await shop.deployment()).metadata.generation, 2)
    assert.equal((await shop.replicaSets()).length, 2)
    assert.equal((await shop.lease()).spec.leaseTransitions, 0)
  })

  test('a replica that rotates while the restart is under way has nothing to ask', async () => {
    const shop = await createShop({ replicas: 2, rules: RESTART, spec: KEEPS_OLD })
    const [first = '', second = ''] = await shop.pods()
    const one = beginReload(restarter(shop.as(first)))
    const at = await until('the restart has begun', () => restartedAt(shop))
    await one.end()
    const two = beginReload(restarter(shop.as(second), { minInterval: '1ms' }))
    const three = restarter(shop.as(second), { minInterval: '1ms', timeout: '300ms' })
    const late = await failure(three.reload(context, forever))
    assert.equal(late.code, 'RELOAD_TIMEOUT')
    assert.match(
      late.message,
      /^Deployment shop-\w+\/web is being restarted, but has not replaced this pod, web-\S+, within 300ms/,
    )
    await two.end()
    // The pod that it waits for ends: nothing has failed.
    await restarter(shop.as(second)).reload(context, AbortSignal.timeout(2_000))
    assert.equal(await restartedAt(shop), at)
    assert.equal((await shop.replicaSets()).length, 2)
  })

  test('a person who restarts the workload spares the replicas the asking', async () => {
    const shop = await createShop({ rules: RESTART, spec: KEEPS_OLD })
    const [pod = ''] = await shop.pods()
    await cluster().kubectl(['-n', shop.namespace, 'rollout', 'restart', 'deployment/web'])
    const at = await restartedAt(shop)
    assert.ok(at)
    await failure(restarter(shop.as(pod), { timeout: '200ms' }).reload(context, forever))
    assert.equal(await restartedAt(shop), at)
  })

  test('a restarted pod gets a fresh certificate and causes no restart; asking again too soon is put off', async () => {
    const shop = await createShop({ replicas: 2, rules: RESTART, spec: REPLACES })
    const old = await shop.pods()
    const reload = beginReload(restarter(shop.as(old[0] ?? '')))
    await until('all pods are replaced', async () => {
      const now = await shop.pods()
      return now.length === 2 && now.every((pod) => !old.includes(pod))
    })
    await reload.end()
    const [pod = ''] = await shop.pods()
    await using sidecar = sidecarIn(shop, pod, { reload: RELOAD })
    await sidecar.once('web', 'has its first certificate', isDone)
    assert.equal((await shop.replicaSets()).length, 2)

    const [result] = await sidecar.sidecar.rotate(['web'], 'test', forever)
    assert.equal(result?.outcome.kind, 'failed')
    const error = result?.outcome.kind === 'failed' ? result.outcome.error : assert.fail()
    assert.equal(error.code, 'RELOAD_DEFERRED')
    assert.match(error.message, /^Deployment \S+\/web was restarted at \S+ by web-\S+, and not again within 8h$/)
    assert.ok((error.retryAfterMs ?? 0) > 7 * 3_600_000)
    assert.equal((await shop.replicaSets()).length, 2)

    const again = beginReload(restarter(shop.as(pod), { minInterval: '1ms' }))
    await until('a third ReplicaSet is there', async () => (await shop.replicaSets()).length === 3)
    await again.end()
    assert.equal((await shop.lease()).spec.leaseTransitions, 1)
  })

  test('a decision whose pod died before the deed is carried out by another, as it stands', async () => {
    const noPatch = RESTART.map((rule) => ({ ...rule, verbs: rule.verbs.filter((verb) => verb !== 'patch') }))
    const shop = await createShop({ replicas: 2, rules: noPatch, spec: KEEPS_OLD })
    const [first = '', second = ''] = await shop.pods()
    const denied = await failure(restarter(shop.as(first)).reload(context, forever))
    assert.equal(denied.code, 'KUBERNETES_DENIED')
    const { annotations } = (await shop.lease()).metadata
    assert.equal(await restartedAt(shop), undefined)
    const other = beginReload(restarter(shop.asAdmin(second)))
    assert.equal(
      await until('the restart has begun', () => restartedAt(shop)),
      annotations['certferry.io/restarted-at'],
    )
    await other.end()
    assert.equal((await shop.lease()).spec.leaseTransitions, 0)
  })

  for (const { verb, resource, rules } of lessOne(RESTART))
    test(`without the verb ${verb} on ${resource} it fails, and says so`, async () => {
      const shop = await createShop({ rules, spec: KEEPS_OLD })
      const [pod = ''] = await shop.pods()
      if (verb === 'update') {
        const other = beginReload(restarter(shop.asAdmin(pod)))
        await until('the restart has begun', () => restartedAt(shop))
        await other.end()
        await cluster().kubectl(['-n', shop.namespace, 'rollout', 'undo', 'deployment/web'])
      }
      const reloader = restarter(shop.as(pod), { minInterval: '1ms' })
      for (const ask of [() => reloader.inspect(), () => reloader.reload(context, forever)]) {
        const error = await failure(ask())
        assert.equal(error.code, 'KUBERNETES_DENIED', error.message)
        assert.ok(error.message.includes(`resources: ["${resource}"], verbs: ["${verb}"]`), error.message)
      }
    })

  test('inspect says what would be restarted, and restarts nothing', async () => {
    const shop = await createShop({ rules: RESTART, spec: KEEPS_OLD })
    const [pod = ''] = await shop.pods()
    const reloader = restarter(shop.as(pod))
    assert.equal(await reloader.inspect(), `restart Deployment ${shop.namespace}/web, which this pod belongs to`)
    assert.equal(await restartedAt(shop), undefined)
    assert.equal(await shop.hasLease(), false)
  })

  test('what would not replace the pod is refused', async () => {
    const shop = await createShop({ rules: RESTART })
    await cluster().kubectl(['-n', shop.namespace, 'rollout', 'pause', 'deployment/web'])
    const { api } = cluster()
    await api('POST', `${shop.core}/pods`, { ...templateOf('x'), metadata: { name: 'bare' } })
    await api('POST', `${shop.apps}/statefulsets`, {
      metadata: { name: 'db' },
      spec: {
        replicas: 1,
        serviceName: 'db',
        selector: { matchLabels: { app: 'x' } },
        template: templateOf('x'),
        updateStrategy: { type: 'OnDelete' },
      },
    })
    await api('POST', `/apis/batch/v1/namespaces/${shop.namespace}/jobs`, {
      metadata: { name: 'once' },
      spec: { template: { spec: { ...templateOf('x').spec, restartPolicy: 'Never' } } },
    })
    const podOf = (owner: string) =>
      until(`a pod of ${owner} is there`, async () => (await shop.pods()).find((name) => name.startsWith(`${owner}-`)))
    const rows: [string, RegExp][] = [
      [
        await podOf('once'),
        /^pod \S+ belongs to Job once \(batch\/v1\); only Deployment, StatefulSet, DaemonSet can be restarted$/,
      ],
      ['bare', /^pod \S+\/bare belongs to no workload; only /],
      [await podOf('db'), /^StatefulSet \S+\/db has the updateStrategy OnDelete: its pods would not be replaced$/],
      [await podOf('web'), /^Deployment \S+\/web is paused: /],
    ]
    for (const [pod, message] of rows) {
      const reloader = restarter(shop.asAdmin(pod))
      for (const ask of [() => reloader.reload(context, forever), () => reloader.inspect()]) {
        const error = await failure(ask())
        assert.equal(error.code, 'RELOAD_BLOCKED', error.message)
        assert.match(error.message, message)
      }
    }
    const gone = await failure(restarter(shop.asAdmin('nobody')).reload(context, forever))
    assert.equal(gone.code, 'KUBERNETES_NOT_FOUND')
  })

  for (const [kind, resource] of [
    ['StatefulSet', 'statefulsets'],
    ['DaemonSet', 'daemonsets'],
  ] as const)
    test(`a pod of a ${kind} is replaced by the restart that it asks for`, async () => {
      const rules = RESTART.flatMap((rule): Rule[] => {
        const [of] = rule.resources
        if (of === 'replicasets') return []
        if (of === 'deployments') return [{ ...rule, resources: [resource], resourceNames: ['db'] }]
        return rule.resourceNames ? [{ ...rule, resourceNames: [`certferry-${kind.toLowerCase()}-db`] }] : [rule]
      })
      const shop = await createShop({ rules })
      if (kind === 'DaemonSet') await addNode(shop.namespace)
      // In order, a StatefulSet would wait for pods that no kubelet makes ready.
      const more = kind === 'StatefulSet' ? { serviceName: 'db', podManagementPolicy: 'Parallel' } : {}
      const spec = { selector: { matchLabels: { app: 'x' } }, template: templateOf('x'), ...more }
      await cluster().api('POST', `${shop.apps}/${resource}`, { metadata: { name: 'db' }, spec })
      const uidOf = async (name: string) =>
        Uid.parse(await cluster().api('GET', `${shop.core}/pods/${name}`)).metadata.uid
      const find = async () => (await shop.pods()).find((name) => name.startsWith('db-'))
      const pod = await until('its pod is there', find)
      const before = await uidOf(pod)
      const reload = beginReload(restarter(shop.as(pod)))
      await until('another pod is there', async () => {
        const now = await find()
        return now !== undefined && (await uidOf(now)) !== before
      })
      await reload.end()
      if (kind === 'DaemonSet') await cluster().api('DELETE', `/api/v1/nodes/${shop.namespace}`)
    })

  for (const [kind, resource] of [
    ['StatefulSet', 'statefulsets'],
    ['DaemonSet', 'daemonsets'],
  ] as const)
    test(`a ${kind} named in the config is restarted, though this pod is not of it, and nobody waits`, async () => {
      const shop = await createShop()
      const [pod = ''] = await shop.pods()
      const more = kind === 'StatefulSet' ? { serviceName: 'proxy' } : {}
      const spec = { selector: { matchLabels: { app: 'x' } }, template: templateOf('x'), ...more }
      await cluster().api('POST', `${shop.apps}/${resource}`, { metadata: { name: 'proxy' }, spec })
      const reloader = restarter(shop.asAdmin(pod), { workload: { kind, name: 'proxy' } })
      assert.equal(await reloader.inspect(), `restart ${kind} ${shop.namespace}/proxy`)
      await reloader.reload(context, forever)
      const { spec: found } = Workload.parse(await cluster().api('GET', `${shop.apps}/${resource}/proxy`))
      assert.ok(found.template.metadata.annotations['kubectl.kubernetes.io/restartedAt'])
      assert.equal((await failure(reloader.reload(context, forever))).code, 'RELOAD_DEFERRED')
    })
})

describe('kubernetes-secret', { skip }, () => {
  const OUTPUT =
    ', { kind: kubernetes-secret, name: web-tls, labels: { team: a }, annotations: { example.com/note: b } }'
  const remote = (api: Kubernetes, more: object = {}): RemoteOutput => {
    const options = outputs.schema.parse({ kind: 'kubernetes-secret', name: 'web-tls', ...more })
    const made = outputs.create(options, { certificate: 'web', now: Date.now, kubernetes: () => api })
    return isRemote(made) ? made : assert.fail()
  }
  const pemOf = (data: Record<string, string>, name: string) => Buffer.from(data[name] ?? '', 'base64').toString()

  test('holds what the files hold, and follows each rotation', async () => {
    const shop = await createShop({ rules: SECRET })
    const [pod = ''] = await shop.pods()
    await using sidecar = sidecarIn(shop, pod, { outputs: OUTPUT })
    const loop = await sidecar.once('web', 'has its certificate', isDone)
    const files = loop.cert.outputs[0]?.directory ?? ''
    const first = await shop.secret()
    assert.equal(first.type, 'kubernetes.io/tls')
    for (const name of ['tls.crt', 'tls.key', 'ca.crt'])
      assert.equal(pemOf(first.data, name), readFileSync(join(files, name), 'utf8'), name)
    const bundle = loop.cert.store.current
    assert.partialDeepStrictEqual(first.metadata, {
      labels: { 'app.kubernetes.io/managed-by': 'certferry', team: 'a' },
      annotations: {
        'example.com/note': 'b',
        'certferry.io/certificate': 'web',
        'certferry.io/serial': bundle?.serial,
        'certferry.io/fingerprint': bundle?.fingerprint,
        'certferry.io/not-after': new Date(bundle?.notAfter ?? 0).toISOString(),
        'certferry.io/pod': pod,
      },
    })
    await sidecar.sidecar.rotate(['web'], 'test', forever)
    const second = await shop.secret()
    const leaf = new X509Certificate(pemOf(second.data, 'tls.crt'))
    assert.equal(leaf.serialNumber.toLowerCase(), serialOf(loop))
    assert.notEqual(second.data['tls.crt'], first.data['tls.crt'])
    assert.deepEqual(failed(sidecar), [])
    const published = sidecar.events.filter(({ name }) => name === 'certificate.published')
    assert.equal(published.length, 2)
  })

  test('comes back by itself when it is deleted, and when somebody changes it', async () => {
    const shop = await createShop({ rules: SECRET })
    const [pod = ''] = await shop.pods()
    await using sidecar = sidecarIn(shop, pod, { outputs: OUTPUT, ttl: '100s' })
    await sidecar.once('web', 'has its certificate', isDone)
    const path = `${shop.core}/secrets/web-tls`
    const { data } = await shop.secret()
    await cluster().api('DELETE', path)
    await until('it is back', () => shop.secret())
    await cluster().api('PATCH', path, { data: { 'tls.crt': 'AAAA', other: 'b3RoZXI=' } })
    const repaired = await until('it is right again', async () => {
      const found = await shop.secret()
      return found.data['tls.crt'] === data['tls.crt'] ? found : undefined
    })
    assert.equal(repaired.data.other, 'b3RoZXI=', 'what others added stays')
    const told = sidecar.events.flatMap(({ name, event }) => (name === 'tamper.repaired' ? [event] : []))
    assert.deepEqual(told, [
      { certificate: 'web', path: 'Secret web-tls', what: 'missing' },
      { certificate: 'web', path: 'Secret web-tls', what: 'content' },
    ])
  })

  test('that belongs to somebody else is left alone, and so is one of another type', async () => {
    const shop = await createShop({ rules: SECRET })
    const { bundle } = await ca.issue()
    const path = `${shop.core}/secrets`
    await cluster().api('POST', path, { metadata: { name: 'web-tls' }, type: 'Opaque', data: { theirs: 'eA==' } })
    const [pod = ''] = await shop.pods()
    const output = remote(shop.as(pod))
    for (const ask of [() => output.publish(bundle, forever), () => output.inspect(forever)]) {
      const error = await failure(ask())
      assert.equal(error.code, 'FOREIGN_OBJECT')
      assert.match(error.message, /^Secret \S+\/web-tls belongs to somebody else; delete it, or name another one$/)
    }
    await cluster().api('PATCH', `${path}/web-tls`, {
      metadata: { labels: { 'app.kubernetes.io/managed-by': 'certferry' } },
    })
    assert.match(
      (await failure(output.publish(bundle, forever))).message,
      /has the type Opaque, not kubernetes\.io\/tls/,
    )
    assert.deepEqual((await shop.secret()).data, { theirs: 'eA==' })
  })

  test('of replicas with a certificate each it holds the newest, and they do not take turns', async () => {
    const shop = await createShop({ replicas: 2, rules: SECRET })
    const [a = '', b = ''] = await shop.pods()
    const [one, two] = [remote(shop.as(a)), remote(shop.as(b))]
    const older = (await ca.issue({ notBefore: new Date(Date.now() - 120_000) })).bundle
    const newer = (await ca.issue({ notBefore: new Date(Date.now() - 60_000) })).bundle
    assert.equal(await one.publish(older, forever), 'missing')
    assert.equal(await two.publish(newer, forever), 'content')
    const { resourceVersion } = (await shop.secret()).metadata
    for (let round = 0; round < 3; round += 1)
      for (const [output, bundle] of [
        [one, older],
        [two, newer],
      ] as const)
        assert.equal(await output.publish(bundle, forever), undefined)
    assert.equal((await shop.secret()).metadata.resourceVersion, resourceVersion)
    assert.equal(await two.publish(older, forever), 'content', 'its own it may take back')
    await cluster().api('PATCH', `${shop.core}/secrets/web-tls`, { data: { 'tls.key': 'AAAA' } })
    assert.equal(await one.publish(older, forever), 'content', 'whoever comes first mends it')
  })

  test('that has expired there is replaced by an older one that is valid', async () => {
    const shop = await createShop({ replicas: 2, rules: SECRET })
    const [a = '', b = ''] = await shop.pods()
    const older = (await ca.issue({ notBefore: new Date(Date.now() - 7_200_000) })).bundle
    const expired = await ca.issue({
      notBefore: new Date(Date.now() - 3_600_000),
      notAfter: new Date(Date.now() - 60_000),
    })
    await remote(shop.as(b)).publish(expired.bundle, forever)
    assert.equal(await remote(shop.as(a)).publish(older, forever), 'content')
  })

  test('goes with the workload that owns it', async () => {
    const shop = await createShop()
    const [pod = ''] = await shop.pods()
    const output = remote(shop.asAdmin(pod), { owner: 'workload' })
    await output.publish((await ca.issue()).bundle, forever)
    assert.equal((await shop.secret()).type, 'kubernetes.io/tls')
    await cluster().kubectl(['-n', shop.namespace, 'delete', 'deployment', 'web'])
    await until('the Secret is gone', async () => !(await shop.hasSecret()))
  })

  for (const { verb, rules } of lessOne(SECRET))
    test(`without the verb ${verb} it fails, and says so`, async () => {
      const shop = await createShop({ rules })
      const [pod = ''] = await shop.pods()
      const output = remote(shop.as(pod))
      const { bundle } = await ca.issue()
      for (const ask of [() => output.inspect(forever), () => output.publish(bundle, forever)]) {
        const error = await failure(ask())
        assert.equal(error.code, 'KUBERNETES_DENIED')
        assert.ok(error.message.includes(`verbs: ["${verb}"], resourceNames: ["web-tls"]`), error.message)
      }
    })

  test('a Role for one name cannot make another Secret', async () => {
    const shop = await createShop({ rules: SECRET })
    const [pod = ''] = await shop.pods()
    const { bundle } = await ca.issue()
    assert.equal(await remote(shop.as(pod)).publish(bundle, forever), 'missing')
    const error = await failure(remote(shop.as(pod), { name: 'other' }).publish(bundle, forever))
    assert.equal(error.code, 'KUBERNETES_DENIED')
  })

  test('plan names it, and what stands in its way', async () => {
    const shop = await createShop({ rules: SECRET })
    const [pod = ''] = await shop.pods()
    await using sidecar = sidecarIn(shop, pod, { outputs: OUTPUT, reload: RELOAD })
    await sidecar.once('web', 'has its certificate', isDone)
    const stdout = new PassThrough()
    const io = {
      stdout,
      stderr: new PassThrough(),
      env: {},
      self: [],
      signal: forever,
      onHangup: () => {},
      process,
      releaseSignals: () => process,
    }
    await plan(sidecar.file, { json: true }, io)
    const [{ write = [], tell = [] } = {}] = z
      .array(z.object({ write: z.array(z.string()), tell: z.array(z.string()) }))
      .parse(JSON.parse(String(stdout.read())))
    assert.match(write[1] ?? '', new RegExp(`^Secret ${shop.namespace}/web-tls is there, serial [0-9a-f]+ until 2`))
    assert.match(tell[0] ?? '', /^restart of the workload of this pod: not now, cannot get pods /)
  })

  test('an API server that is away keeps no target from its certificate', async () => {
    const shop = await createShop({ rules: [] })
    const [pod = ''] = await shop.pods()
    const told = join(folder, 'told')
    const reload = `    reload: [{ kind: exec, command: [sh, -c, 'echo $CERTFERRY_SERIAL >> ${told}'] }]`
    await using sidecar = sidecarIn(shop, pod, { outputs: OUTPUT, reload })
    await until('the failure is told', () => failed(sidecar).length > 0)
    assert.equal(readFileSync(told, 'utf8').trim().split('\n')[0], sidecar.loop('web').cert.store.current?.serial)
    await shop.allow(SECRET)
    await until('the role is in force', () => isAllowed(shop.as(pod), SECRET))
    sidecar.sidecar.retry()
    await sidecar.once('web', 'is published', isDone)
    assert.equal((await shop.secret()).metadata.annotations['certferry.io/serial'], serialOf(sidecar.loop('web')))
  })
})

describe('Kubernetes Events', { skip }, () => {
  /** The service of `certferry run`, in a pod. */
  async function serviceIn(shop: Shop, pod: string, source: string) {
    const own = mkdtempSync(join(folder, 'pod-'))
    const file = join(own, 'c.yaml')
    const text = `
kubernetes: { apiServer: '${cluster().url}', caFile: ${cluster().caFile}, tokenFile: ${shop.tokenFile}, namespace: ${shop.namespace}, pod: ${pod}, events: true }
certificates:
  - { name: web, source: ${source.replaceAll('OWN', own)}, outputs: [{ kind: pem, directory: ${own}/tls }] }
`
    writeFileSync(file, text, { mode: 0o600 })
    const { metadata } = Uid.parse(await cluster().api('GET', `${shop.core}/pods/${pod}`))
    const lines: string[] = []
    const destination = new PassThrough()
    destination.on('data', (chunk) => lines.push(String(chunk)))
    const env = { POD_UID: metadata.uid, PATH: process.env.PATH }
    const service = await openService(loadConfig(file, env), { clock: systemClock, env, destination })
    return { service, file, lines: () => lines.join(''), [Symbol.asyncDispose]: () => service[Symbol.asyncDispose]() }
  }
  const DEV_CA = '{ kind: dev-ca, directory: OWN/ca, commonName: web.example }'

  test('kubectl describe shows what happened to the certificate', async () => {
    const shop = await createShop({ rules: EVENTS })
    const [pod = ''] = await shop.pods()
    await using running = await serviceIn(shop, pod, DEV_CA)
    await until('the rotation is an event', async () =>
      (await shop.events()).some(({ reason }) => reason === 'CertificateRotated'),
    )
    writeFileSync(running.file, 'certificates: no', { mode: 0o600 })
    await running.service.refresh()
    await until('the refusal is an event', async () =>
      (await shop.events()).some(({ reason }) => reason === 'ConfigRejected'),
    )
    const stdout = await cluster().kubectl(['-n', shop.namespace, 'describe', 'pod', pod])
    assert.match(stdout, /Normal\s+CertificateRotated\s+\S+\s+certferry\s+web: serial [0-9a-f]+, valid until/)
    assert.match(stdout, /Warning\s+ConfigRejected\s+\S+\s+certferry\s+the new config is rejected/)
  })

  test('a rotation by hand again and again is one event with a count', async () => {
    const shop = await createShop({ rules: EVENTS })
    const [pod = ''] = await shop.pods()
    await using running = await serviceIn(shop, pod, DEV_CA)
    for (let n = 0; n < 5; n += 1)
      await running.service.control.rotate({ certificates: 'all', reason: 'test', wait: true }, forever)
    const ours = async () => (await shop.events()).filter(({ reason }) => reason === 'CertificateRotated')
    await until('all are counted', async () => (await ours())[0]?.count === 6)
    assert.equal((await ours()).length, 1)
  })

  test('what waits is sent at a stop', async () => {
    const shop = await createShop({ rules: EVENTS })
    const [pod = ''] = await shop.pods()
    const running = await serviceIn(shop, pod, DEV_CA)
    await running.service.control.rotate({ certificates: 'all', reason: 'test', wait: true }, forever)
    await running[Symbol.asyncDispose]()
    const [event] = (await shop.events()).filter(({ reason }) => reason === 'CertificateRotated')
    assert.equal(event?.count, 2)
  })

  for (const { verb, rules } of lessOne(EVENTS))
    test(`without the verb ${verb} the log says so, and rotations go on`, async () => {
      const shop = await createShop({ rules })
      const [pod = ''] = await shop.pods()
      await using running = await serviceIn(shop, pod, DEV_CA)
      const rotate = () => running.service.control.rotate({ certificates: 'all', reason: 'test', wait: true }, forever)
      assert.deepEqual(
        (await rotate()).results.map(({ ok }) => ok),
        [true],
      )
      await until('it is told', async () => {
        await rotate()
        return running.lines().includes(`verbs: [\\"${verb}\\"]`) && running.lines().includes('kubernetes.events-lost')
      })
      assert.equal(running.lines().includes('rotation.failed'), false)
    })
})

describe('a certificate in a Secret that somebody else writes', { skip }, () => {
  const source = '{ kind: kubernetes-secret, name: web-tls, poll: 1h }'
  const put = async (shop: Shop, method: 'POST' | 'PATCH') => {
    const { certificatePem, chainPems, keyPem, bundle } = await ca.issue({ withIntermediate: true })
    const stringData = { 'tls.crt': certificatePem + chainPems[0], 'tls.key': keyPem, 'ca.crt': ca.rootPem }
    const secret = { metadata: { name: 'web-tls' }, type: 'kubernetes.io/tls', stringData }
    await cluster().api(method, `${shop.core}/secrets${method === 'POST' ? '' : '/web-tls'}`, secret)
    return bundle.serial
  }

  test('is waited for, and followed at once, with get and watch of that name alone', async () => {
    const shop = await createShop({ rules: SOURCE })
    await using running = sidecarIn(shop, 'web-0', { source })
    const isMissing = () => running.loop('web').report?.state.failure?.code === 'KUBERNETES_NOT_FOUND'
    await until('it is missed', isMissing)
    const first = await put(shop, 'POST')
    await running.once('web', 'is the first one', (loop) => serialOf(loop) === first)
    for (let count = 0; count < 3; count++) {
      const next = await put(shop, 'PATCH')
      await running.once('web', 'is the next one', (loop) => serialOf(loop) === next)
    }
    await cluster().api('DELETE', `${shop.core}/secrets/web-tls`)
    await until('it is missed again', isMissing)
    const again = await put(shop, 'POST')
    await running.once('web', 'is the one made anew', (loop) => serialOf(loop) === again)
    assert.deepEqual(
      running.events.filter(({ name }) => name === 'source.warning'),
      [],
    )
  })

  test('that may not be watched is read, and the rule that lacks is told', async () => {
    const shop = await createShop({ rules: [{ ...(SOURCE[0] ?? assert.fail()), verbs: ['get'] }] })
    const serial = await put(shop, 'POST')
    await using running = sidecarIn(shop, 'web-0', { source })
    await running.once('web', 'is read', (loop) => serialOf(loop) === serial)
    const warning = () => running.events.find(({ name }) => name === 'source.warning')?.event
    const told = await until('it is told', warning)
    assert.ok('message' in told)
    assert.match(
      told.message,
      /cannot watch secrets shop-\w+\/web-tls \(403 Forbidden\).*verbs: \["watch"\], resourceNames/,
    )
  })
})
