import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { createTestCa } from './ca.ts'
import { keepNoOrphan, logOf } from './child.ts'
import { component } from './components.ts'
import { until } from './until.ts'
import { freePort } from './vault.ts'

/** A real Pebble: an ACME server that looks at challenges on loopback. Every name leads to 127.0.0.1. */
export interface Pebble extends AsyncDisposable {
  readonly directory: string
  /** PEM file of the CA to trust for the server itself. */
  readonly caFile: string
  /** PEM file of the root that its certificates end in. */
  readonly rootFile: string
  /** Where it looks for challenges. */
  readonly httpPort: number
  readonly tlsPort: number
  /** Of the DNS server: POST set-txt, clear-txt and the like. */
  dns(path: string, body: object): Promise<string>
  readonly dnsManagement: string
  /** What it keeps of a certificate: `Valid` or `Revoked`. */
  statusOf(serial: string): Promise<string>
  readonly folder: string
  log(): string
}

export interface PebbleOptions {
  /** `pebble` as Debian has it; `pebble-ari` knows renewal information and profiles. */
  readonly program?: 'pebble' | 'pebble-ari'
  readonly env?: Readonly<Record<string, string>>
  readonly config?: object
}

export async function startPebble({ program = 'pebble', env = {}, config = {} }: PebbleOptions = {}): Promise<Pebble> {
  const binary = program === 'pebble' ? await component('pebble') : await component('pebble-ari')
  const challtestsrv = await component('pebble-challtestsrv')
  const folder = await mkdtemp(join(tmpdir(), 'certferry-pebble-'))
  const [port, management, httpPort, tlsPort, dnsPort, dnsAdmin] = await Promise.all(
    Array.from({ length: 6 }, freePort),
  )
  const ca = await createTestCa({ commonName: 'Pebble server' })
  const { certificatePem, keyPem } = await ca.issue({ commonName: 'localhost', altNames: ['localhost', '127.0.0.1'] })
  const at = (name: string) => join(folder, name)
  await writeFile(at('ca.pem'), ca.rootPem)
  await writeFile(at('cert.pem'), certificatePem)
  await writeFile(at('key.pem'), keyPem, { mode: 0o600 })
  const settings = {
    listenAddress: `127.0.0.1:${port}`,
    managementListenAddress: `127.0.0.1:${management}`,
    certificate: at('cert.pem'),
    privateKey: at('key.pem'),
    httpPort,
    tlsPort,
    ocspResponderURL: '',
    externalAccountBindingRequired: false,
    ...config,
  }
  await writeFile(at('pebble.json'), JSON.stringify({ pebble: settings }))
  const children: { child: ChildProcess; kill: () => Promise<void> }[] = []
  const start = (command: string, args: readonly string[], environment: Readonly<Record<string, string>>) => {
    const child = spawn(command, args, {
      cwd: folder,
      env: { PATH: process.env.PATH ?? '', ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    children.push({ child, kill: keepNoOrphan(child) })
    return logOf(child)
  }
  const dispose = async () => {
    for (const { kill } of children) await kill()
    await rm(folder, { recursive: true, force: true })
  }
  const none = ['-http01', '', '-https01', '', '-tlsalpn01', '']
  start(
    challtestsrv,
    [
      '-dns01',
      `127.0.0.1:${dnsPort}`,
      '-management',
      `127.0.0.1:${dnsAdmin}`,
      '-defaultIPv4',
      '127.0.0.1',
      '-defaultIPv6',
      '',
      ...none,
    ],
    {},
  )
  const log = start(binary, ['-config', at('pebble.json'), '-dnsserver', `127.0.0.1:${dnsPort}`], {
    PEBBLE_VA_NOSLEEP: '1',
    ...env,
  })
  const dnsManagement = `http://127.0.0.1:${dnsAdmin}`
  const dns = async (path: string, body: object) => {
    const reply = await fetch(`${dnsManagement}/${path}`, { method: 'POST', body: JSON.stringify(body) })
    if (!reply.ok) throw new Error(`${path}: ${reply.status}`)
    return reply.text()
  }
  try {
    const directory = `https://127.0.0.1:${port}/dir`
    await until('Pebble answers', () => {
      if (children.some(({ child }) => child.exitCode !== null)) throw new Error(`it ended: ${log()}`)
      return get(directory, ca.rootPem)
    })
    await until('its DNS answers', () => dns('clear-txt', { host: 'ready.' }).then(() => true))
    await writeFile(at('root.pem'), await get(`https://127.0.0.1:${management}/roots/0`, ca.rootPem))
    const files = { caFile: at('ca.pem'), rootFile: at('root.pem') }
    return {
      directory,
      ...files,
      httpPort: httpPort ?? 0,
      tlsPort: tlsPort ?? 0,
      dns,
      dnsManagement,
      statusOf: async (serial: string) => {
        const told = await get(`https://127.0.0.1:${management}/cert-status-by-serial/${serial}`, ca.rootPem)
        return /"Status":\s*"(\w+)"/.exec(told)?.[1] ?? told
      },
      folder,
      log,
      [Symbol.asyncDispose]: dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

const get = (url: string, ca: string) =>
  new Promise<string>((resolve, reject) => {
    request(url, { ca }, (response) => text(response).then(resolve, reject))
      .on('error', reject)
      .end()
  })
