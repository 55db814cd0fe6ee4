import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { parse, parseAllDocuments } from 'yaml'
import * as z from 'zod'
import { loadConfig } from '../../src/config/config.ts'
import { Defaults, MARKS } from '../../src/injector/annotations.ts'
import { type InjectorContext, injectPod } from '../../src/injector/inject.ts'
import { injectManifests } from '../../src/injector/manifests.ts'
import { Pod, SIDECAR } from '../../src/injector/pod.ts'
import { leaseName } from '../../src/kubernetes/lease.ts'
import { laggingManifests } from '../../tools/manifests.ts'
import { ROOT } from '../../tools/packages.ts'
import { component, skipReason } from '../support/components.ts'
import { writeSchemas } from '../support/kubeconform.ts'
import { CONTROL_PLANE, startKubernetes, type TestKubernetes, VAULT_AUDIENCE } from '../support/kubernetes.ts'
import { freePort } from '../support/nginx.ts'
import { type Running, startProgram, until } from '../support/program.ts'
import { signOnly, startVault } from '../support/vault.ts'
import { setupPodLogin } from '../support/vault-kubernetes.ts'

const CHART = join(ROOT, 'charts/certferry')
const EXAMPLES = join(ROOT, 'examples/kubernetes')
const ACCOUNT = 'system:serviceaccount:certferry:certferry-injector'

const folder = await mkdtemp(join(tmpdir(), 'certferry-chart-'))
after(() => rm(folder, { recursive: true, force: true }))
const skip = await skipReason(...CONTROL_PLANE, 'helm', 'kubeconform', 'kube-score')
const needs = { skip }
const started = skip ? undefined : await startKubernetes()
after(() => started?.[Symbol.asyncDispose]())
for (const namespace of ['certferry', 'shop', 'restricted']) await started?.createNamespace(namespace)
await started?.createServiceAccount('default', 'kube-system')

function cluster(): TestKubernetes {
  assert.ok(started, 'the cluster of this file is there')
  return started
}

interface Result {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}
type Program = 'kubectl' | 'helm' | 'kubeconform' | 'kube-score'

/** Runs to the end, against the cluster of this file; whatever the exit code. */
async function run(program: Program, args: readonly string[], input?: string): Promise<Result> {
  const { PATH, HOME } = process.env
  const env = {
    PATH,
    HOME,
    KUBECONFIG: cluster().kubeconfig,
    HELM_CACHE_HOME: folder,
    HELM_CONFIG_HOME: folder,
    HELM_DATA_HOME: folder,
  }
  const running = promisify(execFile)(await component(program), [...args], { env, cwd: ROOT, maxBuffer: 64 * 2 ** 20 })
  running.child.stdin?.end(input)
  return running.then(
    (output) => ({ code: 0, ...output }),
    (error: unknown) => Failed.parse(error),
  )
}
const Failed = z.object({ code: z.number(), stdout: z.string(), stderr: z.string() })

async function succeed(program: Program, args: readonly string[], input?: string): Promise<Result> {
  const result = await run(program, args, input)
  assert.equal(result.code, 0, `${program} ${args.join(' ')}\n${result.stdout}${result.stderr}`)
  return result
}

const kubectl = (...args: readonly string[]) => cluster().kubectl(args)

type Values = Readonly<Record<string, unknown>>

let files = 0
async function valuesFile(values: Values): Promise<string> {
  files += 1
  const file = join(folder, `values-${files}.json`)
  await writeFile(file, JSON.stringify(values))
  return file
}

/** What an API server of the version would be given. */
const template = async (values: Values, { version = '1.36.3', chart = CHART } = {}) =>
  run('helm', [
    'template',
    'certferry',
    chart,
    '-n',
    'certferry',
    '--kube-version',
    version,
    '-f',
    await valuesFile(values),
  ])

async function rendered(values: Values, version?: string): Promise<string> {
  const { code, stdout, stderr } = await template(values, version === undefined ? {} : { version })
  assert.equal(code, 0, stderr)
  return stdout
}

const KubernetesObject = z.looseObject({
  kind: z.string(),
  metadata: z.looseObject({ name: z.string(), namespace: z.string().optional() }),
})
function objectsOf(stream: string) {
  const documents = parseAllDocuments(stream)
  assert.ok(!('empty' in documents))
  return documents.map((document) => KubernetesObject.parse(document.toJS()))
}

