import { execFile, spawn } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { rmSync } from 'node:fs'
import { mkdtemp, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import * as z from 'zod'
import { createTestCa } from './ca.ts'
import { keepNoOrphan, logOf } from './child.ts'
import { type ComponentName, component } from './components.ts'
import { freePort } from './nginx.ts'
import { until } from './until.ts'

/** What `startKubernetes` runs, for `skipReason`. */
export const CONTROL_PLANE = [
  'etcd',
  'kube-apiserver',
  'kube-controller-manager',
  'kubectl',
] as const satisfies readonly ComponentName[]

/** The audience that tokens for Vault are made for. */
export const VAULT_AUDIENCE = 'vault'

export interface KubernetesSetup {
  /** What makes pods of Deployments and Jobs, and service accounts and ConfigMap `kube-root-ca.crt` of namespaces. */
  readonly controllerManager?: boolean
}

/**
 * A real control plane on ports of loopback: etcd, kube-apiserver with RBAC and its default admission (ServiceAccount, PodSecurity, webhooks),
 * and on demand the controller manager. There is no scheduler and no kubelet: pods stay Pending; pod-runner.ts runs them.
 */
export interface TestKubernetes extends AsyncDisposable {
  /** The API server, and the issuer of the tokens of service accounts: its discovery documents are there too. */
  readonly url: string
  readonly port: number
  readonly caPem: string
  /** The same in a file. */
  readonly caFile: string
  /** Of a member of system:masters, who may do everything. */
  readonly token: string
  /** For kubectl and helm, with that token. */
  readonly kubeconfig: string
  /** What it signs the tokens of service accounts with, in PKCS#8; RSA. */
  readonly signingKeyFile: string
  /** A folder that goes with the control plane. */
  readonly folder: string
  /** Standard output of kubectl. Throws with its standard error where it fails. */
  kubectl(args: readonly string[], stdin?: string): Promise<string>
  /** What the API server answers, whatever that is. */
  send(method: Method, path: string, body?: unknown, options?: RequestOptions): Promise<KubernetesAnswer>
  /** The object in the answer. Throws on any status of 400 or above, with the reason that the API server gives. */
  api(method: Method, path: string, body?: unknown, options?: RequestOptions): Promise<unknown>
  /** With all that pods need in it: the service account `default`, and the CA of the API server. */
  createNamespace(name: string, labels?: Readonly<Record<string, string>>): Promise<void>
  createServiceAccount(name: string, namespace: string): Promise<void>
  /** A token of a service account by TokenRequest, for the audience of the API server unless another is given. */
  createToken(serviceAccount: string, namespace: string, audience?: string, more?: TokenOptions): Promise<string>
}

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

export interface RequestOptions {
  /** That of an administrator unless given. */
  readonly token?: string
  /** JSON unless given; a merge patch for PATCH. */
  readonly contentType?: string
}

export interface KubernetesAnswer {
  readonly status: number
  readonly body: unknown
}

export interface TokenOptions {
  readonly expirationSeconds?: number
  /** The pod that the token is to die with. */
  readonly pod?: { readonly name: string; readonly uid: string }
}

export async function startKubernetes({ controllerManager = false }: KubernetesSetup = {}): Promise<TestKubernetes> {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-kubernetes-'))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  process.once('exit', remove)
  await using stack = new AsyncDisposableStack()
  stack.defer(() => {
    process.removeListener('exit', remove)
    remove()
  })
  const [etcdPort, peerPort, port] = [await freePort(), await freePort(), await freePort()]
  const url = `https://127.0.0.1:${port}`
  const files = await writeFiles(folder, url)
  const send = sender(url, files)
  stack.defer(() => send.close())

  // In this order also when they end: an API server without its etcd would wait for it.
  stack.use(await startEtcd(folder, etcdPort, peerPort))
  stack.use(await startApiServer({ etcdPort, port, url, files, send: send.send }))
  const cluster = clientOf({ url, port, folder, files, send: send.send, controllerManager })
  if (controllerManager) stack.use(await startControllerManager(files))
  await until('there is a namespace `default`', () => cluster.api('GET', '/api/v1/namespaces/default'))
  await cluster.ready('default')

  const owned = stack.move()
  return { ...cluster, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

interface Files {
  readonly caPem: string
  readonly caFile: string
  readonly certificate: string
  readonly key: string
  readonly token: string
  readonly tokens: string
  readonly signingKey: string
  readonly kubeconfig: string
}

async function writeFiles(folder: string, url: string): Promise<Files> {
  const save = async (name: string, content: string) => {
    await writeFile(join(folder, name), content, { mode: 0o600 })
    return join(folder, name)
  }
  const ca = await createTestCa({ commonName: 'Kubernetes Root' })
  const altNames = ['127.0.0.1', 'localhost', 'kubernetes.default.svc']
  const issued = await ca.issue({ commonName: 'kube-apiserver', altNames })
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const token = 'admin-token'
  const caFile = await save('ca.pem', ca.rootPem)
  return {
    caPem: ca.rootPem,
    caFile,
    certificate: await save('api.crt', issued.certificatePem),
    key: await save('api.key', issued.keyPem),
    token,
    tokens: await save('tokens.csv', `${token},admin,1,"system:masters"\n`),
    signingKey: await save('sa.key', String(privateKey.export({ type: 'pkcs8', format: 'pem' }))),
    kubeconfig: await save('kubeconfig', kubeconfigOf(url, caFile, token)),
  }
}

/** JSON is YAML too. */
export function kubeconfigOf(url: string, caFile: string, token: string): string {
  const name = 'test'
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name, cluster: { server: url, 'certificate-authority': caFile } }],
    users: [{ name, user: { token } }],
    contexts: [{ name, context: { cluster: name, user: name } }],
    'current-context': name,
  })
}

