import assert from 'node:assert/strict'
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { parse } from 'yaml'
import * as z from 'zod'
import { loadConfig } from '../../src/config/config.ts'
import { Defaults, MARKS } from '../../src/injector/annotations.ts'
import { injectManifests } from '../../src/injector/manifests.ts'
import { SIDECAR } from '../../src/injector/pod.ts'
import { leaseName } from '../../src/kubernetes/lease.ts'
import { laggingManifests } from '../../tools/manifests.ts'
import { ROOT } from '../../tools/packages.ts'
import { CHART, type ChartBench, CONTEXT, EXAMPLES, injectedPod, objectsOf, startChartBench } from '../support/chart.ts'
import { VALUE_SETS, type Values } from '../support/chart-values.ts'
import { skipReason } from '../support/components.ts'
import { writeSchemas } from '../support/kubeconform.ts'
import { CONTROL_PLANE } from '../support/kubernetes.ts'

const skip = await skipReason(...CONTROL_PLANE, 'helm', 'kubeconform', 'kube-score')
const needs = { skip }
const started = skip ? undefined : await startChartBench()
after(() => started?.[Symbol.asyncDispose]())
const RESTRICTED = {
  'pod-security.kubernetes.io/enforce': 'restricted',
  'pod-security.kubernetes.io/warn': 'restricted',
}
await started?.cluster.createNamespace('certferry')
await started?.cluster.createNamespace('shop')
await started?.cluster.createNamespace('restricted', RESTRICTED)

function bench(): ChartBench {
  assert.ok(started, 'the control plane of this file is there')
  return started
}

test('helm lint --strict finds nothing', needs, async () => {
  for (const values of Object.values(VALUE_SETS)) {
    const { stdout } = await bench().succeed('helm', [
      'lint',
      '--strict',
      '--kube-version',
      '1.36.3',
      CHART,
      '-f',
      await bench().valuesFile(values),
    ])
    assert.doesNotMatch(stdout, /\[(WARNING|ERROR)\]/)
  }
})

let schemas: Promise<string> | undefined
const schemaLocation = () => {
  schemas ??= bench()
    .kubectl('get', '--raw', '/openapi/v2')
    .then((text) => writeSchemas(JSON.parse(text), join(bench().folder, 'schemas')))
  return schemas
}
/** Of another project, so not in what the API server says of itself. */
const FOREIGN = 'PodMonitor,ServiceMonitor'
const kubeconform = async (manifests: string) =>
  bench().run(
    'kubeconform',
    ['-strict', '-summary', '-skip', FOREIGN, '-schema-location', await schemaLocation(), '-'],
    manifests,
  )

for (const [name, values] of Object.entries(VALUE_SETS)) {
  test(`with ${name} all objects are valid, for their schemas and for the API server`, needs, async () => {
    const manifests = await bench().rendered(values)
    const { code, stdout } = await kubeconform(manifests)
    assert.equal(code, 0, stdout)
    const known = manifests
      .split(/^---\n/m)
      .filter((object) => !FOREIGN.split(',').some((kind) => object.includes(`kind: ${kind}\n`)))
    const applied = await bench().dryRun(known.join('---\n'))
    assert.equal(applied.code, 0, applied.stderr)
  })

  test(`with ${name} the config of the injector is one that certferry takes`, needs, async () => {
    const config = objectsOf(await bench().rendered(values)).find(({ kind }) => kind === 'ConfigMap')
    const { data } = z.object({ data: z.record(z.string(), z.string()) }).parse(config)
    const file = join(bench().folder, 'config.yaml')
    await writeFile(file, data['config.yaml'] ?? '', { mode: 0o600 })
    assert.equal(loadConfig(file, {}).certificates[0]?.name, 'injector')
  })
}

