import { stringify } from 'yaml'
import { quote } from '../core/secret.ts'
import { type Annotations, DNS_LABEL, PREFIX } from './annotations.ts'
import { parseCertificate } from './short-forms.ts'
import type { Trouble } from './wish.ts'

export const VAULT_PREFIX = 'vault.hashicorp.com/'
const INJECT = `${VAULT_PREFIX}agent-inject`
const DONE = `${VAULT_PREFIX}agent-inject-status`

/** What becomes of an annotation of vault-k8s: our name for it, or why there is none. */
export interface Equivalent {
  /** Ours, without prefix. */
  readonly becomes?: string
  readonly value?: (value: string) => string
  /** For people; with `refused` what to write instead. */
  readonly note?: string
  readonly refused?: boolean
}

/** https://developer.hashicorp.com/vault/docs/platform/k8s/injector/annotations. Names with `-<name>` stand for one of each secret. */
export const EQUIVALENTS: Readonly<Record<string, Equivalent>> = {
  'agent-inject': { becomes: 'inject' },
  'agent-inject-status': { note: 'a pod that vault-k8s has injected is left alone' },
  'agent-inject-secret-<name>': {
    becomes: 'certificate.<name>',
    note: 'where it is a path of PKI, pki/issue/web or pki/sign/web; parameters from the template. Other secrets are refused',
  },
  'agent-inject-template-<name>': {
    becomes: 'certificate.<name>',
    note: 'its path and parameters are read; what it prints becomes one file with key and chain (output combined)',
  },
  'agent-inject-template-file-<name>': { refused: true, note: 'write certferry.io/certificate.<name> instead' },
  'agent-inject-default-template': { note: 'certificates are written as PEM' },
  'agent-template-left-delim-<name>': { refused: true, note: 'write certferry.io/certificate.<name> instead' },
  'agent-template-right-delim-<name>': { refused: true, note: 'write certferry.io/certificate.<name> instead' },
  'agent-inject-file-<name>': { becomes: 'certificate.<name>', note: 'name of the file' },
  'agent-inject-perms-<name>': { becomes: 'certificate.<name>', note: 'mode of the file' },
  'agent-inject-command-<name>': {
    becomes: 'reload.<name>',
    note: 'where it only sends a signal: pkill -HUP nginx, kill -HUP $(pidof nginx). Others are refused: reload by http or exec',
  },
  'error-on-missing-key-<name>': { note: 'nothing is written unless it is whole' },
  'secret-volume-path': { becomes: 'volume-path', note: '/vault/secrets unless given' },
  'secret-volume-path-<name>': { refused: true, note: 'write certferry.io/directory.<name>, below volume-path' },
  'preserve-secret-case': { note: 'names are taken as they are, in lower case' },
  'agent-inject-containers': { becomes: 'containers' },
  'agent-copy-volume-mounts': { refused: true, note: 'write certferry.io/extra-secret or json-patch' },
  'agent-inject-token': { refused: true, note: 'the token stays in certferry; let the app log in by itself' },
  'agent-image': { note: 'another program; write certferry.io/image' },
  'agent-configmap': { refused: true, note: 'write certferry.io/config with a config of certferry' },
  'agent-extra-secret': { becomes: 'extra-secret' },
  'agent-init-first': { becomes: 'init-first' },
  'agent-pre-populate': { note: 'a native sidecar is always there first' },
  'agent-pre-populate-only': { becomes: 'init-only' },
  'agent-requests-cpu': { note: 'for Vault Agent; write certferry.io/requests-cpu' },
  'agent-requests-mem': { note: 'for Vault Agent; write certferry.io/requests-memory' },
  'agent-requests-ephemeral': { note: 'for Vault Agent; write certferry.io/requests-ephemeral-storage' },
  'agent-limits-cpu': { note: 'for Vault Agent; write certferry.io/limits-cpu' },
  'agent-limits-mem': { note: 'for Vault Agent; write certferry.io/limits-memory' },
  'agent-limits-ephemeral': { note: 'for Vault Agent; write certferry.io/limits-ephemeral-storage' },
  'agent-run-as-user': { becomes: 'run-as-user' },
  'agent-run-as-group': { becomes: 'run-as-group' },
  'agent-run-as-same-user': { becomes: 'run-as-same-user' },
  'agent-set-security-context': { becomes: 'set-security-context' },
  'agent-share-process-namespace': { becomes: 'share-process-namespace' },
  'agent-service-account-token-volume-name': { becomes: 'service-account-token-volume' },
  'agent-revoke-on-shutdown': { note: 'would revoke certificates that are leased to the token' },
  'agent-revoke-grace': { note: 'as agent-revoke-on-shutdown' },
  'agent-enable-quit': { note: 'a native sidecar ends with the app' },
  'agent-cache-enable': { refused: true, note: 'certferry is no proxy; keep Vault Agent for that' },
  'agent-cache-use-auto-auth-token': { note: 'no proxy' },
  'agent-cache-listener-port': { note: 'no proxy' },
  'agent-cache-exit-on-err': { note: 'no proxy' },
  'agent-auto-auth-exit-on-err': { note: 'logs in again, and says why not' },
  'auth-min-backoff': { note: 'backoff is fixed' },
  'auth-max-backoff': { note: 'backoff is fixed' },
  'template-config-exit-on-retry-failure': { note: 'tries on, and keeps what is good' },
  'template-static-secret-render-interval': { note: 'certificates are renewed by their lifetime' },
  'template-lease-renewal-threshold': { note: 'renew.after of the certificate in YAML' },
  'template-max-connections-per-host': { note: 'one connection does' },
  'agent-disable-idle-connections': { note: 'nothing is kept open' },
  'agent-disable-keep-alives': { note: 'nothing is kept open' },
  'agent-telemetry-<name>': { note: 'metrics are at /metrics' },
  'agent-json-patch': { note: 'is for the container of Vault Agent; write certferry.io/json-patch' },
  'agent-init-json-patch': { note: 'is for the container of Vault Agent; write certferry.io/init-json-patch' },
  role: { becomes: 'vault-role' },
  'auth-type': { becomes: 'auth-type' },
  'auth-path': { becomes: 'auth-path' },
  'auth-config-<name>': { refused: true, note: 'write certferry.io/auth-config' },
  service: { becomes: 'vault-address' },
  namespace: { becomes: 'vault-namespace' },
  'proxy-address': { refused: true, note: 'certferry speaks to Vault directly' },
  'tls-skip-verify': {
    refused: true,
    note: 'certferry does not talk to a Vault it cannot authenticate; write certferry.io/vault-ca',
  },
  'tls-secret': { note: 'for files of ca-cert and the like; write certferry.io/vault-ca, or vault-tls-secret' },
  'tls-server-name': { becomes: 'vault-server-name' },
  'ca-cert': { note: 'a file of tls-secret; write certferry.io/vault-ca, or have it as a default of the injector' },
  'ca-key': { note: 'no use is made of it' },
  'client-cert': { refused: true, note: 'write certferry.io/vault-tls-secret' },
  'client-key': { refused: true, note: 'write certferry.io/vault-tls-secret' },
  'client-max-retries': { note: 'tries on by itself' },
  'client-timeout': { note: 'vault.timeouts of the config' },
  'go-max-procs': { note: 'not a Go program' },
  'log-level': {
    becomes: 'log-level',
    value: (level) => (level === 'trace' ? 'debug' : level === 'err' ? 'error' : level),
  },
  'log-format': { becomes: 'log-format', value: (format) => (format === 'standard' ? 'pretty' : format) },
  'agent-request-namespace': { note: 'of vault-k8s itself' },
}

