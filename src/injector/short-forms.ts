import { isRecord } from '../config/problems.ts'
import { suggestion } from '../core/near.ts'
import { quote } from '../core/secret.ts'
import { parseYaml } from './annotation-yaml.ts'
import { PLACES } from './sidecar-config.ts'

type Plain = Record<string, unknown>

/** A path of Vault's PKI API: https://developer.hashicorp.com/vault/api-docs/secret/pki#generate-certificate-and-key */
const PKI_PATH =
  /^\/?(?:v1\/)?(?<mount>[\w.-]+(?:\/[\w.-]+)*)\/(?<method>issue|sign)\/(?<role>[^/?#\s]+)(?:\?(?<query>\S*))?$/

/** `pki/issue/web?common_name=…`, or a certificate of the config in YAML. Text says what is wrong. */
export function parseCertificate(value: string): Plain | string {
  const path = PKI_PATH.exec(value.trim())?.groups
  if (path) return fromPath(path)
  const parsed = parseYaml(value)
  if (typeof parsed === 'string') return parsed
  if (!isRecord(parsed.value))
    return `"${quote(value.trim(), 60)}" is neither a path such as pki/issue/web?common_name=web.example.com nor a YAML map such as {source: {kind: vault-pki, role: web, …}}`
  if (parsed.value.name !== undefined) return 'must not hold a name; the annotation gives it'
  return parsed.value
}

/** Parameters of Vault, and what they are in the config of certferry. */
const PARAMETERS: Readonly<Record<string, (value: string) => Plain>> = {
  common_name: (commonName) => ({ commonName }),
  alt_names: () => ({}),
  ip_sans: () => ({}),
  uri_sans: () => ({}),
  ttl: (ttl) => ({ ttl: /^\d+$/.test(ttl) ? `${ttl}s` : ttl }),
  exclude_cn_from_sans: (flag) => ({ excludeCnFromSans: flag === 'true' }),
  issuer_ref: (issuerRef) => ({ issuerRef }),
  remove_roots_from_chain: (flag) => ({ removeRootsFromChain: flag === 'true' }),
  key_type: () => ({}),
  key_bits: () => ({}),
}
const ALT_NAMES = ['alt_names', 'ip_sans', 'uri_sans']

function fromPath({ mount, method, role = '', query = '' }: Record<string, string | undefined>): Plain | string {
  const parameters = new URLSearchParams(query)
  for (const name of parameters.keys()) {
    if (!Object.hasOwn(PARAMETERS, name))
      return `has the unknown parameter "${quote(name, 40)}"${suggestion(name, Object.keys(PARAMETERS)) || `; known: ${Object.keys(PARAMETERS).join(', ')}`}`
    if (parameters.getAll(name).length > 1) return `gives the parameter ${name} twice`
  }
  const altNames = ALT_NAMES.flatMap((name) => (parameters.get(name) ?? '').split(',')).filter((name) => name !== '')
  const options = Object.assign({}, ...[...parameters].map(([name, value]) => PARAMETERS[name]?.(value)))
  const algorithm = algorithmOf(parameters.get('key_type'), parameters.get('key_bits'))
  return {
    source: { kind: 'vault-pki', mount, role, method, ...options, ...(altNames.length > 0 && { altNames }) },
    ...(algorithm !== undefined && { key: { algorithm } }),
  }
}

/** Vault's `key_type` and `key_bits`; a wrong pair is told by the schema of the config. */
function algorithmOf(type: string | null, bits: string | null): string | undefined {
  if (type === null && bits === null) return undefined
  if (type === 'ed25519') return 'ed25519'
  return type === 'rsa' ? `rsa-${bits ?? '2048'}` : `ecdsa-p${bits ?? '256'}`
}

const SIGNAL = /^(?<signal>SIG[A-Z0-9]+):(?<process>[^/\s]+)$/

/** `SIGHUP:nginx`, a URL, `rollout-restart`, `helper`, or `reload` of the config in YAML. Text says what is wrong. */
export function parseReload(value: string): readonly unknown[] | string {
  const text = value.trim()
  const signal = SIGNAL.exec(text)?.groups
  if (signal) return [{ kind: 'signal', ...signal }]
  if (/^https?:\/\/\S+$/.test(text)) return [{ kind: 'http', url: text }]
  if (text === 'rollout-restart') return [{ kind: text }]
  if (text === 'helper') return [{ kind: 'http', url: 'http://localhost/reload', socket: PLACES.helper }]
  return listFrom(text, 'SIGHUP:nginx, http://127.0.0.1:8080/reload, rollout-restart, helper')
}

/** `127.0.0.1:8443`, or `verify` of the config in YAML. Text says what is wrong. */
export function parseVerify(value: string): readonly unknown[] | string {
  const text = value.trim()
  if (/^(?:\[[0-9a-f:.]+\]|[\w.-]+):\d{1,5}$/i.test(text)) return [{ kind: 'tls', address: text }]
  return listFrom(text, '127.0.0.1:8443')
}

function listFrom(text: string, examples: string): readonly unknown[] | string {
  const parsed = parseYaml(text)
  if (typeof parsed === 'string') return parsed
  const { value } = parsed
  if (Array.isArray(value)) return value
  if (isRecord(value)) return [value]
  return `"${quote(text, 60)}" is neither of ${examples}, nor a YAML map with its kind`
}