test('what the values say for all pods are defaults that the injector takes', needs, async () => {
  const config = objectsOf(await bench().rendered(VALUE_SETS['Vault for all pods'] ?? {})).find(
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
  const { code, stdout } = await kubeconform((await bench().rendered({})).replace('  replicas:', '  replicsa:'))
  assert.equal(code, 1)
  assert.match(stdout, /additional properties 'replicsa' not allowed/)
})

/** A pull policy is a value, and pods are spread by topologySpreadConstraints. */
const NOT_SCORED = ['container-image-pull-policy', 'deployment-has-host-podantiaffinity']

test('kube-score has no complaint', needs, async () => {
  const ignored = NOT_SCORED.flatMap((check) => ['--ignore-test', check])
  const values = { networkPolicy: { egress: { enabled: true } } }
  const { stdout } = await bench().succeed(
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
    await bench().rendered(values),
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
    const { code, stderr } = await bench().template(values)
    assert.equal(code, 1, JSON.stringify(values))
    assert.match(stderr, message, JSON.stringify(values))
  }
})

test('the chart may be a part of another one', needs, async () => {
  const umbrella = join(bench().folder, 'umbrella')
  await mkdir(join(umbrella, 'charts'), { recursive: true })
  const dependency = { name: 'certferry', version: '>=0.0.0-0', condition: 'certferry.enabled' }
  await writeFile(
    join(umbrella, 'Chart.yaml'),
    JSON.stringify({ apiVersion: 'v2', name: 'shop', version: '1.0.0', dependencies: [dependency] }),
  )
  await cp(CHART, join(umbrella, 'charts/certferry'), { recursive: true })
  const { code, stdout, stderr } = await bench().template(
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
    const objects = objectsOf(await bench().rendered(values))
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
  const objects = objectsOf(await bench().rendered({ metrics: { sidecarPodMonitor: { enabled: true } } }))
  const { podMetricsEndpoints } = Reference.parse(objects.find(({ kind }) => kind === 'PodMonitor')).spec
  const pod = injectedPod()
  assert.deepEqual(
    podMetricsEndpoints.map(({ port }) => port),
    pod.spec.initContainers?.find(({ name }) => name === SIDECAR)?.ports?.map(({ name }) => name),
  )
})

test('before Kubernetes 1.28 the webhook is not let near every pod', needs, async () => {
  const refused = await bench().template({}, { version: '1.27.16' })
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /set webhook\.objectSelector, or webhook\.failurePolicy to Ignore/)
  for (const webhook of [{ failurePolicy: 'Ignore' }, { objectSelector: { matchLabels: { certferry: 'yes' } } }])
    assert.doesNotMatch(await bench().rendered({ webhook }, '1.27.16'), /matchConditions|preStop/)
})

test('the API server asks about a pod where the injector finds an annotation, and about no other', needs, async () => {
  const manifests = await bench().rendered({})
  for (const mark of MARKS) assert.ok(manifests.includes(`'${mark}'`), mark)
})

test('the manifests that are made from the chart are up to date (if not: npm run manifests)', needs, async () => {
  assert.deepEqual(await laggingManifests(), [])
})

test(
  'another namespace or name of the release leads to names of its own, and the config knows them',
  needs,
  async () => {
    const objects = objectsOf(await bench().rendered({ fullnameOverride: 'tls' }))
    const config = JSON.stringify(objects.find(({ kind }) => kind === 'ConfigMap'))
    const webhook = objects.find(({ kind }) => kind === 'MutatingWebhookConfiguration')
    assert.equal(webhook?.metadata.name, 'certferry-tls-injector')
    assert.ok(config.includes('webhookConfiguration: certferry-tls-injector'))
    assert.ok(config.includes('commonName: tls-injector.certferry.svc'))
  },
)

test('a name that is too long for a common name is an alternative name', needs, async () => {
  const namespace = 'a'.repeat(63)
  const { stdout } = await bench().succeed('helm', [
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
    const base = objectsOf(await bench().kubectl('kustomize', 'deploy/kustomize'))
    const plain = objectsOf(await readFile(join(EXAMPLES, 'injector.yaml'), 'utf8'))
    const named = ({ kind, metadata }: (typeof base)[number]) =>
      `${kind} ${metadata.name.replace(/-config-[a-z0-9]{10}$/, '-config')}`
    assert.deepEqual(base.map(named).sort(), plain.map(named).sort())
    const applied = await bench().run('kubectl', [
      'apply',
      '--dry-run=server',
      '--validate=strict',
      '-k',
      'deploy/kustomize',
    ])
    assert.equal(applied.code, 0, applied.stderr)
  },
)

test('the overlay of the README puts image and config in place, and leaves every right as it was', needs, async () => {
  const readme = await readFile(join(ROOT, 'deploy/kustomize/README.md'), 'utf8')
  const [, overlay = ''] = /```yaml\n([\s\S]*?)```/.exec(readme) ?? []
  await cp(join(ROOT, 'deploy'), join(bench().folder, 'overlay/certferry/deploy'), { recursive: true })
  await writeFile(join(bench().folder, 'overlay/kustomization.yaml'), overlay)
  await writeFile(join(bench().folder, 'overlay/config.yaml'), 'injector: { image: other }\n')
  const objects = objectsOf(await bench().kubectl('kustomize', join(bench().folder, 'overlay')))
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
    for (const name of ['deployment.yaml', 'by-hand.yaml']) {
      const manifest = await readFile(join(EXAMPLES, name), 'utf8')
      const { code, stdout } = await kubeconform(manifest)
      assert.equal(code, 0, stdout)
      const { stderr } = await bench().succeed(
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
  await bench().succeed(
    'kubectl',
    ['apply', '-n', 'restricted', '--dry-run=server', '--validate=strict', '-f', '-'],
    text,
  )
  const deployment = objectsOf(text).find(({ kind }) => kind === 'Deployment')
  const { template } = Template.parse(deployment).spec
  const made = { ...template, apiVersion: 'v1', kind: 'Pod', metadata: { ...template.metadata, name: 'web' } }
  await bench().cluster.createServiceAccount('web', 'restricted')
  const create = ['create', '-n', 'restricted', '--dry-run=server', '--validate=strict', '-f', '-']
  await bench().succeed('kubectl', create, JSON.stringify(made))
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
    assert.equal((await bench().dryRun(blocks.join('---\n'))).code, 0)
    assert.ok(docs.includes(`resourceNames: [${leaseName({ kind: 'Deployment', name: 'web' })}]`))
  },
)

test('the pods of the injector are fit for such a namespace', needs, async () => {
  await bench().kubectl('label', '--overwrite', 'namespace', 'certferry', 'pod-security.kubernetes.io/warn=restricted')
  const Deployment = z.object({
    spec: z.object({ template: z.object({ spec: z.looseObject({ hostNetwork: z.boolean().optional() }) }) }),
  })
  for (const [name, values] of Object.entries(VALUE_SETS)) {
    const { stderr } = await bench().dryRun(
      JSON.stringify(objectsOf(await bench().rendered(values)).find(({ kind }) => kind === 'Deployment')),
    )
    const found = objectsOf(await bench().rendered(values)).find(({ kind }) => kind === 'Deployment')
    const isOfNode = Deployment.parse(found).spec.template.spec.hostNetwork === true
    // Only what the standard itself forbids: the network of the node.
    assert.equal(/PodSecurity/.test(stderr), isOfNode, `${name}: ${stderr}`)
  }
})