export interface Translated {
  /** Those of the pod, with ours in place of what vault-k8s would have read. */
  readonly annotations: Annotations
  readonly warnings: readonly string[]
  readonly troubles: readonly Trouble[]
}

/** Ours win where both say something. Undefined where the pod does not ask vault-k8s for anything, or has got it from there already. */
export function fromVaultK8s(annotations: Annotations): Translated | undefined {
  if (annotations[INJECT] !== 'true' || annotations[DONE] !== undefined) return undefined
  const theirs = Object.entries(annotations).flatMap(([key, value]) =>
    key.startsWith(VAULT_PREFIX) ? [{ key, value, ...familyOf(key.slice(VAULT_PREFIX.length)) }] : [],
  )
  const troubles = theirs.flatMap(({ key, equivalent }) =>
    equivalent?.refused ? [{ annotation: key, message: `has no equivalent in certferry: ${equivalent.note}` }] : [],
  )
  const ignored = theirs.filter(({ equivalent }) => !equivalent?.refused && equivalent?.becomes === undefined)
  const plain = theirs.flatMap(({ value, name, equivalent }) =>
    equivalent?.becomes !== undefined && name === undefined
      ? [[`${PREFIX}${equivalent.becomes}`, equivalent.value?.(value) ?? value]]
      : [],
  )
  const secrets = theirs
    .filter(({ family }) => family === 'agent-inject-secret-<name>')
    .map(({ name = '' }) =>
      certificateOf(name, annotations, annotations[`${VAULT_PREFIX}secret-volume-path`] ?? SECRETS),
    )
  return {
    annotations: {
      [`${PREFIX}volume-path`]: SECRETS,
      ...Object.fromEntries(plain),
      ...Object.assign({}, ...secrets.map((secret) => secret.annotations)),
      ...annotations,
    },
    warnings: [
      ...ignored.map(({ key, equivalent }) => `certferry: ${key} is ignored: ${equivalent?.note ?? 'it is not known'}`),
      ...secrets.flatMap(({ warnings }) => warnings),
    ],
    troubles: [...troubles, ...secrets.flatMap((secret) => secret.troubles)],
  }
}

/** Where vault-k8s mounts what it renders. */
const SECRETS = '/vault/secrets'

/** Longest first, so that a family is not taken for another one whose name begins alike. */
const FAMILIES = Object.keys(EQUIVALENTS)
  .filter((family) => family.endsWith('-<name>'))
  .toSorted((a, b) => b.length - a.length)