/** Of the values that matter for one another, every one at least once away from its default. */
const VALUE_SETS: Readonly<Record<string, Values>> = {
  defaults: {},
  'Vault for all pods': {
    vault: {
      address: 'https://vault.vault.svc:8200',
      role: 'web',
      namespace: 'team',
      serverName: 'vault',
      ca: '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n',
    },
    sidecar: {
      image: { tag: '9.9.9' },
      nativeSidecars: false,
      vaultAnnotations: true,
      defaults: { 'metrics-port': 9444, scrape: false, 'log-level': 'debug' },
    },
  },
  'a certificate from Vault': {
    vault: {
      address: 'https://vault.vault.svc:8200',
      authPath: 'k8s/one',
      ca: '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
    },
    certificate: {
      source: 'vault-pki',
      ttl: '12h',
      vaultPki: { mount: 'pki_int', role: 'injector', authRole: 'injector' },
    },
    networkPolicy: { egress: { enabled: true } },
  },
  'everything that has a switch': {
    replicaCount: 3,
    image: {
      repository: 'registry.example.com:5000/a/certferry',
      digest: `sha256:${'0'.repeat(64)}`,
      pullPolicy: 'Always',
    },
    imagePullSecrets: [{ name: 'registry' }],
    fullnameOverride: 'tls',
    webhook: {
      failurePolicy: 'Ignore',
      timeoutSeconds: 10,
      reinvocationPolicy: 'Never',
      excludedNamespaces: [],
      port: 10250,
      namespaceSelector: {
        matchLabels: { certificates: 'yes' },
        matchExpressions: [{ key: 'team', operator: 'Exists' }],
      },
      objectSelector: { matchLabels: { tls: 'yes' } },
      matchConditions: [{ name: 'not-for-the-kubelet', expression: "!('system:nodes' in request.userInfo.groups)" }],
      annotations: { a: 'b' },
    },
    service: { annotations: { a: 'b' } },
    serviceAccount: { name: 'own', annotations: { a: 'b' } },
    workloadRoles: {
      bindings: [
        { namespace: 'shop', serviceAccount: 'web', roles: ['events', 'rollout-restart', 'kubernetes-secret'] },
      ],
    },
    log: { level: 'debug', format: 'pretty' },
    extraEnv: [{ name: 'TZ', value: 'UTC' }],
    extraVolumes: [{ name: 'more', emptyDir: {} }],
    extraVolumeMounts: [{ name: 'more', mountPath: '/more' }],
    commonLabels: { team: 'a' },
    deploymentAnnotations: { a: 'b' },
    podAnnotations: { a: 'b' },
    podLabels: { a: 'b' },
    priorityClassName: 'system-cluster-critical',
    nodeSelector: { 'kubernetes.io/os': 'linux' },
    tolerations: [{ operator: 'Exists' }],
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [{ matchExpressions: [{ key: 'a', operator: 'Exists' }] }],
        },
      },
    },
    topologySpreadConstraints: [
      {
        maxSkew: 2,
        topologyKey: 'kubernetes.io/hostname',
        whenUnsatisfiable: 'DoNotSchedule',
        labelSelector: { matchLabels: { a: 'b' } },
      },
    ],
    podDisruptionBudget: { maxUnavailable: '50%' },
    networkPolicy: {
      webhookFrom: [{ ipBlock: { cidr: '10.0.0.0/8' } }],
      metricsFrom: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }],
      egress: {
        enabled: true,
        apiServer: { ports: [16443], to: [{ ipBlock: { cidr: '10.0.0.1/32' } }] },
        extra: [{ ports: [{ port: 3128 }] }],
      },
    },
    metrics: {
      port: 9100,
      podMonitor: { enabled: true, labels: { release: 'prometheus' } },
      serviceMonitor: { enabled: true, interval: '1m' },
      sidecarPodMonitor: { enabled: true },
    },
  },
  // As docs/kubernetes.md says it.
  'users that the platform chooses': {
    podSecurityContext: { runAsUser: null, runAsGroup: null, fsGroup: null },
    securityContext: { runAsUser: null, runAsGroup: null },
    sidecar: { defaults: { 'set-security-context': 'false' } },
  },
  'everything that can be switched off': {
    serviceAccount: { create: false, name: 'given' },
    rbac: { create: false },
    podDisruptionBudget: { enabled: false },
    networkPolicy: { enabled: false },
    topologySpreadConstraints: [],
    hostNetwork: true,
    replicaCount: 1,
  },
}

test('helm lint --strict finds nothing', needs, async () => {
  for (const values of Object.values(VALUE_SETS)) {
    const { stdout } = await succeed('helm', [
      'lint',
      '--strict',
      '--kube-version',
      '1.36.3',
      CHART,
      '-f',
      await valuesFile(values),
    ])
    assert.doesNotMatch(stdout, /\[(WARNING|ERROR)\]/)
  }
})

let schemas: Promise<string> | undefined
const schemaLocation = () => {
  schemas ??= kubectl('get', '--raw', '/openapi/v2').then((text) =>
    writeSchemas(JSON.parse(text), join(folder, 'schemas')),
  )
  return schemas
}
/** Of another project, so not in what the API server says of itself. */
const FOREIGN = 'PodMonitor,ServiceMonitor'
const kubeconform = async (manifests: string) =>
  run(
    'kubeconform',
    ['-strict', '-summary', '-skip', FOREIGN, '-schema-location', await schemaLocation(), '-'],
    manifests,
  )

const dryRun = async (manifests: string) =>
  run('kubectl', ['apply', '--dry-run=server', '--validate=strict', '-f', '-'], manifests)

for (const [name, values] of Object.entries(VALUE_SETS)) {
  test(`with ${name} all objects are valid, for their schemas and for the API server`, needs, async () => {
    const manifests = await rendered(values)
    const { code, stdout } = await kubeconform(manifests)
    assert.equal(code, 0, stdout)
    const known = manifests
      .split(/^---\n/m)
      .filter((object) => !FOREIGN.split(',').some((kind) => object.includes(`kind: ${kind}\n`)))
    const applied = await dryRun(known.join('---\n'))
    assert.equal(applied.code, 0, applied.stderr)
  })

  test(`with ${name} the config of the injector is one that certferry takes`, needs, async () => {
    const config = objectsOf(await rendered(values)).find(({ kind }) => kind === 'ConfigMap')
    const { data } = z.object({ data: z.record(z.string(), z.string()) }).parse(config)
    const file = join(folder, 'config.yaml')
    await writeFile(file, data['config.yaml'] ?? '', { mode: 0o600 })
    assert.equal(loadConfig(file, {}).certificates[0]?.name, 'injector')
  })
}

test('what the values say for all pods are defaults that the injector takes', needs, async () => {
  const config = objectsOf(await rendered(VALUE_SETS['Vault for all pods'] ?? {})).find(
    ({ kind }) => kind === 'ConfigMap',
  )
  const text = z.object({ data: z.record(z.string(), z.string()) }).parse(config).data['config.yaml'] ?? ''
  const { defaults } = z.object({ injector: z.object({ defaults: Defaults }) }).parse(parse(text)).injector
  assert.deepEqual(defaults, {
    'vault-address': 'https://vault.vault.svc:8200',
    'vault-role': 'web',
    'vault-namespace': 'team',
    'vault-server-name': 'vault',
    'vault-ca': '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
    'auth-path': 'kubernetes',
    'token-audience': 'vault',
    'metrics-port': '9444',
    scrape: 'false',
    'log-level': 'debug',
  })
})

