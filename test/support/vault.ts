import { type ChildProcess, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'
import { aloneAs } from './alone.ts'
import { keepNoOrphan, logOf } from './child.ts'
import { type ComponentName, component } from './components.ts'
import { until } from './until.ts'

/** A real Vault of its own: in memory unless told otherwise, unsealed, on a free loopback port. */
export interface TestVault extends AsyncDisposable {
  readonly address: string
  readonly rootToken: string
  /** PEM file of the CA to trust; only with TLS. */
  readonly caFile: string | undefined
  readonly pid: number
  /** A request to its API, by default with the root token. Throws on any status of 400 or above. */
  api(method: 'GET' | 'POST' | 'DELETE', path: string, body?: object, options?: ApiOptions): Promise<ApiAnswer>
  /** A PKI mount with an intermediate, signed by a root in a mount beside it. Gives the root in PEM. */
  setupPki(options?: PkiSetup): Promise<{ readonly rootPem: string }>
  /** An approle role with this policy. */
  setupApprole(options: ApproleSetup): Promise<TestApprole>
  /** A new policy with these rules; gives its name. */
  createPolicy(rules: string): Promise<string>
  /** A token with this policy. */
  createToken(options: { policy: string; body?: object }): Promise<string>
  /** All requests that the audit device has seen since the start, oldest first. */
  audited(): Promise<Audited[]>
  seal(): Promise<void>
  unseal(): Promise<void>
  /** SIGKILL, the same again on the same port after `downMs`, and unsealed. What was in memory is lost. */
  restart(options?: { readonly downMs?: number }): Promise<void>
}

/** What a stage asks of Vault, be it one server or a cluster. */
export type StagedVault = Pick<TestVault, 'address' | 'api' | 'setupPki' | 'setupApprole' | 'audited'>

interface ApiOptions {
  readonly token?: string
  readonly headers?: Record<string, string>
}

export interface PkiSetup {
  readonly mount?: string
  readonly roles?: Readonly<Record<string, object>>
  /** False leaves the root out of the mount, as it is where the root is kept offline. */
  readonly withRoot?: boolean
}

export interface ApproleSetup {
  readonly policy: string
  /** Further settings of the role, such as `token_ttl`. */
  readonly role?: object
}

export interface TestApprole {
  readonly name: string
  readonly roleId: string
  secretId(body?: object): Promise<string>
  /** A response-wrapping token around a new secret_id. */
  wrappedSecretId(): Promise<string>
}

export interface Audited {
  readonly operation: string
  readonly path: string
  /** Vault's reason where it refused. */
  readonly error: string
  /** When it answered, ms since 1970. */
  readonly at: number
  /** Of what it issued, in lower-case hex; hashed unless the mount says `audit_non_hmac_response_keys`. */
  readonly serial: string | undefined
}

const Answer = z.object({
  /** Empty where what it gives has no lease. */
  lease_id: z.string().nullish(),
  lease_duration: z.number().nullish(),
  renewable: z.boolean().nullish(),
  data: z.record(z.string(), z.unknown()).nullish(),
  auth: z.object({ client_token: z.string() }).nullish(),
  wrap_info: z.object({ token: z.string() }).nullish(),
})
type ApiAnswer = z.output<typeof Answer>

/** The policy that the docs recommend: one role, one verb. */
export const signOnly = (mount: string, role: string) => `path "${mount}/sign/${role}" { capabilities = ["update"] }`

/** Any name below example.com, addresses, SPIFFE ids, any key. */
export const WEB_ROLE = {
  allowed_domains: ['example.com'],
  allow_subdomains: true,
  allow_bare_domains: true,
  allowed_uri_sans: ['spiffe://example.org/*'],
  key_type: 'any',
  max_ttl: '72h',
}

export interface VaultTls {
  readonly caPem: string
  readonly certPem: string
  readonly keyPem: string
  /** When given, clients must present a certificate of this CA. */
  readonly clientCaPem?: string
  /** Client certificate for the requests that this helper sends. */
  readonly client?: { readonly certPem: string; readonly keyPem: string }
}

export interface VaultSetup {
  readonly tls?: VaultTls
  /** `raft`, a cluster of one, outlives a restart. */
  readonly storage?: Storage
  /** Auth methods that are plugins here: the build of Vault that the tests use has none of them. */
  readonly authPlugins?: readonly AuthPlugin[]
  /** Secrets engines that hand out leases and need a plugin as well; leasing.ts sets them up. */
  readonly engines?: readonly Engine[]
}

type Storage = 'inmem' | 'raft'

const AUTH_PLUGINS = {
  kubernetes: 'vault-plugin-auth-kubernetes',
  ldap: 'vault-plugin-auth-ldap',
  aws: 'vault-plugin-auth-aws',
} as const
type AuthPlugin = keyof typeof AUTH_PLUGINS

const ENGINES = {
  // Vault has the engine itself; what it lacks is the database.
  database: { type: 'database', name: 'postgresql-database-plugin', program: 'vault-plugin-database-postgresql' },
  rabbitmq: { type: 'secret', name: 'rabbitmq', program: 'vault-plugin-secrets-rabbitmq' },
  kubernetes: { type: 'secret', name: 'kubernetes', program: 'vault-plugin-secrets-kubernetes' },
  ldap: { type: 'secret', name: 'ldap', program: 'vault-plugin-secrets-openldap' },
  consul: { type: 'secret', name: 'consul', program: 'vault-plugin-secrets-consul' },
} as const
type Engine = keyof typeof ENGINES

/** Starts Vault and waits until it answers; dispose of it to end it. */
export async function startVault(setup: VaultSetup = {}): Promise<TestVault> {
  const { tls, storage = 'inmem' } = setup
  const program = await component('vault')
  const plugins = await pluginsFor(setup)
  const directory = await mkdtemp(join(tmpdir(), 'certferry-vault-'))
  const port = await freePort()
  const address = `${tls ? 'https' : 'http'}://127.0.0.1:${port}`
  const config = await writeConfig(directory, { port, tls, storage, plugins: plugins.map(({ file }) => file) })
  const send = sender(address, tls)
  // A Vault that is killed leaves its plugins running.
  const before = plugins.length > 0 ? aloneAs() : []
  const start = () => startServer(program, { config, home: directory, send, before })
  let server = await start().catch(async (error) => {
    await rm(directory, { recursive: true, force: true })
    throw error
  })
  const dispose = async () => {
    await server.stop()
    await rm(directory, { recursive: true, force: true })
  }
  try {
    const { rootToken, unsealKey } = await initialise(send)
    await untilActive(send)
    const vault = helpers({ send, rootToken, unsealKey, auditFile: join(directory, 'audit.log') })
    await vault.api('POST', 'sys/audit/file', { type: 'file', options: { file_path: join(directory, 'audit.log') } })
    for (const plugin of plugins) await registerPlugin(vault.api, plugin)
    return {
      ...vault,
      address,
      rootToken,
      caFile: tls && join(directory, 'ca.pem'),
      get pid() {
        return server.pid
      },
      restart: async ({ downMs = 0 } = {}) => {
        await server.stop()
        await sleep(downMs)
        server = await start()
        await vault.unseal()
        await untilActive(send)
      },
      [Symbol.asyncDispose]: dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

interface Plugin {
  readonly type: 'auth' | 'database' | 'secret'
  readonly name: string
  readonly program: ComponentName
}

async function pluginsFor({ authPlugins = [], engines = [] }: VaultSetup) {
  const plugins: readonly Plugin[] = [
    ...authPlugins.map((name) => ({ type: 'auth', name, program: AUTH_PLUGINS[name] }) as const),
    ...engines.map((name) => ENGINES[name]),
  ]
  return Promise.all(
    plugins.map(async ({ program, ...plugin }) => ({ ...plugin, file: await realpath(await component(program)) })),
  )
}

type PluginFile = Omit<Plugin, 'program'> & { readonly file: string }

async function registerPlugin(api: TestVault['api'], { type, name, file }: PluginFile): Promise<void> {
  const sha256 = createHash('sha256')
    .update(await readFile(file))
    .digest('hex')
  await api('POST', `sys/plugins/catalog/${type}/${name}`, { sha256, command: basename(file) })
}

interface ServerStart {
  readonly config: string
  readonly home: string
  readonly send: Send
  /** Words to put before the command. */
  readonly before?: readonly string[]
}

export async function startServer(program: string, { config, home, send, before = [] }: ServerStart) {
  const [command = '', ...args] = [...before, program, 'server', `-config=${config}`]
  const child = spawn(command, args, {
    // Nothing of the environment that could lead it elsewhere.
    env: { PATH: process.env.PATH ?? '', HOME: home },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const kill = keepNoOrphan(child)
  const stop = async () => {
    await kill()
    const isGone = () =>
      send('GET', 'sys/health').then(
        () => false,
        () => true,
      )
    if (before.length > 0) await until('Vault is gone as well', isGone)
  }
  try {
    await untilItAnswers(child, send, logOf(child))
  } catch (error) {
    await stop()
    throw error
  }
  return { pid: child.pid ?? 0, stop }
}

interface ServerSettings {
  readonly port: number
  readonly tls: VaultTls | undefined
  readonly storage: Storage
  /** Those that it may run, all in one folder. */
  readonly plugins: readonly string[]
}

async function writeConfig(directory: string, { port, tls, storage, plugins }: ServerSettings): Promise<string> {
  const path = join(directory, 'vault.hcl')
  const blocks = [await listenerBlock(directory, { port, tls }), await storageBlock(directory, port, storage)]
  const [folder] = plugins.map(dirname)
  if (folder !== undefined) blocks.push(`plugin_directory = "${folder}"\n`)
  await writeFile(path, `disable_mlock = true\n${blocks.join('')}`, { mode: 0o600 })
  return path
}

interface Listener {
  readonly port: number
  /** Where the other nodes of a cluster connect; by default the port after the other one. */
  readonly clusterPort?: number
  readonly tls: VaultTls | undefined
}

export async function listenerBlock(directory: string, { port, clusterPort, tls }: Listener): Promise<string> {
  const save = async (name: string, content: string) => {
    await writeFile(join(directory, name), content, { mode: 0o600 })
    return join(directory, name)
  }
  const settings = [`address = "127.0.0.1:${port}"`]
  if (clusterPort !== undefined) settings.push(`cluster_address = "127.0.0.1:${clusterPort}"`)
  if (tls) {
    await save('ca.pem', tls.caPem)
    settings.push(`tls_cert_file = "${await save('server.crt', tls.certPem)}"`)
    settings.push(`tls_key_file = "${await save('server.key', tls.keyPem)}"`)
    if (tls.clientCaPem !== undefined) {
      settings.push(`tls_client_ca_file = "${await save('client-ca.pem', tls.clientCaPem)}"`)
      settings.push('tls_require_and_verify_client_cert = true')
    }
  } else settings.push('tls_disable = true')
  return `listener "tcp" {\n  ${settings.join('\n  ')}\n}\n`
}

async function storageBlock(directory: string, port: number, storage: Storage): Promise<string> {
  if (storage === 'inmem') return 'storage "inmem" {}\n'
  const path = join(directory, 'raft')
  await mkdir(path)
  // A cluster of one talks to nobody, but wants addresses all the same.
  return [
    `storage "raft" {\n  path = "${path}"\n  node_id = "one"\n}`,
    `cluster_addr = "http://127.0.0.1:${await freePort()}"`,
    `api_addr = "http://127.0.0.1:${port}"\n`,
  ].join('\n')
}

/** Another process may take the port before Vault does; then the start fails loudly, which has not been seen. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const place = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (place === null || typeof place === 'string') throw new Error('no port')
  return place.port
}

export type Send = (
  method: string,
  path: string,
  body?: object,
  headers?: Record<string, string>,
) => Promise<{ status: number; body: string }>

export function sender(address: string, tls: VaultTls | undefined): Send {
  const trust = tls && { ca: tls.caPem, cert: tls.client?.certPem, key: tls.client?.keyPem }
  return (method, path, body, headers = {}) =>
    new Promise((resolve, reject) => {
      const options = { method, headers, agent: false, ...trust }
      const url = `${address}/v1/${path}`
      const sent = tls ? httpsRequest(url, options) : httpRequest(url, options)
      sent.on('error', reject)
      sent.on('response', (reply) =>
        text(reply).then((content) => resolve({ status: reply.statusCode ?? 0, body: content }), reject),
      )
      sent.end(body && JSON.stringify(body))
    })
}

const untilActive = (send: Send) =>
  until('Vault is active', async () => (await send('GET', 'sys/health')).status === 200)

async function untilItAnswers(child: ChildProcess, send: Send, log: () => string): Promise<void> {
  const started = Date.now()
  while (child.exitCode === null && Date.now() - started < 60_000) {
    const { status } = await send('GET', 'sys/health').catch(() => ({ status: 0 }))
    if (status > 0) return
    await sleep(20)
  }
  throw new Error(`Vault does not answer (exit code ${child.exitCode}):\n${log()}`)
}

const Initialised = z.object({ root_token: z.string(), keys_base64: z.tuple([z.string()]) })

export async function initialise(send: Send) {
  const { body } = await send('POST', 'sys/init', { secret_shares: 1, secret_threshold: 1 })
  const { root_token: rootToken, keys_base64: keys } = Initialised.parse(JSON.parse(body))
  await send('POST', 'sys/unseal', { key: keys[0] })
  return { rootToken, unsealKey: keys[0] }
}

interface Started {
  readonly send: Send
  readonly rootToken: string
  readonly unsealKey: string
  readonly auditFile: string
}

export function helpers({ send, rootToken, unsealKey, auditFile }: Started) {
  const api: TestVault['api'] = async (method, path, body, { token = rootToken, headers = {} } = {}) => {
    const reply = await send(method, path, body, { 'X-Vault-Token': token, ...headers })
    if (reply.status >= 400) throw new Error(`${method} ${path}: ${reply.status} ${reply.body}`)
    return reply.body === '' ? {} : Answer.parse(JSON.parse(reply.body))
  }
  const field = async (answer: Promise<ApiAnswer>, name: string) => z.string().parse((await answer).data?.[name])

  const withPolicy = async (policy: string) => {
    const name = `policy-${randomBytes(4).toString('hex')}`
    await api('POST', `sys/policies/acl/${name}`, { policy })
    return name
  }

  return {
    api,
    createPolicy: withPolicy,
    setupPki: async ({ mount = 'pki', roles = { web: WEB_ROLE }, withRoot = true }: PkiSetup = {}) => {
      const rootMount = `${mount}-root`
      const engine = { type: 'pki', config: { max_lease_ttl: '87600h' } }
      await api('POST', `sys/mounts/${rootMount}`, engine)
      await api('POST', `sys/mounts/${mount}`, engine)
      const key = { key_type: 'ec', key_bits: 256 }
      const root = { common_name: `${mount} root`, ttl: '87600h', ...key }
      const rootPem = await field(api('POST', `${rootMount}/root/generate/internal`, root), 'certificate')
      const middle = { common_name: `${mount} intermediate`, ...key }
      const csr = await field(api('POST', `${mount}/intermediate/generate/internal`, middle), 'csr')
      const signing = { csr, common_name: middle.common_name, ttl: '43800h' }
      const signed = await field(api('POST', `${rootMount}/root/sign-intermediate`, signing), 'certificate')
      const certificate = withRoot ? `${signed}\n${rootPem}` : signed
      await api('POST', `${mount}/intermediate/set-signed`, { certificate })
      for (const [role, settings] of Object.entries(roles)) await api('POST', `${mount}/roles/${role}`, settings)
      return { rootPem }
    },
    setupApprole: async ({ policy, role = {} }: ApproleSetup): Promise<TestApprole> => {
      await api('POST', 'sys/auth/approle', { type: 'approle' }).catch((error: Error) => {
        if (!error.message.includes('already in use')) throw error
      })
      const name = `role-${randomBytes(4).toString('hex')}`
      const path = `auth/approle/role/${name}`
      await api('POST', path, { token_policies: [await withPolicy(policy)], ...role })
      return {
        name,
        roleId: await field(api('GET', `${path}/role-id`), 'role_id'),
        secretId: (body = {}) => field(api('POST', `${path}/secret-id`, body), 'secret_id'),
        wrappedSecretId: async () => {
          const { wrap_info: wrapped } = await api(
            'POST',
            `${path}/secret-id`,
            {},
            { headers: { 'X-Vault-Wrap-TTL': '300' } },
          )
          return wrapped?.token ?? ''
        },
      }
    },
    createToken: async ({ policy, body = {} }: { policy: string; body?: object }) => {
      const { auth } = await api('POST', 'auth/token/create', { policies: [await withPolicy(policy)], ...body })
      return auth?.client_token ?? ''
    },
    audited: async (): Promise<Audited[]> =>
      (await readFile(auditFile, 'utf8'))
        .split('\n')
        // What follows the last newline is nothing, or a line that is just being written.
        .slice(0, -1)
        .map((line) => AuditLine.parse(JSON.parse(line)))
        .filter(({ type }) => type === 'response')
        .map(({ request, response, error, time }) => {
          const serial = response?.data?.serial_number?.replaceAll(':', '')
          return { ...request, error, at: Date.parse(time), serial }
        }),
    seal: async () => {
      await api('POST', 'sys/seal')
    },
    unseal: async () => {
      await send('POST', 'sys/unseal', { key: unsealKey })
    },
  }
}

const AuditLine = z.object({
  type: z.string(),
  time: z.string(),
  error: z.string().default(''),
  request: z.object({ operation: z.string(), path: z.string() }),
  response: z.object({ data: z.object({ serial_number: z.string().optional() }).nullish() }).optional(),
})
