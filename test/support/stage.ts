import { randomBytes } from 'node:crypto'
import { existsSync, rmSync } from 'node:fs'
import { mkdir, mkdtemp, rename, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Layout } from '../../src/outputs/output.ts'
import { type Certferry, type StartOptions, startCertferry } from './certferry.ts'
import { freePort, type Nginx, type NginxOptions, startNginx } from './nginx.ts'
import { type StagedVault, signOnly, type TestApprole, WEB_ROLE } from './vault.ts'

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
  /** More options of the source, the verifier, the reloader, or the certificate. */
  readonly source?: object
  readonly verify?: object
  readonly reload?: object
  readonly more?: object
}

/** A folder with all that one certferry needs: a role in a shared Vault, an approle login that may do nothing but sign, a volume. */
export interface Stage extends AsyncDisposable {
  readonly folder: string
  /** In memory, as the volumes of most pods are. */
  readonly volume: string
  readonly mount: string
  readonly role: string
  readonly approle: TestApprole
  readonly configFile: string
  readonly socket: string
  /** Where nginx will listen, and keep its pid. */
  readonly port: number
  readonly pidFile: string
  /** PEM file of the root that clients trust. */
  readonly caFile: string
  /** The set-up of the README for one certificate. */
  web(options?: WebOptions): object
  /** Puts a file into the folder, or replaces it by rename; gives its path. */
  place(name: string, content: string): Promise<string>
  /** Replaces the config by rename. */
  configure(...certificates: readonly object[]): Promise<void>
  certferry(options?: Partial<StartOptions>): Certferry
  /** Serves the certificate of `web` by its layout, once that is on disk. */
  nginx(options?: WebOptions & NginxOptions): Promise<Nginx>
  /** How many certificates Vault issued from this role, by its audit log. */
  issued(): Promise<number>
}

export interface StageOptions {
  readonly vault: StagedVault
  /** Where certferry is to find Vault, when something stands in between. */
  readonly address?: string
  /** The PKI mount, `pki` unless given, with its root in a mount beside it. */
  readonly mount?: string
  /** `signOnly` unless given. */
  readonly policy?: (mount: string, role: string) => string
  /** More settings of the approle, such as `token_ttl`, and of `vault.auth` and `vault` in the config. */
  readonly approle?: object
  readonly authOptions?: object
  /** A function where it names files of the folder. */
  readonly vaultOptions?: object | ((folder: string) => object)
  /** In memory unless given. */
  readonly volumeIn?: string
  /** What runs instead of `src/cli.ts`. */
  readonly program?: string
}

export async function createStage(options: StageOptions): Promise<Stage> {
  const { vault, address = vault.address, mount = 'pki', volumeIn = MEMORY, program } = options
  const { policy = signOnly, approle = {}, authOptions = {}, vaultOptions = {} } = options
  const role = `web-${randomBytes(4).toString('hex')}`
  await vault.api('POST', `${mount}/roles/${role}`, WEB_ROLE)
  const login = await vault.setupApprole({ policy: policy(mount, role), role: { token_ttl: '1h', ...approle } })
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
    ...authOptions,
  }
  const caFile = await place('ca.pem', await rootOf(vault, mount))
  const { port, pidFile, socket } = {
    port: await freePort(),
    pidFile: join(folder, 'nginx.pid'),
    socket: join(folder, 'control.sock'),
  }
  const configFile = join(folder, 'config.yaml')
  const configure = async (...certificates: readonly object[]) => {
    const admin = { listen: '127.0.0.1:0', socket }
    const more = typeof vaultOptions === 'function' ? vaultOptions(folder) : vaultOptions
    const config = { vault: { address, auth, ...more }, admin, certificates }
    await place('config.yaml', JSON.stringify(config, undefined, 2))
  }
  const directoryOf = ({ name = 'web', directory = join(volume, name) }: WebOptions = {}) => directory
  await mkdir(directoryOf(), { mode: 0o700 })

  return {
    folder,
    volume,
    mount,
    role,
    approle: login,
    configFile,
    socket,
    port,
    pidFile,
    caFile,
    place,
    configure,
    web: (options = {}) => {
      const { name = 'web', commonName = SERVER_NAME, altNames = [], ttl = '72h', layout = 'nginx-include' } = options
      const { served = true, source = {}, verify = {}, reload = {}, more = {} } = options
      return {
        name,
        source: { kind: 'vault-pki', mount, role, commonName, altNames, ttl, ...source },
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
    issued: async () => {
      const paths = [`${mount}/sign/${role}`, `${mount}/issue/${role}`]
      return (await vault.audited()).filter(({ path, serial }) => paths.includes(path) && serial !== undefined).length
    },
    [Symbol.asyncDispose]: async () => {
      process.removeListener('exit', remove)
      remove()
    },
  }
}

const MEMORY = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

async function rootOf(vault: StagedVault, mount: string): Promise<string> {
  const { data } = await vault.api('GET', `${mount}-root/cert/ca`)
  return String(data?.certificate)
}