test('what is misspelt in a manifest, kubeconform finds with the schemas of this API server', needs, async () => {
  const { code, stdout } = await kubeconform((await rendered({})).replace('  replicas:', '  replicsa:'))
  assert.equal(code, 1)
  assert.match(stdout, /additional properties 'replicsa' not allowed/)
})

/** A pull policy is a value, and pods are spread by topologySpreadConstraints. */
const NOT_SCORED = ['container-image-pull-policy', 'deployment-has-host-podantiaffinity']

test('kube-score has no complaint', needs, async () => {
  const ignored = NOT_SCORED.flatMap((check) => ['--ignore-test', check])
  const values = { networkPolicy: { egress: { enabled: true } } }
  const { stdout } = await succeed(
    'kube-score',
    [
      'score',
      '--ignore-container-cpu-limit',
      '--kubernetes-version',
      'v1.30',
      '-o',
      'ci',
      '--exit-one-on-warning',
      ...ignored,
      '-',
    ],
    await rendered(values),
  )
  assert.match(stdout, /^\[OK\] certferry-injector/m)
})

const WRONG: readonly (readonly [Values, RegExp])[] = [
  [{ replicas: 2 }, /additional properties 'replicas' not allowed/],
  [{ webhook: { failurepolicy: 'Fail' } }, /additional properties 'failurepolicy' not allowed/],
  [{ webhook: { failurePolicy: 'fail' } }, /failurePolicy.*must be one of 'Fail', 'Ignore'/s],
  [{ webhook: { timeoutSeconds: 31 } }, /timeoutSeconds.*maximum/s],
  [{ replicaCount: 0 }, /replicaCount.*minimum/s],
  [{ image: { repository: '' } }, /repository/],
  [{ image: { digest: 'latest' } }, /digest.*does not match pattern/s],
  [{ vault: { address: 'http://vault.vault.svc:8200' } }, /address.*does not match pattern/s],
  [{ vault: { ca: '/etc/ca.pem' } }, /ca.*does not match pattern/s],
  [{ certificate: { source: 'cert-manager' } }, /source.*must be one of 'dev-ca', 'vault-pki'/s],
  [{ certificate: { ttl: '1 day' } }, /ttl.*does not match pattern/s],
  [{ sidecar: { defaults: { 'certferry.io/vault-role': 'web' } } }, /certferry\.io\/vault-role/],
  [{ workloadRoles: { bindings: [{ namespace: 'shop', serviceAccount: 'web', roles: ['admin'] }] } }, /roles/],
  [{ certificate: { source: 'vault-pki' } }, /vault\.address: is needed where certificate\.source is vault-pki/],
  [
    { vault: { address: 'https://v' }, certificate: { source: 'vault-pki', vaultPki: { role: 'web' } } },
    /certificate\.vaultPki\.authRole: is needed/,
  ],
  [{ serviceAccount: { create: false } }, /serviceAccount\.name: is needed/],
]

test('a value that is wrong is refused, with a message that names it', needs, async () => {
  for (const [values, message] of WRONG) {
    const { code, stderr } = await template(values)
    assert.equal(code, 1, JSON.stringify(values))
    assert.match(stderr, message, JSON.stringify(values))
  }
})

test('the chart may be a part of another one', needs, async () => {
  const umbrella = join(folder, 'umbrella')
  await mkdir(join(umbrella, 'charts'), { recursive: true })
  const dependency = { name: 'certferry', version: '>=0.0.0-0', condition: 'certferry.enabled' }
  await writeFile(
    join(umbrella, 'Chart.yaml'),
    JSON.stringify({ apiVersion: 'v2', name: 'shop', version: '1.0.0', dependencies: [dependency] }),
  )
  await cp(CHART, join(umbrella, 'charts/certferry'), { recursive: true })
  const { code, stdout, stderr } = await template(
    { global: { team: 'a' }, certferry: { enabled: true } },
    { chart: umbrella },
  )
  assert.equal(code, 0, stderr)
  assert.match(stdout, /kind: MutatingWebhookConfiguration/)
})

const Labels = z.record(z.string(), z.string())
const Port = z.object({ name: z.string(), containerPort: z.int() })
const DeploymentObject = z.object({
  metadata: z.object({ namespace: z.string() }),
  spec: z.object({
    selector: z.object({ matchLabels: Labels }),
    template: z.object({
      metadata: z.object({ labels: Labels }),
      spec: z.object({ serviceAccountName: z.string(), containers: z.tuple([z.object({ ports: z.array(Port) })]) }),
    }),
  }),
})
const Endpoints = z.array(z.object({ port: z.string() })).default([])
const Reference = z.object({
  spec: z.object({
    selector: z
      .union([z.object({ matchLabels: Labels }).transform(({ matchLabels }) => matchLabels), Labels])
      .optional(),
    podSelector: z.object({ matchLabels: Labels }).optional(),
    ports: z.array(z.object({ targetPort: z.string() })).default([]),
    podMetricsEndpoints: Endpoints,
    endpoints: Endpoints,
    ingress: z.array(z.object({ ports: z.array(z.object({ port: z.int() })) })).default([]),
  }),
})
const WebhookObject = z.object({
  webhooks: z.tuple([
    z.object({ clientConfig: z.object({ service: z.object({ name: z.string(), namespace: z.string() }) }) }),
  ]),
})