function startEtcd(folder: string, port: number, peerPort: number) {
  const client = `http://127.0.0.1:${port}`
  const peer = `http://127.0.0.1:${peerPort}`
  const args = [
    `--data-dir=${join(folder, 'etcd')}`,
    `--listen-client-urls=${client}`,
    `--advertise-client-urls=${client}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=default=${peer}`,
    '--unsafe-no-fsync',
    '--log-level=warn',
  ]
  return startPart('etcd', args, async () => (await fetch(`${client}/health`)).ok)
}

interface ApiServer {
  readonly etcdPort: number
  readonly port: number
  readonly url: string
  readonly files: Files
  readonly send: Send
}

function startApiServer({ etcdPort, port, url, files, send }: ApiServer) {
  const args = [
    `--etcd-servers=http://127.0.0.1:${etcdPort}`,
    `--secure-port=${port}`,
    '--bind-address=127.0.0.1',
    '--advertise-address=127.0.0.1',
    // It may not name loopback addresses, which is all there is.
    '--endpoint-reconciler-type=none',
    '--service-cluster-ip-range=10.96.0.0/24',
    `--tls-cert-file=${files.certificate}`,
    `--tls-private-key-file=${files.key}`,
    `--token-auth-file=${files.tokens}`,
    '--authorization-mode=RBAC',
    `--service-account-issuer=${url}`,
    `--api-audiences=${url},${VAULT_AUDIENCE}`,
    `--service-account-key-file=${files.signingKey}`,
    `--service-account-signing-key-file=${files.signingKey}`,
    '--allow-privileged=true',
  ]
  return startPart('kube-apiserver', args, async () => (await send('GET', '/readyz')).status === 200)
}

const CONTROLLERS = [
  'deployment-controller',
  'replicaset-controller',
  'statefulset-controller',
  'daemonset-controller',
  'job-controller',
  'serviceaccount-controller',
  'namespace-controller',
  'garbage-collector-controller',
  'root-ca-certificate-publisher-controller',
]

function startControllerManager(files: Files) {
  const args = [
    `--kubeconfig=${files.kubeconfig}`,
    '--secure-port=0',
    '--leader-elect=false',
    `--root-ca-file=${files.caFile}`,
    `--service-account-private-key-file=${files.signingKey}`,
    `--controllers=${CONTROLLERS.join(',')}`,
    '--kube-api-qps=500',
    '--kube-api-burst=500',
  ]
  return startPart('kube-controller-manager', args, () => true)
}

