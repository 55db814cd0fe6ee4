import { createHash } from 'node:crypto'
import * as z from 'zod'
import { pemFilesOf } from '../injector/options.ts'
import { outputs } from '../outputs/index.ts'
import { type Claim, findClashes } from './clashes.ts'
import { comesFromVault, type Env, withVaultEnv } from './environment.ts'
import { type ConfigDocument, readConfigFile } from './file.ts'
import { ConfigError, explain, inFileOrder, inWords, isRecord, type Problem } from './problems.ts'
import { AbsolutePath, CertificateOptions, ConfigFile, configJsonSchema } from './schema.ts'

/** A certificate of the config; `identity` changes when anything about it does. */
export type CertificateConfig = z.output<typeof CertificateOptions> & { readonly identity: string }

/** A whole, valid config, frozen. */
export type Config = Omit<z.output<typeof ConfigFile>, 'certificates'> & {
  readonly file: string
  readonly certificates: readonly CertificateConfig[]
  /** Changes when anything about `vault` does. */
  readonly vaultIdentity: string
}

/** Reads, interpolates and checks a config file. Throws a ConfigError that lists every problem, in the order of the file. */
export function loadConfig(file: string, env: Env): Config {
  const document = readConfigFile(file, env)
  const { value, troubles, blame } = withVaultEnv(document.value, env)
  const { result, problems: found } = checkConfig(value, document)
  const problems = [
    ...document.problems,
    ...troubles.map((trouble) => document.problem(['vault'], trouble)),
    ...found.map(blame),
  ]
  if (!result.success || problems.length > 0) throw new ConfigError(file, inFileOrder(onePerPlace(problems, document)))
  const raw = isRecord(value) ? value : {}
  const rawCertificates = Array.isArray(raw.certificates) ? raw.certificates : []
  return deepFreeze({
    ...result.data,
    file,
    certificates: result.data.certificates.map((certificate, index) => ({
      ...certificate,
      identity: identityOf(rawCertificates[index]),
    })),
    vaultIdentity: identityOf(raw.vault),
  })
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

/** What clashes among the certificates that are valid by themselves; a missing Vault; and what the injector is to serve. */
function crossCheck(
  value: unknown,
  valid: z.output<typeof ConfigFile> | undefined,
  document: Pick<ConfigDocument, 'problem'>,
): Problem[] {
  if (!isRecord(value) || !Array.isArray(value.certificates)) return []
  const certificates = valid?.certificates ?? value.certificates.map((raw) => CertificateOptions.safeParse(raw).data)
  const claims = certificates.flatMap((data, index) => (data ? [claimOf(data, index)] : []))
  const clashes = findClashes(claims, z.array(AbsolutePath).safeParse(value.volumes).data)
  const homeless = value.certificates.flatMap((raw, index) =>
    value.vault === undefined && isRecord(raw) && comesFromVault(raw.source) ? [index] : [],
  )
  return [
    ...injectorTroubles(value, certificates).map((trouble) => document.problem(['injector', 'certificate'], trouble)),
    ...homeless.map((index) =>
      document.problem(['certificates', index, 'source'], 'needs vault.address (or VAULT_ADDR)'),
    ),
    ...clashes.map(({ path, message }) => document.problem(path, message)),
  ]
}

type Certificate = z.output<typeof CertificateOptions>

/** What the webhook is to serve must be there, in files that can be served. */
function injectorTroubles(
  { injector, certificates: raws }: Record<string, unknown>,
  certificates: readonly (Certificate | undefined)[],
): string[] {
  const wanted = isRecord(injector) ? injector.certificate : undefined
  if (typeof wanted !== 'string' || !Array.isArray(raws)) return []
  const names = raws.flatMap((raw) => (isRecord(raw) && typeof raw.name === 'string' ? [raw.name] : []))
  if (!names.includes(wanted)) return [`names none of certificates; there are: ${names.join(', ')}`]
  const found = certificates.find((certificate) => certificate?.name === wanted)
  return found && !pemFilesOf(found.outputs) ? [`names "${wanted}", which has no output of kind pem`] : []
}

function claimOf({ name, outputs: options }: Certificate, index: number): Claim {
  const notNow = (): never => {
    throw new TypeError('a config is only looked at')
  }
  const deps = { certificate: name, now: notNow, kubernetes: notNow }
  return { index, name, outputs: options.map((each) => outputs.create(each, deps)) }
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