function familyOf(short: string): { family: string; name?: string; equivalent: Equivalent | undefined } {
  if (Object.hasOwn(EQUIVALENTS, short)) return { family: short, equivalent: EQUIVALENTS[short] }
  const family = FAMILIES.find((each) => short.startsWith(each.slice(0, -'<name>'.length)))
  if (family === undefined) return { family: short, equivalent: undefined }
  return { family, name: short.slice(family.length - '<name>'.length), equivalent: EQUIVALENTS[family] }
}

/** `{{ with secret "pki/issue/web" "common_name=web.example.com" }}`, or `pkiCert` in place of `secret`. */
const CALL = /\{\{-?\s*with\s+(?:\$\w+\s*:=\s*)?(?:secret|pkiCert)\s+(?<words>(?:"[^"]*"\s*)+)-?\}\}/g
const KEY = /\.(?:Data\.private_key|Key)\b/
const CERTIFICATE = /\.(?:Data\.certificate|Cert)\b/

function certificateOf(secret: string, annotations: Annotations, volumePath: string): Translated {
  const at = (family: string) => annotations[`${VAULT_PREFIX}${family}-${secret}`]
  const annotation = `${VAULT_PREFIX}agent-inject-secret-${secret}`
  const name = secret.toLowerCase()
  const fail = (message: string, place = annotation): Translated => ({
    annotations: {},
    warnings: [],
    troubles: [
      {
        annotation: place,
        message: `${message}; write ${PREFIX}certificate.${DNS_LABEL.test(name) ? name : 'web'} instead`,
      },
    ],
  })
  if (!DNS_LABEL.test(name)) return fail(`"${quote(secret, 60)}" is no name for a certificate`)
  const template = at('agent-inject-template') ?? ''
  const calls = [...template.matchAll(CALL)]
  if (calls.length > 1)
    return fail('asks for several secrets in one file', `${VAULT_PREFIX}agent-inject-template-${secret}`)
  const [path = at('agent-inject-secret') ?? '', ...parameters] = [
    ...(calls[0]?.groups?.words ?? '').matchAll(/"([^"]*)"/g),
  ].map(([, word]) => word ?? '')
  if (!/\/(?:issue|sign)\/[^/]+$/.test(path))
    return fail(
      `"${quote(path, 80)}" is no path of PKI, and certferry delivers certificates only: keep Vault Agent for this pod, or`,
    )
  const query = new URLSearchParams(parameters.map((parameter) => splitParameter(parameter)))
  const options = parseCertificate(`${path}?${query}`)
  if (typeof options === 'string') return fail(options)
  const isOneFile = KEY.test(template) && CERTIFICATE.test(template)
  if (template !== '' && !isOneFile)
    return fail(
      'prints something else than certificate and key in one file',
      `${VAULT_PREFIX}agent-inject-template-${secret}`,
    )
  const file = at('agent-inject-file') ?? secret
  const perms = at('agent-inject-perms')
  const directory = `${volumePath.replace(/\/$/, '')}/${name}`
  const outputs = [{ kind: 'combined', directory, file, ...(perms !== undefined && { mode: perms }) }]
  const command = at('agent-inject-command')
  const reload = command === undefined ? undefined : signalOf(command)
  if (command !== undefined && reload === undefined)
    return {
      annotations: {},
      warnings: [],
      troubles: [
        {
          annotation: `${VAULT_PREFIX}agent-inject-command-${secret}`,
          message: `"${quote(command, 80)}" is no plain signal, and the image of certferry has no shell; write ${PREFIX}reload.${name}, such as SIGHUP:nginx or an http URL`,
        },
      ],
    }
  return {
    annotations: {
      [`${PREFIX}certificate.${name}`]: stringify({ ...options, outputs }),
      ...(reload !== undefined && { [`${PREFIX}reload.${name}`]: reload }),
    },
    warnings: [
      `certferry: ${annotation} is at ${directory}/${file}, key first, then the chain: a certificate has a directory of its own`,
    ],
    troubles: [],
  }
}

const splitParameter = (parameter: string): [string, string] => {
  const at = parameter.indexOf('=')
  return at < 0 ? [parameter, ''] : [parameter.slice(0, at), parameter.slice(at + 1)]
}

/** `pkill -HUP nginx`, `killall -s HUP nginx`, `kill -HUP $(pidof nginx)`, also by `sh -c`. */
function signalOf(command: string): string | undefined {
  const bare = command
    .trim()
    .replace(/^(?:\/bin\/)?sh\s+-c\s+(["'])(.*)\1$/s, '$2')
    .trim()
  const found =
    /^(?:pkill|killall)\s+(?:-s\s+|-)(?:SIG)?(?<signal>[A-Z0-9]+)\s+(?:-x\s+)?(?<process>[\w.-]+)$/.exec(bare) ??
    /^kill\s+(?:-s\s+|-)(?:SIG)?(?<signal>[A-Z0-9]+)\s+\$\((?:pidof|pgrep)\s+(?:-[a-z]+\s+)*(?<process>[\w.-]+)\)$/.exec(
      bare,
    )
  return found?.groups && `SIG${found.groups.signal}:${found.groups.process}`
}
