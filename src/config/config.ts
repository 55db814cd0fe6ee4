import { createHash } from 'node:crypto'
import { isAbsolute, normalize } from 'node:path'
import * as z from 'zod'
import { KEY_ALGORITHMS } from '../core/key.ts'
import { nextRun } from '../core/renewal.ts'
import { Duration, Fraction } from '../core/units.ts'
import { outputs } from '../outputs/index.ts'
import { reloaders } from '../reloaders/index.ts'
import { sources } from '../sources/index.ts'
import { VaultOptions } from '../vault/options.ts'
import { verifiers } from '../verifiers/index.ts'
import { findClashes } from './clashes.ts'
import { type ConfigDocument, ConfigError, type Problem, readConfigFile } from './file.ts'
import { explain, isRecord } from './problems.ts'

const AbsolutePath = z
  .string()
  .refine(
    (path) =>
      isAbsolute(path) &&
      normalize(path).replace(/(?<=.)\/$/, '') === path.replace(/(?<=.)\/$/, '') &&
      !path.includes('\0'),
    {
      error: 'must be an absolute path without "." and ".."',
    },
  )

const Renewal = z
  .strictObject({
    after: Fraction.optional().describe(
      'Fraction of the lifetime after which it is renewed; 2/3, or 1/2 for lifetimes of 10 days or less',
    ),
    before: Duration.optional().describe('Instead of after: how long before its end it is renewed'),
    cron: z
      .string()
      .optional()
      .describe(
        'Cron pattern: renewed at its first run after that point; alone, at each run. Never at the cost of validity',
      ),
    timezone: z.string().optional().describe('IANA time zone of cron, UTC by default'),
    jitter: z
      .number()
      .min(0)
      .max(0.5)
      .default(0.1)
      .describe('Share of the lifetime by which the point is spread, earlier only'),
  })
  .check((context) => {
    const { after, before, cron, timezone } = context.value
    if (after !== undefined && before !== undefined)
      context.issues.push({
        code: 'custom',
        input: before,
        path: ['before'],
        message: 'cannot be given together with after',
      })
    if (timezone !== undefined && cron === undefined)
      context.issues.push({ code: 'custom', input: timezone, path: ['timezone'], message: 'needs cron' })
    const trouble = cron === undefined ? undefined : cronTrouble(cron, timezone ?? 'UTC')
    if (trouble) context.issues.push({ code: 'custom', input: cron, path: ['cron'], message: trouble })
  })