for (const [name, values] of Object.entries(VALUE_SETS)) {
  test(`with ${name} whatever an object says of another one is so`, needs, async () => {
    const objects = objectsOf(await rendered(values))
    const of = (kind: string) => objects.filter((object) => object.kind === kind)
    const { metadata, spec } = DeploymentObject.parse(of('Deployment')[0])
    const { labels } = spec.template.metadata
    const { ports } = spec.template.spec.containers[0]
    const matches = (selector: Readonly<Record<string, string>> = {}) =>
      Object.entries(selector).length >= 3 && Object.entries(selector).every(([key, value]) => labels[key] === value)
    assert.ok(matches(spec.selector.matchLabels))
    const about = ['Service', 'PodDisruptionBudget', 'NetworkPolicy', 'PodMonitor', 'ServiceMonitor'].flatMap(of)
    for (const object of about.filter((each) => !each.metadata.name.endsWith('-sidecars'))) {
      const said = Reference.parse(object).spec
      assert.ok(matches(said.selector ?? said.podSelector?.matchLabels), `${object.kind} selects the pods`)
      const wanted = [
        ...said.ports.map(({ targetPort }) => targetPort),
        ...said.podMetricsEndpoints.map(({ port }) => port),
        ...said.endpoints.map(({ port }) => port),
      ]
      const open = said.ingress.flatMap((rule) => rule.ports.map(({ port }) => port))
      for (const port of wanted)
        assert.ok(
          ports.some((each) => each.name === port),
          `${object.kind}: port ${port}`,
        )
      if (open.length > 0)
        assert.deepEqual(
          open,
          ports.map(({ containerPort }) => containerPort),
        )
    }
    const [webhook] = WebhookObject.parse(of('MutatingWebhookConfiguration')[0]).webhooks
    assert.deepEqual(webhook.clientConfig.service.name, of('Service')[0]?.metadata.name)
    assert.equal(webhook.clientConfig.service.namespace, metadata.namespace)
    const accounts = of('ServiceAccount').map((account) => account.metadata.name)
    assert.deepEqual(accounts, accounts.length > 0 ? [spec.template.spec.serviceAccountName] : [])
  })
}

test('the PodMonitor of the sidecars asks the port that the injector gives them', needs, async () => {
  const objects = objectsOf(await rendered({ metrics: { sidecarPodMonitor: { enabled: true } } }))
  const { podMetricsEndpoints } = Reference.parse(objects.find(({ kind }) => kind === 'PodMonitor')).spec
  const { pod } = injectedPod()
  assert.deepEqual(
    podMetricsEndpoints.map(({ port }) => port),
    pod.spec.initContainers?.find(({ name }) => name === SIDECAR)?.ports?.map(({ name }) => name),
  )
})

const CONTEXT: InjectorContext = {
  image: 'certferry',
  nativeSidecars: true,
  vaultAnnotations: false,
  ownNamespace: undefined,
  defaults: { 'vault-address': 'https://vault.vault.svc:8200', 'vault-role': 'web' },
}

function injectedPod() {
  const injection = injectPod(Pod.parse(pod({ namespace: 'shop', annotations: ASKING })), CONTEXT)
  assert.equal(injection.kind, 'injected')
  return injection
}

test('before Kubernetes 1.28 the webhook is not let near every pod', needs, async () => {
  const refused = await template({}, { version: '1.27.16' })
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /set webhook\.objectSelector, or webhook\.failurePolicy to Ignore/)
  for (const webhook of [{ failurePolicy: 'Ignore' }, { objectSelector: { matchLabels: { certferry: 'yes' } } }])
    assert.doesNotMatch(await rendered({ webhook }, '1.27.16'), /matchConditions|preStop/)
})

test('the API server asks about a pod where the injector finds an annotation, and about no other', needs, async () => {
  const manifests = await rendered({})
  for (const mark of MARKS) assert.ok(manifests.includes(`'${mark}'`), mark)
})

test('the manifests that are made from the chart are up to date (if not: npm run manifests)', needs, async () => {
  assert.deepEqual(await laggingManifests(), [])
})

const list = (items: readonly object[]) => JSON.stringify({ apiVersion: 'v1', kind: 'List', items })

/** A release of its own for one test. */
async function install(values: Values = {}, namespace = 'certferry') {
  const upgrade = async (next: Values) =>
    succeed('helm', ['upgrade', '--install', 'certferry', CHART, '-n', namespace, '-f', await valuesFile(next)])
  const { stdout } = await upgrade(values)
  return {
    notes: stdout,
    upgrade,
    [Symbol.asyncDispose]: async () => {
      await succeed('helm', ['uninstall', 'certferry', '-n', namespace, '--ignore-not-found'])
    },
  }
}

const WEBHOOK = ['mutatingwebhookconfiguration', 'certferry-injector'] as const
const patchWebhook = (...operations: readonly object[]) =>
  kubectl('patch', ...WEBHOOK, '--type=json', '--patch', JSON.stringify(operations))

/** Where nobody listens: the discard port, which takes a right to open. */
const lookForNobody = () =>
  patchWebhook({ op: 'replace', path: '/webhooks/0/clientConfig', value: { url: 'https://127.0.0.1:9/mutate' } })

interface PodWish {
  readonly namespace?: string
  readonly annotations?: Readonly<Record<string, string>>
}
const makePod = ({ namespace = 'shop', annotations = {} }: PodWish) =>
  run(
    'kubectl',
    ['create', '--dry-run=server', '-o', 'json', '-f', '-'],
    JSON.stringify(pod({ namespace, annotations })),
  )

const pod = ({ namespace, annotations }: Required<PodWish>) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'web', namespace, annotations },
  spec: { containers: [{ name: 'web', image: 'web' }] },
})

const ASKING = { 'certferry.io/certificate.web': 'pki/sign/web?common_name=web.example.com' }
const FROM_VAULT = { 'vault.hashicorp.com/agent-inject': 'true' }

