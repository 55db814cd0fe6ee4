import { randomBytes } from 'node:crypto'
import { existsSync, rmSync } from 'node:fs'
import { mkdir, mkdtemp, rename, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Layout } from '../../src/outputs/output.ts'
import { type Certferry, type StartOptions, startCertferry } from './certferry.ts'
import { freePort, type Nginx, type NginxOptions, startNginx } from './nginx.ts'
import { signOnly, type TestVault, WEB_ROLE } from './vault.ts'

export const SERVER_NAME = 'web.example.com'

/** What a certificate of the config is to be, where it differs from the one of the README. */
export interface WebOptions {
  readonly name?: string
  readonly commonName?: string
  readonly altNames?: readonly string[]
  readonly ttl?: string
  readonly layout?: Layout
  readonly directory?: string
  /** False for a certificate that nobody serves. */
  readonly served?: boolean
  /** More options of the verifier, the reloader, or the certificate. */
  readonly verify?: object
  readonly reload?: object
  readonly more?: object
}

/** A folder with all that one certferry needs: a role in a shared Vault, an approle login that may do nothing but sign, a volume. */
export interface Stage extends AsyncDisposable {
  readonly folder: string
  /** In memory, as the volumes of most pods are. */
  readonly volume: string
  readonly role: string
  readonly configFile: string
  readonly socket: string
  /** Where nginx will listen, and keep its pid. */
  readonly port: number
  readonly pidFile: string
  /** PEM file of the root that clients trust. */
  readonly caFile: string
  /** The set-up of the README for one certificate. */
  web(options?: WebOptions): object
  /** Replaces the config by rename. */
  configure(...certificates: readonly object[]): Promise<void>
  certferry(options?: Partial<StartOptions>): Certferry
  /** Serves the certificate of `web` by its layout, once that is on disk. */
  nginx(options?: WebOptions & NginxOptions): Promise<Nginx>
  /** How many certificates Vault issued from this role, by its audit log. */
  issued(): Promise<number>
}

export interface StageOptions {
  readonly vault: TestVault
  /** Where certferry is to find Vault, when something stands in between. */
  readonly address?: string
  /** In memory unless given. */
  readonly volumeIn?: string
  /** What runs instead of `src/cli.ts`. */
  readonly program?: string
}

export async function createStage(options: StageOptions): Promise<Stage> {
  const { vault, address = vault.address, volumeIn = MEMORY, program } = options
  const role = `web-${randomBytes(4).toString('hex')}`
  await vault.api('POST', `pki/roles/${role}`, WEB_ROLE)
  const login = await vault.setupApprole({ policy: signOnly('pki', role), role: { token_ttl: '1h' } })
  const folder = await mkdtemp(join(tmpdir(), 'certferry-stage-'))
  const volume = await mkdtemp(join(volumeIn, 'certferry-volume-'))
  const remove = () => {
    for (const path of [folder, volume]) rmSync(path, { recursive: true, force: true })
  }
  // Also when the tests end without disposing of it.
  process.once('exit', remove)
  const place = async (name: string, content: string) => {
    const path = join(folder, name)
    await writeFile(`${path}.new`, content, { mode: 0o600 })
    await rename(`${path}.new`, path)
    return path
  }
  const auth = {
    kind: 'approle',
    roleIdFile: await place('role-id', login.roleId),
    secretIdFile: await place('secret-id', await login.secretId()),
  }
  const caFile = await place('ca.pem', await rootOf(vault))
  const { port, pidFile, socket } = {
    port: await freePort(),
    pidFile: join(folder, 'nginx.pid'),
    socket: join(folder, 'control.sock'),
  }
  const configFile = join(folder, 'config.yaml')
  const configure = async (...certificates: readonly object[]) => {
    const admin = { listen: '127.0.0.1:0', socket }
    await place('config.yaml', JSON.stringify({ vault: { address, auth }, admin, certificates }, undefined, 2))
  }
  const directoryOf = ({ name = 'web', directory = join(volume, name) }: WebOptions = {}) => directory
  await mkdir(directoryOf(), { mode: 0o700 })

  return {
    folder,
    volume,
    role,
    configFile,
    socket,
    port,
    pidFile,
    caFile,
    configure,
    web: (options = {}) => {
      const { name = 'web', commonName = SERVER_NAME, altNames = [], ttl = '72h', layout = 'nginx-include' } = options
      const { served = true, verify = {}, reload = {}, more = {} } = options
      return {
        name,
        source: { kind: 'vault-pki', role, commonName, altNames, ttl },
        outputs: [{ kind: 'pem', directory: directoryOf(options), layout }],
        ...(served && {
          reload: [{ kind: 'signal', pidFile, signal: 'SIGHUP', ...reload }],
          verify: [{ kind: 'tls', address: `127.0.0.1:${port}`, serverName: commonName, ...verify }],
        }),
        ...more,
      }
    },
    certferry: (options) => startCertferry({ configFile, socket, ...(program && { program }), ...options }),
    nginx: ({ layout = 'nginx-include', server = '', ...options } = {}) => {
      const directory = directoryOf(options)
      const files = { certificate: join(directory, 'tls.crt'), key: join(directory, 'tls.key') }
      const included = { server: `include ${directory}/tls.conf;\n${server}` }
      return startNginx({
        workers: 2,
        ...options,
        port,
        pidFile,
        ...(layout === 'nginx-include' ? included : { ...files, server }),
      })
    },
    issued: async () =>
      (await vault.audited()).filter(({ path, error }) => path === `pki/sign/${role}` && error === '').length,
    [Symbol.asyncDispose]: async () => {
      process.removeListener('exit', remove)
      remove()
    },
  }
}

const MEMORY = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

async function rootOf(vault: TestVault): Promise<string> {
  const { data } = await vault.api('GET', 'pki-root/cert/ca')
  return String(data?.certificate)
}
