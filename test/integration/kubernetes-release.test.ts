import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { parse } from 'yaml'
import * as z from 'zod'
import { MARKS } from '../../src/injector/annotations.ts'
import { Pod } from '../../src/injector/pod.ts'
import { ROOT } from '../../tools/packages.ts'
import {
  ASKING,
  CHART,
  type ChartBench,
  EXAMPLES,
  injectedPod,
  objectsOf,
  plainPod,
  startChartBench,
} from '../support/chart.ts'
import { VALUE_SETS, type Values } from '../support/chart-values.ts'
import { skipReason } from '../support/components.ts'
import { CONTROL_PLANE, VAULT_AUDIENCE } from '../support/kubernetes.ts'
import { freePort } from '../support/nginx.ts'
import { type Running, startProgram, until } from '../support/program.ts'
import { signOnly, startVault } from '../support/vault.ts'
import { setupPodLogin } from '../support/vault-kubernetes.ts'

const ACCOUNT = 'system:serviceaccount:certferry:certferry-injector'
const FROM_VAULT = { 'vault.hashicorp.com/agent-inject': 'true' }

const skip = await skipReason(...CONTROL_PLANE, 'helm')
const needs = { skip }
const started = skip ? undefined : await startChartBench()
after(() => started?.[Symbol.asyncDispose]())
await started?.cluster.createNamespace('certferry')
await started?.cluster.createNamespace('shop')
await started?.cluster.createServiceAccount('default', 'kube-system')

function bench(): ChartBench {
  assert.ok(started, 'the control plane of this file is there')
  return started
}

const list = (items: readonly object[]) => JSON.stringify({ apiVersion: 'v1', kind: 'List', items })

/** A release of its own for one test. */
async function install(values: Values = {}, namespace = 'certferry') {
  const upgrade = async (next: Values) =>
    bench().succeed('helm', [
      'upgrade',
      '--install',
      'certferry',
      CHART,
      '-n',
      namespace,
      '-f',
      await bench().valuesFile(next),
    ])
  const { stdout } = await upgrade(values)
  return {
    notes: stdout,
    upgrade,
    [Symbol.asyncDispose]: async () => {
      await bench().succeed('helm', ['uninstall', 'certferry', '-n', namespace, '--ignore-not-found'])
    },
  }
}

const WEBHOOK = ['mutatingwebhookconfiguration', 'certferry-injector'] as const
const patchWebhook = (...operations: readonly object[]) =>
  bench().kubectl('patch', ...WEBHOOK, '--type=json', '--patch', JSON.stringify(operations))

/** Where nobody listens: the discard port, which takes a right to open. */
const lookForNobody = () =>
  patchWebhook({ op: 'replace', path: '/webhooks/0/clientConfig', value: { url: 'https://127.0.0.1:9/mutate' } })

interface PodWish {
  readonly namespace?: string
  readonly annotations?: Readonly<Record<string, string>>
}
const makePod = ({ namespace = 'shop', annotations = {} }: PodWish) =>
  bench().run(
    'kubectl',
    ['create', '--dry-run=server', '-o', 'json', '-f', '-'],
    JSON.stringify(plainPod(namespace, annotations)),
  )

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
  await bench().kubectl('label', 'namespace', 'shop', 'tls=yes')
  const { code } = await makePod({ annotations: ASKING })
  await bench().kubectl('label', 'namespace', 'shop', 'tls-')
  assert.equal(code, 1)
})