test(
  'without an injector a pod that asks for a certificate is refused, and every other one is made',
  needs,
  async () => {
    await using _release = await install()
    await lookForNobody()
    const left: readonly (readonly [string, PodWish])[] = [
      ['without annotations', {}],
      ["with other people's annotations", { annotations: { 'example.com/certferry.io': 'true', ...FROM_VAULT } }],
      ['that wants to be left alone', { annotations: { ...ASKING, 'certferry.io/inject': 'false' } }],
      [
        'with what was left by a former injection',
        { annotations: Object.fromEntries(MARKS.map((mark) => [mark, 'injected'])) },
      ],
      ['of the own namespace', { namespace: 'certferry', annotations: ASKING }],
      ['of kube-system', { namespace: 'kube-system', annotations: ASKING }],
    ]
    for (const [what, wish] of left) {
      const { code, stderr } = await makePod(wish)
      assert.equal(code, 0, `a pod ${what}: ${stderr}`)
    }
    for (const annotations of [
      ASKING,
      { 'certferry.io/inject': 'true' },
      { 'certferry.io/certifcate.web': 'misspelt' },
    ]) {
      const { code, stderr } = await makePod({ annotations })
      assert.equal(code, 1, JSON.stringify(annotations))
      assert.match(stderr, /failed calling webhook "injector\.certferry\.io".*connection refused/s)
    }
  },
)

test('the annotations of vault-k8s count when they are switched on', needs, async () => {
  await using _release = await install({ sidecar: { vaultAnnotations: true } })
  await lookForNobody()
  assert.equal((await makePod({})).code, 0)
  assert.match((await makePod({ annotations: FROM_VAULT })).stderr, /failed calling webhook/)
})

test('with failurePolicy Ignore such a pod is made without a certificate, as the notes say', needs, async () => {
  await using release = await install({ webhook: { failurePolicy: 'Ignore' } })
  assert.match(release.notes, /made without one/)
  await lookForNobody()
  assert.equal((await makePod({ annotations: ASKING })).code, 0)
})

test('selectors of namespaces and pods narrow what the webhook is asked about', needs, async () => {
  await using _release = await install({ webhook: { namespaceSelector: { matchLabels: { tls: 'yes' } } } })
  await lookForNobody()
  assert.equal((await makePod({ annotations: ASKING })).code, 0)
  await kubectl('label', 'namespace', 'shop', 'tls=yes')
  const { code } = await makePod({ annotations: ASKING })
  await kubectl('label', 'namespace', 'shop', 'tls-')
  assert.equal(code, 1)
})

test('helm upgrade and kubectl apply keep the caBundle that the injector wrote', needs, async () => {
  const caBundle = Buffer.from(await readFile(cluster().caFile)).toString('base64')
  const written = { op: 'add', path: '/webhooks/0/clientConfig/caBundle', value: caBundle }
  const found = () =>
    kubectl('get', ...WEBHOOK, '-o', 'jsonpath={.webhooks[0].timeoutSeconds} {.webhooks[0].clientConfig.caBundle}')
  {
    await using release = await install()
    await patchWebhook(written)
    await release.upgrade({ webhook: { timeoutSeconds: 7 } })
    assert.equal(await found(), `7 ${caBundle}`)
  }
  const manifest = await readFile(join(EXAMPLES, 'injector.yaml'), 'utf8')
  for (const how of [[], ['--server-side', '--force-conflicts']]) {
    await using applied = await applyManifest(manifest, how)
    await patchWebhook(written)
    await applied.again(manifest.replace(/^ {4}timeoutSeconds: 5$/m, '    timeoutSeconds: 8'))
    assert.equal(await found(), `8 ${caBundle}`, how.join(' '))
  }
})

