import { createHash } from 'node:crypto'
import type * as z from 'zod'
import { readPlainFile } from '../plain-file.ts'
import { crossCheck } from './cross-check.ts'
import { type Env, withVaultEnv } from './environment.ts'
import { type ConfigDocument, readConfigFile } from './file.ts'
import { ConfigError, explain, inFileOrder, inWords, isRecord, type Problem } from './problems.ts'
import {
  AbsolutePath,
  type CertificateOptions,
  ConfigFile,
  configJsonSchema,
  type SecretOptions,
  type TrustOptions,
} from './schema.ts'

/** A certificate of the config; `identity` changes when anything about it does. */
export type CertificateConfig = z.output<typeof CertificateOptions> & { readonly identity: string }

/** A secret of the config; `identity` as above. */
export type SecretConfig = z.output<typeof SecretOptions> & { readonly identity: string }

/** A trust of the config; the same. */
export type TrustConfig = z.output<typeof TrustOptions> & { readonly identity: string }

/** A whole, valid config, frozen. */
export type Config = Omit<z.output<typeof ConfigFile>, 'certificates' | 'secrets' | 'trust'> & {
  readonly file: string
  /** What is set in vain, in words. */
  readonly warnings: readonly string[]
  readonly certificates: readonly CertificateConfig[]
  readonly secrets: readonly SecretConfig[]
  readonly trust: readonly TrustConfig[]
  /** Variables of the environment that `vault` and `vaults` are made of: credentials, often. */
  readonly vaultVariables: readonly string[]
  /** Changes when anything about `vault` or `vaults` does. */
  readonly vaultIdentity: string
}

/** Reads, interpolates and checks a config file. Throws a ConfigError that lists every problem, in the order of the file. */
export function loadConfig(file: string, env: Env): Config {
  const document = readConfigFile(file, env)
  const { value, troubles, warnings, blame } = withVaultEnv(document.value, env)
  const { result, problems: found } = checkConfig(value, document)
  const problems = [
    ...document.problems,
    ...troubles.map((trouble) => document.problem(['vault'], trouble)),
    ...found.map(blame),
  ]
  if (!result.success || problems.length > 0) throw new ConfigError(file, inFileOrder(onePerPlace(problems, document)))
  const raw = isRecord(value) ? value : {}
  return deepFreeze({
    ...result.data,
    file,
    warnings,
    certificates: withIdentity(result.data.certificates, raw.certificates),
    secrets: withIdentity(result.data.secrets, raw.secrets).map(withTemplates),
    trust: withIdentity(result.data.trust, raw.trust),
    vaultVariables: document.variables.flatMap(({ name, path: [top] }) =>
      top === 'vault' || top === 'vaults' ? [name] : [],
    ),
    vaultIdentity: identityOf([raw.vault, raw.vaults]),
  })
}

const withIdentity = <T extends object>(checked: readonly T[], raw: unknown): (T & { identity: string })[] =>
  checked.map((each, index) => ({ ...each, identity: identityOf(Array.isArray(raw) ? raw[index] : undefined) }))

/** A template in a file is a part of the config: loaded again, a change of it counts as one. */
function withTemplates<T extends { outputs: readonly object[]; identity: string }>(secret: T): T {
  const files = secret.outputs.flatMap((output) =>
    'templateFile' in output && typeof output.templateFile === 'string' ? [output.templateFile] : [],
  )
  return files.length === 0 ? secret : { ...secret, identity: identityOf([secret.identity, ...files.map(contentOf)]) }
}

function contentOf(file: string): string {
  try {
    return readPlainFile(file).toString('base64')
  } catch {
    // Whoever reads it for use says what is wrong with it.
    return ''
  }
}

/** What the schema says to plain values, and all that is wrong with them, each where `document` says it stands. */
export function checkConfig(value: unknown, document: Pick<ConfigDocument, 'problem'>) {
  const result = ConfigFile.safeParse(value, { error: inWords })
  const issues = result.error?.issues ?? []
  const problems = [
    ...issues.flatMap((issue) => explain(issue, { value, schema: configJsonSchema, document })),
    ...crossCheck(value, result.data, document),
  ]
  return { result, problems }
}

/**
 * The control socket that a config names, for those who only ask a running sidecar: it holds on to its last good config while the
 * file is broken, and its variables may be unknown here. Throws a ConfigError where not even the socket can be read.
 */
export function findSocket(file: string, env: Env): string | undefined {
  const { value } = readConfigFile(file, env)
  const socket = isRecord(value) && isRecord(value.admin) ? value.admin.socket : undefined
  return AbsolutePath.optional().safeParse(socket).data
}

/** A reference that could not be replaced leaves an empty text behind; what the schema says about that is noise. */
function onePerPlace(problems: readonly Problem[], document: ConfigDocument): Problem[] {
  const broken = new Set(document.problems.map(({ place }) => place))
  return problems.filter((problem) => document.problems.includes(problem) || !broken.has(problem.place))
}

/** A digest of the plain values, secrets included, so that a changed one is noticed without being kept. */
const identityOf = (raw: unknown): string =>
  createHash('sha256')
    .update(JSON.stringify(raw) ?? '')
    .digest('hex')

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && Object.getPrototypeOf(value) !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const child of Object.values(value)) deepFreeze(child)
  }
  return value
}
