import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Job {
  /** Empty folder for configuration and state. */
  readonly folder: string
  /** One per certificate: where `tls.crt` and `tls.key` shall appear. */
  readonly directories: readonly string[]
  /** One per secret: where `secret.txt` shall hold the password of `kv/bench/<index>`. */
  readonly secretDirectories: readonly string[]
  readonly vault: { readonly address: string; readonly token: string }
  readonly role: string
  /** Where to give its metrics, if it does so only when told; undefined for nowhere. */
  readonly metricsPort?: number
}

export interface Launch {
  readonly program: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  /** Where its metrics are, by what it has logged; undefined when it gives none. */
  readonly metricsUrl?: (log: string) => string | undefined
}

/** A program that takes part. */
export interface Contender {
  readonly name: string
  readonly version: string
  /** Without the libraries and interpreters it needs. */
  readonly program: string
  /** Writes the configuration that its own documentation shows for this job. */
  prepare(job: Job): Launch
}

/** Where a secret appears. */
export const SECRET_FILE = 'secret.txt'

const BASE_ENV = { PATH: '/usr/bin:/bin' }

/** What a user gets from the Dockerfile: one malloc arena, a small young generation, a compile cache that is warm. */
export const likeTheImage = (compileCache: string) => ({
  flags: ['--max-semi-space-size=1', '--liftoff-only', '--no-memory-reducer'],
  env: { MALLOC_ARENA_MAX: '1', NODE_COMPILE_CACHE: compileCache },
})

/** Keys are made here, and Vault signs them. The warm-up fills the compile cache. */
export function certferry(node: string, bundle: string, compileCache: string): Contender {
  return {
    name: 'certferry',
    program: bundle,
    version: versionOf(node, bundle, '--version'),
    prepare: ({ folder, directories, secretDirectories, vault, role }) => {
      const config = join(folder, 'certferry.json')
      const certificates = directories.map((directory, index) => ({
        name: `bench-${index}`,
        source: { kind: 'vault-pki', mount: 'pki', role, commonName: commonName(index) },
        key: { algorithm: 'ecdsa-p256' },
        outputs: [{ kind: 'pem', directory }],
      }))
      const secrets = secretDirectories.map((directory, index) => ({
        name: `secret-${index}`,
        values: { v: { kind: 'vault-kv', mount: 'kv', path: `bench/${index}` } },
        outputs: [{ kind: 'template', directory, file: SECRET_FILE, template: '{{ v.password }}' }],
      }))
      const admin = { listen: '127.0.0.1:0', socket: join(folder, 'control.sock') }
      write(
        config,
        JSON.stringify({
          vault: { address: vault.address, auth: { kind: 'token', token: vault.token } },
          admin,
          certificates,
          secrets,
        }),
      )
      const { flags, env } = likeTheImage(compileCache)
      return {
        program: node,
        args: [...flags, bundle, 'run', '-c', config],
        env: { ...BASE_ENV, ...env },
        metricsUrl: (log) => {
          const [, address] = /"address":"(http:[^"]+)"/.exec(log) ?? []
          return address && `${address}/metrics`
        },
      }
    },
  }
}

/** Vault makes the keys, as `pkiCert` can do nothing else. https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent/template */
export function vaultAgent(program: string): Contender {
  return {
    name: 'Vault Agent',
    program,
    version: versionOf(program, 'version'),
    prepare: ({ folder, directories, secretDirectories, vault, role, metricsPort }) => {
      const config = join(folder, 'agent.hcl')
      const tokenFile = join(folder, 'token')
      write(tokenFile, vault.token)
      const auth = `auto_auth {\n  method "token_file" {\n    config = { token_file_path = "${tokenFile}" }\n  }\n}\n`
      const templates = [
        ...directories.map((directory, index) => template(directory, role, index)),
        ...secretDirectories.map(secretTemplate),
      ]
      const listener = metricsPort === undefined ? '' : metricsListener(metricsPort)
      write(config, `vault {\n  address = "${vault.address}"\n}\n${auth}${listener}${templates.join('')}`)
      return {
        program,
        args: ['agent', `-config=${config}`],
        env: { ...BASE_ENV, HOME: folder },
        metricsUrl: () => (metricsPort === undefined ? undefined : `http://127.0.0.1:${metricsPort}/agent/v1/metrics`),
      }
    },
  }
}

/** A listener that gives metrics and nothing else. https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent#listener-stanza */
const metricsListener = (port: number) =>
  `listener "tcp" {\n  address = "127.0.0.1:${port}"\n  tls_disable = true\n  role = "metrics_only"\n}\n`

/** Vault makes the keys here as well. https://github.com/hashicorp/consul-template/blob/main/docs/configuration.md */
export function consulTemplate(program: string): Contender {
  return {
    name: 'consul-template',
    program,
    version: versionOf(program, '-version'),
    prepare: ({ folder, directories, secretDirectories, vault, role }) => {
      const config = join(folder, 'consul-template.hcl')
      const templates = [
        ...directories.map((directory, index) => template(directory, role, index)),
        ...secretDirectories.map(secretTemplate),
      ]
      write(config, `vault {\n  address = "${vault.address}"\n  renew_token = false\n}\n${templates.join('')}`)
      return { program, args: [`-config=${config}`], env: { ...BASE_ENV, HOME: folder, VAULT_TOKEN: vault.token } }
    },
  }
}

/** Both programs share the template language: one template writes the certificate, and the key beside it. */
function template(directory: string, role: string, index: number): string {
  const request = `pkiCert "pki/issue/${role}" "common_name=${commonName(index)}"`
  const contents = `{{ with ${request} }}{{ .Cert }}{{ .CA }}{{ .Key | writeToFile "${directory}/tls.key" "" "" "0600" }}{{ end }}`
  return `template {\n  contents = ${JSON.stringify(contents)}\n  destination = "${directory}/tls.crt"\n  perms = "0600"\n}\n`
}

function secretTemplate(directory: string, index: number): string {
  const contents = `{{ with secret "kv/data/bench/${index}" }}{{ .Data.data.password }}{{ end }}`
  return `template {\n  contents = ${JSON.stringify(contents)}\n  destination = "${directory}/${SECRET_FILE}"\n  perms = "0600"\n}\n`
}

const versionOf = (program: string, ...args: readonly string[]) =>
  /\d+\.\d+\.\d+/.exec(execFileSync(program, [...args], { encoding: 'utf8' }))?.[0] ?? 'unknown'

const commonName = (index: number) => `bench-${index}.internal`

function write(path: string, content: string) {
  writeFileSync(path, content, { mode: 0o600 })
}