test(
  'with the config and the rights of the chart an injector makes itself trusted, and injects pods',
  needs,
  async () => {
    await using _release = await install({ vault: { address: 'https://vault.vault.svc:8200', role: 'web' } })
    const port = await freePort()
    const clientConfig = { url: `https://127.0.0.1:${port}/mutate` }
    await patchWebhook({ op: 'replace', path: '/webhooks/0/clientConfig', value: clientConfig })
    const argv = [process.execPath, join(ROOT, 'src/cli.ts'), 'injector', '-c', await injectorConfig(port)]
    const injector = startProgram(argv, { PATH: process.env.PATH ?? '' })
    const made = await until('a pod is injected', () => madePod({ annotations: ASKING }), injector)
    const wanted = injectedPod().pod.spec
    assert.deepEqual(namesOf(made.spec.initContainers), namesOf(wanted.initContainers))
    assert.equal((await makePod({})).code, 0)
    const { stderr } = await makePod({ annotations: { 'certferry.io/certifcate.web': 'misspelt' } })
    assert.match(stderr, /certferry cannot be injected into pod web.*did you mean "?certificate/s)
    const written = await kubectl('get', ...WEBHOOK, '-o', 'jsonpath={.webhooks[0].clientConfig.caBundle}')
    const secret = await kubectl('get', 'secret', 'certferry-injector-ca', '-n', 'certferry', '-o', 'jsonpath={.data}')
    assert.ok(secret.includes(written), 'the CA in the Secret is the one in the webhook')
    injector.child.kill('SIGTERM')
    assert.equal(await injector.ended, 0, injector.output())
    await kubectl('delete', 'secret', 'certferry-injector-ca', '-n', 'certferry')
  },
)

test('with a certificate from a real Vault it does the same, without a right on Secrets', {
  skip: skip || (await skipReason('vault', 'vault-plugin-auth-kubernetes')),
}, async () => {
  await using vault = await startVault({ kubernetesAuth: true })
  const injectorRole = {
    allowed_domains: ['certferry-injector.certferry.svc'],
    allow_bare_domains: true,
    key_type: 'any',
  }
  const { rootPem } = await vault.setupPki({ roles: { injector: injectorRole } })
  const account = { serviceAccount: 'certferry-injector', namespace: 'certferry' }
  const policy = signOnly('pki', 'injector')
  await setupPodLogin({ vault, cluster: cluster(), kind: 'kubernetes', role: 'injector', ...account, policy })
  await using _release = await install({
    vault: { address: vault.address, role: 'web' },
    certificate: { source: 'vault-pki', vaultPki: { role: 'injector', authRole: 'injector' } },
  })
  const injector = await startInjector()
  const made = await until('a pod is injected', () => madePod({ annotations: ASKING }), injector)
  assert.deepEqual(namesOf(made.spec.initContainers), namesOf(injectedPod().pod.spec.initContainers))
  const written = await kubectl('get', ...WEBHOOK, '-o', 'jsonpath={.webhooks[0].clientConfig.caBundle}')
  assert.equal(Buffer.from(written, 'base64').toString().trim(), rootPem.trim())
  injector.child.kill('SIGTERM')
  assert.equal(await injector.ended, 0, injector.output())
})

const RIGHTS = [
  ['role', 'certferry-injector', 0, 'create'],
  ['role', 'certferry-injector', 1, 'get'],
  ['clusterrole', 'certferry-injector', 0, 'get'],
  ['clusterrole', 'certferry-injector', 0, 'patch'],
] as const

test('without any one of its rights the injector is not ready, and says which one it lacks', needs, async () => {
  for (const [kind, name, rule, verb] of RIGHTS) {
    await using _release = await install()
    await dropVerb(kind, name, rule, verb)
    const injector = await startInjector()
    const told = `verbs: [\\"${verb}\\"]`
    const isTold = () =>
      injector
        .output()
        .split('\n')
        .some((line) => line.includes('kubernetes_denied') && line.includes(told))
    await until(`${kind} without ${verb}: it says so`, () => isTold() || undefined, injector)
    assert.equal((await makePod({ annotations: ASKING })).code, 1)
    injector.child.kill('SIGTERM')
    await injector.ended
    await kubectl('delete', 'secret', 'certferry-injector-ca', '-n', 'certferry', '--ignore-not-found')
  }
})

const Role = z.object({ rules: z.array(z.object({ verbs: z.array(z.string()) })) })

/** A rule needs a verb, so one that nobody asks for is left in its place. */
async function dropVerb(kind: string, name: string, rule: number, verb: string): Promise<void> {
  const { rules } = Role.parse(JSON.parse(await kubectl('get', kind, name, '-n', 'certferry', '-o', 'json')))
  const verbs = rules[rule]?.verbs ?? []
  assert.ok(verbs.includes(verb), `${kind} ${name} has ${verb}`)
  const value = [...verbs.filter((each) => each !== verb), 'deletecollection']
  const patch = JSON.stringify([{ op: 'replace', path: `/rules/${rule}/verbs`, value }])
  await kubectl('patch', kind, name, '-n', 'certferry', '--type=json', '--patch', patch)
}

/** With what the installed release gives it; the API server asks it at its address. */
async function startInjector(): Promise<Running> {
  const port = await freePort()
  const clientConfig = { url: `https://127.0.0.1:${port}/mutate` }
  await patchWebhook({ op: 'replace', path: '/webhooks/0/clientConfig', value: clientConfig })
  const argv = [process.execPath, join(ROOT, 'src/cli.ts'), 'injector', '-c', await injectorConfig(port)]
  return startProgram(argv, { PATH: process.env.PATH ?? '' })
}

/** Undefined while it is refused. */
async function madePod(wish: PodWish): Promise<Pod | undefined> {
  const { code, stdout } = await makePod(wish)
  return code === 0 ? Pod.parse(JSON.parse(stdout)) : undefined
}

const namesOf = (containers: Pod['spec']['initContainers']) => containers?.map(({ name }) => name)

const Certificate = z.looseObject({ source: z.looseObject({}) })
const InjectorConfig = z.looseObject({
  injector: z.looseObject({}),
  vault: z.looseObject({ auth: z.looseObject({ tokenFile: z.string() }) }).optional(),
  certificates: z.tuple([Certificate]),
})

/** What the chart gives the injector, with the places of this machine for those of a pod. */
async function injectorConfig(port: number): Promise<string> {
  const { url, caFile, createToken } = cluster()
  const text = await kubectl(
    'get',
    'configmap',
    'certferry-injector-config',
    '-n',
    'certferry',
    '-o',
    'jsonpath={.data.config\\.yaml}',
  )
  const config = InjectorConfig.parse(parse(text))
  const tokenFile = join(folder, 'token')
  await writeFile(tokenFile, await createToken('certferry-injector', 'certferry'), { mode: 0o600 })
  const vaultTokenFile = join(folder, 'vault-token')
  await writeFile(vaultTokenFile, await createToken('certferry-injector', 'certferry', VAULT_AUDIENCE), { mode: 0o600 })
  const { vault } = config
  const [{ source, ...certificate }] = config.certificates
  const file = join(folder, 'injector.yaml')
  const adapted = {
    ...config,
    injector: { ...config.injector, listen: `127.0.0.1:${port}` },
    kubernetes: { apiServer: url, caFile, tokenFile, namespace: 'certferry', pod: 'certferry-injector-0' },
    ...(vault && { vault: { ...vault, auth: { ...vault.auth, tokenFile: vaultTokenFile } } }),
    admin: { listen: '127.0.0.1:0' },
    certificates: [
      {
        ...certificate,
        // The API server asks for the address, since nobody here leads it from a Service to a pod.
        source: { ...source, altNames: ['127.0.0.1'] },
        outputs: [{ kind: 'pem', directory: join(folder, `injector-${port}`) }],
        verify: [{ kind: 'tls', address: `127.0.0.1:${port}` }],
      },
    ],
  }
  await writeFile(file, JSON.stringify(adapted), { mode: 0o600 })
  return file
}

/** Takes away all but the namespace in the end, which only a controller could bring to its end. */
async function applyManifest(manifest: string, how: readonly string[]) {
  const again = (text: string) => succeed('kubectl', ['apply', ...how, '-f', '-'], text)
  await again(manifest)
  return {
    again,
    [Symbol.asyncDispose]: async () => {
      const objects = objectsOf(manifest).filter(({ kind }) => kind !== 'Namespace')
      await succeed('kubectl', ['delete', '-f', '-'], list(objects))
    },
  }
}

/** Of everything that a chart can make, what is there under the name of the release. */
async function leftOvers(): Promise<string[]> {
  const kinds = [
    'deployments',
    'services',
    'configmaps',
    'serviceaccounts',
    'roles',
    'rolebindings',
    'poddisruptionbudgets',
    'networkpolicies',
    'clusterroles',
    'clusterrolebindings',
    'mutatingwebhookconfigurations',
  ]
  const names = await kubectl(
    'get',
    kinds.join(','),
    '--all-namespaces',
    '-l',
    'app.kubernetes.io/name=certferry',
    '-o',
    'name',
  )
  return names.split('\n').filter((name) => name !== '')
}

test('helm uninstall leaves nothing of the release behind', needs, async () => {
  {
    await using _release = await install(VALUE_SETS['a certificate from Vault'])
    assert.ok((await leftOvers()).length >= 9)
  }
  assert.deepEqual(await leftOvers(), [])
})

const Rule = z.object({
  verbs: z.array(z.string()),
  apiGroups: z.array(z.string()),
  resources: z.array(z.string()),
  resourceNames: z.array(z.string()).optional(),
})
const Review = z.object({ status: z.object({ resourceRules: z.array(Rule), incomplete: z.boolean() }) })

/** All that a service account may do in a namespace and others of that namespace may not. */
async function rightsOf(account: string, namespace: string): Promise<string[]> {
  const nobody = `system:serviceaccount:${namespace}:nobody`
  const [theirs, everybody] = await Promise.all([account, nobody].map((name) => rulesOf(name, namespace)))
  return (theirs ?? []).filter((rule) => !everybody?.includes(rule)).sort()
}

async function rulesOf(account: string, namespace: string): Promise<string[]> {
  const request = { apiVersion: 'authorization.k8s.io/v1', kind: 'SelfSubjectRulesReview', spec: { namespace } }
  const path = '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews'
  const { stdout } = await succeed(
    'kubectl',
    ['create', '--raw', path, '-f', '-', '--as', account],
    JSON.stringify(request),
  )
  const { resourceRules, incomplete } = Review.parse(JSON.parse(stdout)).status
  assert.equal(incomplete, false)
  return resourceRules.map(({ verbs, apiGroups, resources, resourceNames = [] }) =>
    [verbs.toSorted().join(), apiGroups.join(), resources.join(), ...resourceNames].join(' ').trim(),
  )
}

const OWN_WEBHOOK = 'get,patch admissionregistration.k8s.io mutatingwebhookconfigurations certferry-injector'

test('the injector may make Secrets, read its own, and change its own webhook: nothing else', needs, async () => {
  await using _release = await install()
  assert.deepEqual(
    await rightsOf(ACCOUNT, 'certferry'),
    ['create  secrets', 'get  secrets certferry-injector-ca', OWN_WEBHOOK].sort(),
  )
  assert.deepEqual(await rightsOf(ACCOUNT, 'shop'), [OWN_WEBHOOK])
})

test('with a certificate from Vault it may do nothing with Secrets', needs, async () => {
  await using _release = await install(VALUE_SETS['a certificate from Vault'])
  assert.deepEqual(await rightsOf(ACCOUNT, 'certferry'), [OWN_WEBHOOK])
})

test(
  'an injected pod has no right in the cluster until the values bind one, and then in its namespace alone',
  needs,
  async () => {
    const web = 'system:serviceaccount:shop:web'
    await using release = await install({ workloadRoles: { create: true } })
    assert.deepEqual(await rightsOf(web, 'shop'), [])
    await release.upgrade({
      workloadRoles: { bindings: [{ namespace: 'shop', serviceAccount: 'web', roles: ['rollout-restart'] }] },
    })
    assert.deepEqual(
      await rightsOf(web, 'shop'),
      [
        'create,get,update coordination.k8s.io leases',
        'get  pods',
        'get apps replicasets',
        'get,patch apps deployments,statefulsets,daemonsets',
      ].sort(),
    )
    assert.deepEqual(await rightsOf(web, 'certferry'), [])
  },
)

test(
  'another namespace or name of the release leads to names of its own, and the config knows them',
  needs,
  async () => {
    const objects = objectsOf(await rendered({ fullnameOverride: 'tls' }))
    const config = JSON.stringify(objects.find(({ kind }) => kind === 'ConfigMap'))
    const webhook = objects.find(({ kind }) => kind === 'MutatingWebhookConfiguration')
    assert.equal(webhook?.metadata.name, 'certferry-tls-injector')
    assert.ok(config.includes('webhookConfiguration: certferry-tls-injector'))
    assert.ok(config.includes('commonName: tls-injector.certferry.svc'))
  },
)

test('a name that is too long for a common name is an alternative name', needs, async () => {
  const namespace = 'a'.repeat(63)
  const { stdout } = await succeed('helm', [
    'template',
    'certferry',
    CHART,
    '-n',
    namespace,
    '--kube-version',
    '1.36.3',
  ])
  assert.ok(stdout.includes(`altNames: [certferry-injector.${namespace}.svc]`))
})

test(
  'the kustomize base makes the same as the plain manifests, its config by a name that tells its content',
  needs,
  async () => {
    const base = objectsOf(await kubectl('kustomize', 'deploy/kustomize'))
    const plain = objectsOf(await readFile(join(EXAMPLES, 'injector.yaml'), 'utf8'))
    const named = ({ kind, metadata }: (typeof base)[number]) =>
      `${kind} ${metadata.name.replace(/-config-[a-z0-9]{10}$/, '-config')}`
    assert.deepEqual(base.map(named).sort(), plain.map(named).sort())
    const applied = await run('kubectl', ['apply', '--dry-run=server', '--validate=strict', '-k', 'deploy/kustomize'])
    assert.equal(applied.code, 0, applied.stderr)
  },
)

test('the overlay of the README puts image and config in place, and leaves every right as it was', needs, async () => {
  const readme = await readFile(join(ROOT, 'deploy/kustomize/README.md'), 'utf8')
  const [, overlay = ''] = /```yaml\n([\s\S]*?)```/.exec(readme) ?? []
  await cp(join(ROOT, 'deploy'), join(folder, 'overlay/certferry/deploy'), { recursive: true })
  await writeFile(join(folder, 'overlay/kustomization.yaml'), overlay)
  await writeFile(join(folder, 'overlay/config.yaml'), 'injector: { image: other }\n')
  const objects = objectsOf(await kubectl('kustomize', join(folder, 'overlay')))
  const config = objects.find(({ kind }) => kind === 'ConfigMap')
  const deployment = JSON.stringify(objects.find(({ kind }) => kind === 'Deployment'))
  const role = JSON.stringify(objects.find(({ kind }) => kind === 'ClusterRole'))
  assert.equal(
    z.object({ data: z.object({ 'config.yaml': z.string() }) }).parse(config).data['config.yaml'],
    'injector: { image: other }\n',
  )
  assert.ok(deployment.includes(`"configMap":{"name":"${config?.metadata.name}"}`))
  assert.ok(deployment.includes('"image":"registry.example.com/certferry:0.1.0"'))
  assert.ok(role.includes('"resourceNames":["certferry-injector"]'))
})

test(
  'every example is valid, and fit for a namespace that enforces the pod security standard restricted',
  needs,
  async () => {
    await kubectl(
      'label',
      '--overwrite',
      'namespace',
      'restricted',
      'pod-security.kubernetes.io/enforce=restricted',
      'pod-security.kubernetes.io/warn=restricted',
    )
    for (const name of ['deployment.yaml', 'by-hand.yaml']) {
      const manifest = await readFile(join(EXAMPLES, name), 'utf8')
      const { code, stdout } = await kubeconform(manifest)
      assert.equal(code, 0, stdout)
      const { stderr } = await succeed(
        'kubectl',
        ['apply', '-n', 'restricted', '--dry-run=server', '--validate=strict', '-f', '-'],
        manifest,
      )
      assert.doesNotMatch(stderr, /PodSecurity/)
    }
  },
)

test('the annotated example becomes a pod that a namespace takes which enforces restricted', needs, async () => {
  const manifest = await readFile(join(EXAMPLES, 'deployment.yaml'), 'utf8')
  const { text } = injectManifests(manifest, CONTEXT, 'deployment.yaml')
  await succeed('kubectl', ['apply', '-n', 'restricted', '--dry-run=server', '--validate=strict', '-f', '-'], text)
  const deployment = objectsOf(text).find(({ kind }) => kind === 'Deployment')
  const { template } = Template.parse(deployment).spec
  const made = { ...template, apiVersion: 'v1', kind: 'Pod', metadata: { ...template.metadata, name: 'web' } }
  await cluster().createServiceAccount('web', 'restricted')
  const create = ['create', '-n', 'restricted', '--dry-run=server', '--validate=strict', '-f', '-']
  await succeed('kubectl', create, JSON.stringify(made))
})

const Template = z.object({ spec: z.object({ template: z.looseObject({ metadata: z.looseObject({}) }) }) })

test(
  'the manifests in the docs are valid, and the lease that a role names is that of the workload',
  needs,
  async () => {
    const docs = await readFile(join(ROOT, 'docs/kubernetes.md'), 'utf8')
    const blocks = [...docs.matchAll(/```yaml\n(apiVersion: [\s\S]*?)```/g)].map(([, block = '']) => block)
    assert.ok(blocks.length > 0)
    const { code, stdout } = await kubeconform(blocks.join('---\n'))
    assert.equal(code, 0, stdout)
    assert.equal((await dryRun(blocks.join('---\n'))).code, 0)
    assert.ok(docs.includes(`resourceNames: [${leaseName({ kind: 'Deployment', name: 'web' })}]`))
  },
)

test('the pods of the injector are fit for such a namespace', needs, async () => {
  await kubectl('label', '--overwrite', 'namespace', 'certferry', 'pod-security.kubernetes.io/warn=restricted')
  const Deployment = z.object({
    spec: z.object({ template: z.object({ spec: z.looseObject({ hostNetwork: z.boolean().optional() }) }) }),
  })
  for (const [name, values] of Object.entries(VALUE_SETS)) {
    const { stderr } = await dryRun(
      JSON.stringify(objectsOf(await rendered(values)).find(({ kind }) => kind === 'Deployment')),
    )
    const found = objectsOf(await rendered(values)).find(({ kind }) => kind === 'Deployment')
    const isOfNode = Deployment.parse(found).spec.template.spec.hostNetwork === true
    // Only what the standard itself forbids: the network of the node.
    assert.equal(/PodSecurity/.test(stderr), isOfNode, `${name}: ${stderr}`)
  }
})