async function startPart(name: ComponentName, args: readonly string[], isReady: () => boolean | Promise<boolean>) {
  const child = spawn(await component(name), args, {
    // Nothing of the environment that could lead it elsewhere.
    env: { PATH: process.env.PATH ?? '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const stop = keepNoOrphan(child)
  const log = logOf(child)
  try {
    const look = async () => child.exitCode !== null || (await isReady())
    await until(`${name} is ready`, look, { timeoutMs: 120_000 })
    if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}`)
  } catch (error) {
    await stop()
    throw new Error(`${error instanceof Error ? error.message : error}:\n${log()}`, { cause: error })
  }
  return { [Symbol.asyncDispose]: stop }
}

type Send = TestKubernetes['send']

function sender(url: string, { caPem, token: admin }: Files): { readonly send: Send; readonly close: () => void } {
  const agent = new Agent({ ca: caPem, keepAlive: true })
  const send: Send = (method, path, body, { token = admin, contentType } = {}) =>
    new Promise((resolve, reject) => {
      const type = contentType ?? (method === 'PATCH' ? 'application/merge-patch+json' : 'application/json')
      const headers = { authorization: `Bearer ${token}`, accept: 'application/json', 'content-type': type }
      const sent = request(`${url}${path}`, { method, headers, agent })
      sent.on('error', reject)
      sent.on('response', (reply) => {
        const isJson = reply.headers['content-type']?.includes('json') ?? false
        const toAnswer = (content: string) =>
          resolve({ status: reply.statusCode ?? 0, body: isJson ? JSON.parse(content) : content })
        text(reply).then(toAnswer).catch(reject)
      })
      sent.end(body === undefined ? undefined : JSON.stringify(body))
    })
  return { send, close: () => agent.destroy() }
}

interface Client {
  readonly url: string
  readonly port: number
  readonly folder: string
  readonly files: Files
  readonly send: Send
  readonly controllerManager: boolean
}

const Failure = z.looseObject({ message: z.string() })
const Issued = z.looseObject({ status: z.looseObject({ token: z.string() }) })

function clientOf({ url, port, folder, files, send, controllerManager }: Client) {
  const api: TestKubernetes['api'] = async (method, path, body, options) => {
    const answer = await send(method, path, body, options)
    if (answer.status < 400) return answer.body
    const { success, data } = Failure.safeParse(answer.body)
    throw new Error(`${method} ${path}: ${answer.status} ${success ? data.message : JSON.stringify(answer.body)}`)
  }
  const createServiceAccount: TestKubernetes['createServiceAccount'] = async (name, namespace) => {
    await api('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name } })
  }
  /** Resolves when pods can be made in this namespace. */
  const ready = async (namespace: string) => {
    const path = `/api/v1/namespaces/${namespace}`
    if (controllerManager) {
      const places = [`${path}/serviceaccounts/default`, `${path}/configmaps/kube-root-ca.crt`]
      await until(`${namespace} has what pods need`, () => Promise.all(places.map((place) => api('GET', place))))
      return
    }
    await createServiceAccount('default', namespace)
    const configMap = { metadata: { name: 'kube-root-ca.crt' }, data: { 'ca.crt': files.caPem } }
    await api('POST', `${path}/configmaps`, configMap)
  }
  return {
    url,
    port,
    caPem: files.caPem,
    caFile: files.caFile,
    token: files.token,
    kubeconfig: files.kubeconfig,
    signingKeyFile: files.signingKey,
    folder,
    send,
    api,
    ready,
    kubectl: (args: readonly string[], stdin?: string) => kubectl(folder, files.kubeconfig, args, stdin),
    createServiceAccount,
    createNamespace: async (name: string, labels: Readonly<Record<string, string>> = {}) => {
      await api('POST', '/api/v1/namespaces', { metadata: { name, labels } })
      await ready(name)
    },
    createToken: async (
      serviceAccount: string,
      namespace: string,
      audience: string = url,
      { expirationSeconds = 3600, pod }: TokenOptions = {},
    ) => {
      const boundObjectRef = pod && { kind: 'Pod', apiVersion: 'v1', ...pod }
      const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${serviceAccount}/token`
      const spec = { audiences: [audience], expirationSeconds, boundObjectRef }
      return Issued.parse(await api('POST', path, { spec })).status.token
    },
  }
}

async function kubectl(folder: string, kubeconfig: string, args: readonly string[], stdin = ''): Promise<string> {
  const program = await component('kubectl')
  const env = { PATH: process.env.PATH ?? '', HOME: folder, KUBECONFIG: kubeconfig }
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { env, maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      if (error) reject(new Error(`kubectl ${args.join(' ')}: ${stderr.trim() || error.message}`, { cause: error }))
      else resolve(stdout)
    })
    // It may have ended without reading.
    child.stdin?.on('error', () => {}).end(stdin)
  })
}
