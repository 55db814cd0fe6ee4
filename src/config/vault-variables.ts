import type { Env } from './environment.ts'
import { isRecord } from './problems.ts'

/** Keys of `vault` that a variable fills in where the file leaves them out; the names are those of the vault CLI. Of two for one key the first counts. */
export const VAULT_VARIABLES: readonly (readonly [name: string, key: string])[] = [
  ['VAULT_AGENT_ADDR', 'address'],
  ['VAULT_ADDR', 'address'],
  ['VAULT_CACERT', 'caFile'],
  ['VAULT_CACERT_BYTES', 'caPem'],
  ['VAULT_CLIENT_CERT', 'clientCertFile'],
  ['VAULT_CLIENT_KEY', 'clientKeyFile'],
  ['VAULT_TLS_SERVER_NAME', 'serverName'],
  ['VAULT_NAMESPACE', 'namespace'],
  ['VAULT_CLIENT_TIMEOUT', 'timeouts'],
  ['VAULT_TOKEN', 'auth'],
]

interface Unused {
  /** Why, and what to do instead. */
  readonly why: string
  /** Without it, requests would go another way than was wanted, or be trusted for another reason: certferry does not start. */
  readonly isRefused?: true
  /** Counts only where it is true. */
  readonly isFlag?: true
}

const DIRECT =
  'certferry connects to Vault directly. Unset it; where there is no direct way, give vault.address a gateway'

/** Those that the CLI heeds, and certferry does not. */
export const UNUSED_VARIABLES: Readonly<Record<string, Unused>> = {
  VAULT_SKIP_VERIFY: {
    why: 'certferry does not talk to a Vault it cannot authenticate. Unset it and give vault.caFile (VAULT_CACERT)',
    isRefused: true,
    isFlag: true,
  },
  VAULT_CAPATH: {
    why: 'certferry reads its CAs from one file. Unset it and give vault.caFile (VAULT_CACERT)',
    isRefused: true,
  },
  VAULT_PROXY_ADDR: { why: DIRECT, isRefused: true },
  VAULT_HTTP_PROXY: { why: DIRECT, isRefused: true },
  VAULT_SRV_LOOKUP: {
    why: 'certferry looks up no SRV records. Unset it and list the nodes in vault.address',
    isRefused: true,
    isFlag: true,
  },
  VAULT_HEADERS: { why: 'certferry sends no headers but its own' },
  VAULT_MFA: { why: 'certferry answers no second factor; log in with a method that wants none' },
  VAULT_WRAP_TTL: { why: 'certferry reads answers as they are; for a wrapped token see vault.tokenSink.wrapTtl' },
  VAULT_MAX_RETRIES: { why: 'certferry tries again by rules of its own, for as long as it takes' },
  VAULT_RATE_LIMIT: { why: 'see vault.concurrency' },
  VAULT_DISABLE_REDIRECTS: {
    why: 'certferry follows redirects to vault.address and vault.redirectHosts alone',
    isFlag: true,
  },
}

interface FromVariable {
  readonly variable: string
  readonly value: unknown
  /** What of the config it decides, such as `vault.timeouts.total`. */
  readonly path: string
}

/** What variables say about `vault`. */
export interface FromVariables {
  /** By key of `vault`: what the file leaves out, and the variable that says it. */
  readonly filled: ReadonlyMap<string, FromVariable>
  readonly refused: readonly string[]
  readonly ignored: readonly string[]
}

/** `inFile` is what the file says about `vault`, and wins. */
export function fromVariables(env: Env, inFile: Readonly<Record<string, unknown>>): FromVariables {
  const filled = new Map<string, FromVariable>()
  for (const [variable, key] of VAULT_VARIABLES) {
    const text = env[variable]
    const found = text && !filled.has(key) ? fill(key, text, inFile) : undefined
    if (found) filled.set(key, { ...found, variable })
  }
  // One of the two; the CLI prefers the file.
  if (filled.has('caFile') || inFile.caFile !== undefined) filled.delete('caPem')
  const hasCa = ['caFile', 'caPem'].some((key) => filled.has(key) || inFile[key] !== undefined)
  const said = Object.entries(UNUSED_VARIABLES).filter(([name, { isFlag }]) => (isFlag ? isTrue(env[name]) : env[name]))
  const unused = said.filter(([name]) => name !== 'VAULT_CAPATH' || !hasCa)
  return {
    filled,
    refused: unused.flatMap(([name, { why, isRefused }]) => (isRefused ? [`${name} is set; ${why}`] : [])),
    ignored: unused.flatMap(([name, { why, isRefused }]) => (isRefused ? [] : [`${name} is ignored; ${why}`])),
  }
}

/** What this text makes of the key; undefined where the file has the say. */
function fill(key: string, text: string, inFile: Readonly<Record<string, unknown>>) {
  const path = `vault.${key}`
  if (key === 'timeouts') {
    const { timeouts = {} } = inFile
    if (!isRecord(timeouts) || Object.hasOwn(timeouts, 'total')) return undefined
    // A number without a unit counts seconds there.
    return { value: { ...timeouts, total: /^\d+$/.test(text) ? `${text}s` : text }, path: `${path}.total` }
  }
  const isTaken = Object.hasOwn(inFile, key) || (key === 'caFile' && Object.hasOwn(inFile, 'caPem'))
  if (isTaken) return undefined
  return { value: key === 'auth' ? { kind: 'token', token: text } : text, path }
}

/** As strconv.ParseBool of Go. */
const isTrue = (text: string | undefined) => text !== undefined && /^(?:1|t|true)$/i.test(text)