function cronTrouble(pattern: string, timezone: string): string | undefined {
  try {
    return nextRun(pattern, timezone, Date.now()) === undefined ? 'never runs' : undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

const Check = z.strictObject({
  minTtl: Duration.prefault('10s').describe(
    'A certificate that lives shorter is refused: it would be renewed without end',
  ),
  chain: z
    .enum(['complete', 'lenient'])
    .default('complete')
    .describe('lenient accepts a chain that does not reach a self-signed root'),
  trustFile: AbsolutePath.optional().describe(
    'PEM file of the roots to accept; without it, the root that the source delivers',
  ),
})

const Certificate = z.strictObject({
  name: z
    .string()
    .regex(
      /^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$/i,
      'must be 1 to 63 letters, digits, ".", "_" or "-", starting and ending with a letter or digit',
    )
    .describe('Names the certificate in logs, metrics and commands'),
  source: sources.schema.describe('Where it comes from'),
  key: z
    .strictObject({ algorithm: z.enum(KEY_ALGORITHMS).default('ecdsa-p256').describe('Algorithm of the private key') })
    .prefault({})
    .describe('The private key; a new one at each renewal'),
  renew: Renewal.prefault({}).describe('When it is renewed'),
  check: Check.prefault({}).describe('What is refused'),
  outputs: z.array(outputs.schema).min(1, 'needs at least one output').describe('The files it becomes'),
  reload: z.array(reloaders.schema).default([]).describe('How the target is told'),
  verify: z
    .array(verifiers.schema)
    .default([])
    .describe('Proof that the target serves it; without one, status says verified: none'),
  startupGrace: Duration.prefault('2m').describe(
    'How long a target that never answered is waited for before that counts as trouble',
  ),
})

const Admin = z.strictObject({
  listen: z
    .string()
    .regex(/^(?:\[[0-9a-f:.]+\]|[^:[\]]+):\d{1,5}$/i, "must be host:port, such as '127.0.0.1:9443' or '[::]:9443'")
    .optional()
    .describe('Address of the read-only HTTP endpoints: health, metrics, status'),
  tls: z
    .strictObject({
      certFile: AbsolutePath.describe('PEM certificate chain; read again when it changes'),
      keyFile: AbsolutePath.describe('PEM private key'),
      clientCaFile: AbsolutePath.optional().describe('When given, clients must present a certificate of this CA'),
    })
    .optional()
    .describe('Serves the endpoints over TLS'),
  socket: AbsolutePath.optional().describe('Unix control socket (0600) for certferry status, rotate and wait'),
})

const Log = z.strictObject({
  level: z.enum(['debug', 'info', 'warn', 'error']).default('info').describe('Least level that is written'),
  format: z.enum(['auto', 'json', 'pretty']).default('auto').describe('auto is pretty on a terminal, JSON elsewhere'),
})

export const Config = z.strictObject({
  vault: VaultOptions.optional().describe(
    'The Vault server; VAULT_ADDR, VAULT_CACERT, VAULT_NAMESPACE, VAULT_TOKEN and the like fill in what is not given',
  ),
  admin: Admin.prefault({}).describe('Health, metrics, status and control'),
  log: Log.prefault({}).describe('The log, on standard output'),
  audit: z
    .strictObject({ file: AbsolutePath.describe('Append-only, hash-chained file, 0600') })
    .optional()
    .describe('The audit log'),
  volumes: z.array(AbsolutePath).optional().describe('When given, an output outside these directories is refused'),
  certificates: z.array(Certificate).min(1, 'needs at least one certificate').describe('What should exist'),
})
type Parsed = z.output<typeof Config>

/** A certificate of the config; `identity` changes when anything about it does. */
export type CertificateConfig = z.output<typeof Certificate> & { readonly identity: string }

/** A whole, valid config, frozen. */
export type Config = Omit<Parsed, 'certificates'> & {
  readonly file: string
  readonly certificates: readonly CertificateConfig[]
  /** Changes when anything about `vault` does. */
  readonly vaultIdentity: string
}

type Env = Readonly<Record<string, string | undefined>>

/** Reads, interpolates and checks a config file. Throws a ConfigError that lists every problem. */
export function loadConfig(file: string, env: Env): Config {
  const document = readConfigFile(file, env)
  const { value, problems: fromEnv } = withVaultEnv(document.value, env, document)
  const result = Config.safeParse(value)
  const problems = [
    ...fromEnv,
    ...(result.error ? result.error.issues.flatMap((issue) => explain(issue, document, configJsonSchema())) : []),
    ...crossCheck(value, document),
  ]
  if (!result.success || problems.length > 0) throw new ConfigError(file, inFileOrder(problems))
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

/** JSON Schema of the config file, for editors. */
export const configJsonSchema = (): object => ({
  ...z.toJSONSchema(Config, { io: 'input', unrepresentable: 'any' }),
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'certferry configuration',
})

/** As the vault CLI reads them; the config file wins. VAULT_SKIP_VERIFY is refused: certferry never talks to an unproven Vault. */
function withVaultEnv(value: unknown, env: Env, document: ConfigDocument): { value: unknown; problems: Problem[] } {
  if (!isRecord(value)) return { value, problems: [] }
  const given = value.vault
  const problems = isTrue(env.VAULT_SKIP_VERIFY)
    ? [
        document.problem(
          ['vault'],
          'VAULT_SKIP_VERIFY is set; certferry does not talk to a Vault it cannot authenticate. Unset it and give vault.caFile (VAULT_CACERT)',
        ),
      ]
    : []
  if ((given !== undefined && !isRecord(given)) || (given === undefined && !env.VAULT_ADDR)) return { value, problems }
  const filled = {
    ...present({
      address: env.VAULT_ADDR,
      caFile: env.VAULT_CACERT,
      clientCertFile: env.VAULT_CLIENT_CERT,
      clientKeyFile: env.VAULT_CLIENT_KEY,
      serverName: env.VAULT_TLS_SERVER_NAME,
      namespace: env.VAULT_NAMESPACE,
    }),
    ...(env.VAULT_TOKEN ? { auth: { kind: 'token', token: env.VAULT_TOKEN } } : {}),
    ...given,
  }
  return { value: { ...value, vault: filled }, problems }
}

const present = (values: Record<string, string | undefined>) =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined && value !== ''))
const isTrue = (text: string | undefined) => text !== undefined && /^(?:1|t|true)$/i.test(text)

/** Names, files and directories that clash, among those certificates that are valid by themselves; and a missing Vault. */
function crossCheck(value: unknown, document: ConfigDocument): Problem[] {
  if (!isRecord(value) || !Array.isArray(value.certificates)) return []
  const certificates = value.certificates.flatMap((raw, index) => {
    const { data } = Certificate.safeParse(raw)
    return data
      ? [
          {
            index,
            name: data.name,
            kind: data.source.kind,
            outputs: data.outputs.map((options) => outputs.create(options, {})),
          },
        ]
      : []
  })
  const hasVault = isRecord(value.vault) && value.vault.address !== undefined
  const homeless = certificates.filter(({ kind }) => kind.startsWith('vault-') && !hasVault)
  return [
    ...homeless.map(({ index }) =>
      document.problem(['certificates', index, 'source'], 'needs vault.address (or VAULT_ADDR)'),
    ),
    ...findClashes(certificates, z.array(AbsolutePath).safeParse(value.volumes).data).map(({ path, message }) =>
      document.problem(path, message),
    ),
  ]
}

const lineOf = (problem: Problem) => problem.place.split(':').slice(-2).map(Number)
const inFileOrder = (problems: readonly Problem[]) =>
  problems.toSorted((a, b) => {
    const [[lineA = 0, columnA = 0], [lineB = 0, columnB = 0]] = [lineOf(a), lineOf(b)]
    return lineA - lineB || columnA - columnB || 0
  })

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