test('helm upgrade and kubectl apply keep the caBundle that the injector wrote', needs, async () => {
  const caBundle = Buffer.from(await readFile(bench().cluster.caFile)).toString('base64')
  const written = { op: 'add', path: '/webhooks/0/clientConfig/caBundle', value: caBundle }
  const found = () =>
    bench().kubectl(
      'get',
      ...WEBHOOK,
      '-o',
      'jsonpath={.webhooks[0].timeoutSeconds} {.webhooks[0].clientConfig.caBundle}',
    )
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
    const wanted = injectedPod().spec
    assert.deepEqual(namesOf(made.spec.initContainers), namesOf(wanted.initContainers))
    assert.equal((await makePod({})).code, 0)
    const { stderr } = await makePod({ annotations: { 'certferry.io/certifcate.web': 'misspelt' } })
    assert.match(stderr, /certferry cannot be injected into pod web.*did you mean "?certificate/s)
    const written = await bench().kubectl('get', ...WEBHOOK, '-o', 'jsonpath={.webhooks[0].clientConfig.caBundle}')
    const secret = await bench().kubectl(
      'get',
      'secret',
      'certferry-injector-ca',
      '-n',
      'certferry',
      '-o',
      'jsonpath={.data}',
    )
    assert.ok(secret.includes(written), 'the CA in the Secret is the one in the webhook')
    injector.child.kill('SIGTERM')
    assert.equal(await injector.ended, 0, injector.output())
    await bench().kubectl('delete', 'secret', 'certferry-injector-ca', '-n', 'certferry')
  },
)

test('with a certificate from a real Vault it does the same, without a right on Secrets', {
  skip: skip || (await skipReason('vault', 'vault-plugin-auth-kubernetes')),
}, async () => {
  await using vault = await startVault({ authPlugins: ['kubernetes'] })
  const injectorRole = {
    allowed_domains: ['certferry-injector.certferry.svc'],
    allow_bare_domains: true,
    key_type: 'any',
  }
  const { rootPem } = await vault.setupPki({ roles: { injector: injectorRole } })
  const account = { serviceAccount: 'certferry-injector', namespace: 'certferry' }
  const policy = signOnly('pki', 'injector')
  await setupPodLogin({ vault, cluster: bench().cluster, kind: 'kubernetes', role: 'injector', ...account, policy })
  await using _release = await install({
    vault: { address: vault.address, role: 'web' },
    certificate: { source: 'vault-pki', vaultPki: { role: 'injector', authRole: 'injector' } },
  })
  const injector = await startInjector()
  const made = await until('a pod is injected', () => madePod({ annotations: ASKING }), injector)
  assert.deepEqual(namesOf(made.spec.initContainers), namesOf(injectedPod().spec.initContainers))
  const written = await bench().kubectl('get', ...WEBHOOK, '-o', 'jsonpath={.webhooks[0].clientConfig.caBundle}')
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
    await bench().kubectl('delete', 'secret', 'certferry-injector-ca', '-n', 'certferry', '--ignore-not-found')
  }
})

const Role = z.object({ rules: z.array(z.object({ verbs: z.array(z.string()) })) })

/** A rule needs a verb, so one that nobody asks for is left in its place. */
async function dropVerb(kind: string, name: string, rule: number, verb: string): Promise<void> {
  const { rules } = Role.parse(JSON.parse(await bench().kubectl('get', kind, name, '-n', 'certferry', '-o', 'json')))
  const verbs = rules[rule]?.verbs ?? []
  assert.ok(verbs.includes(verb), `${kind} ${name} has ${verb}`)
  const value = [...verbs.filter((each) => each !== verb), 'deletecollection']
  const patch = JSON.stringify([{ op: 'replace', path: `/rules/${rule}/verbs`, value }])
  await bench().kubectl('patch', kind, name, '-n', 'certferry', '--type=json', '--patch', patch)
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
  const { url, caFile, createToken } = bench().cluster
  const text = await bench().kubectl(
    'get',
    'configmap',
    'certferry-injector-config',
    '-n',
    'certferry',
    '-o',
    'jsonpath={.data.config\\.yaml}',
  )
  const config = InjectorConfig.parse(parse(text))
  const tokenFile = join(bench().folder, 'token')
  await writeFile(tokenFile, await createToken('certferry-injector', 'certferry'), { mode: 0o600 })
  const vaultTokenFile = join(bench().folder, 'vault-token')
  await writeFile(vaultTokenFile, await createToken('certferry-injector', 'certferry', VAULT_AUDIENCE), { mode: 0o600 })
  const { vault } = config
  const [{ source, ...certificate }] = config.certificates
  const file = join(bench().folder, 'injector.yaml')
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
        outputs: [{ kind: 'pem', directory: join(bench().folder, `injector-${port}`) }],
        verify: [{ kind: 'tls', address: `127.0.0.1:${port}` }],
      },
    ],
  }
  await writeFile(file, JSON.stringify(adapted), { mode: 0o600 })
  return file
}

/** Takes away all but the namespace in the end, which only a controller could bring to its end. */
async function applyManifest(manifest: string, how: readonly string[]) {
  const again = (text: string) => bench().succeed('kubectl', ['apply', ...how, '-f', '-'], text)
  await again(manifest)
  return {
    again,
    [Symbol.asyncDispose]: async () => {
      const objects = objectsOf(manifest).filter(({ kind }) => kind !== 'Namespace')
      await bench().succeed('kubectl', ['delete', '-f', '-'], list(objects))
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
  const names = await bench().kubectl(
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
  const { stdout } = await bench().succeed(
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
