import { isAbsolute, normalize } from 'node:path'
import * as z from 'zod'
import { KEY_ALGORITHMS } from '../core/key.ts'
import { ListenAddress } from '../core/listen.ts'
import { nextRun } from '../core/renewal.ts'
import { Duration, Fraction } from '../core/units.ts'
import { InjectorOptions } from '../injector/options.ts'
import { KubernetesOptions } from '../kubernetes/options.ts'
import { outputs } from '../outputs/index.ts'
import { secretOutputs } from '../outputs/secrets.ts'
import { trustOutputs } from '../outputs/trust.ts'
import { reloaders } from '../reloaders/index.ts'
import { RevocationOptions } from '../revocation/options.ts'
import { sources } from '../sources/index.ts'
import { ExecOptions } from '../supervisor/options.ts'
import { anchors, lists } from '../trust/index.ts'
import { values } from '../values/index.ts'
import { VaultOptions } from '../vault/options.ts'
import { verifiers } from '../verifiers/index.ts'
import { trustVerifiers } from '../verifiers/trust.ts'

export const AbsolutePath = z
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

/** A unix socket is bound at a temporary name 10 bytes longer first; unix(7) allows 107. */
const SocketPath = AbsolutePath.refine((path) => Buffer.byteLength(path) <= 97, {
  error: 'must not be longer than 97 bytes, the limit of unix sockets',
})

const Renewal = z
  .strictObject({
    after: Fraction.optional().describe(
      'Fraction of the lifetime after which it is renewed; 2/3, or 1/2 for lifetimes of 10 days or less',
    ),
    before: Duration.optional().describe(
      'Instead of after: how long before its end it is renewed; where it lives no longer than that, as without',
    ),
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
    if (!isTimezone(timezone)) {
      const message = 'is no IANA time zone such as Europe/Stockholm'
      context.issues.push({ code: 'custom', input: timezone, path: ['timezone'], message })
    } else if (cron !== undefined) {
      const message = cronTrouble(cron, timezone)
      if (message) context.issues.push({ code: 'custom', input: cron, path: ['cron'], message })
    }
  })

function isTimezone(name: string | undefined): boolean {
  if (name === undefined) return true
  try {
    return new Intl.DateTimeFormat('en', { timeZone: name }) !== undefined
  } catch {
    return false
  }
}

function cronTrouble(pattern: string, timezone = 'UTC'): string | undefined {
  try {
    return nextRun(pattern, timezone, Date.now()) === undefined ? 'never runs' : undefined
  } catch (error) {
    const why = error instanceof Error ? error.message.replace(/^\w+: /, '') : String(error)
    return `is no cron pattern such as '0 3 * * *': ${why}`
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
    'PEM file of the roots to accept, read again for each check; without it, the root that the source delivers',
  ),
})

const Name = z
  .string()
  .regex(
    /^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$/i,
    'must be 1 to 63 letters, digits, ".", "_" or "-", starting and ending with a letter or digit',
  )

/** As templates and `exec.env` say it, without quotes. */
const ValueName = z
  .string()
  .regex(/^(?!__)[A-Za-z_]\w{0,62}$/, 'must be letters, digits and "_", and begin neither with a digit nor with "__"')

export const CertificateOptions = z.strictObject({
  name: Name.describe('Names the certificate in logs, metrics and commands'),
  source: sources.schema.describe('Where it comes from'),
  fallback: z
    .array(sources.schema)
    .default([])
    .describe(
      'Where else, in this order, when source cannot deliver and the certificate is in the last twentieth of its life, or there is none',
    ),
  key: z
    .strictObject({ algorithm: z.enum(KEY_ALGORITHMS).default('ecdsa-p256').describe('Algorithm of the private key') })
    .prefault({})
    .describe('The private key; a new one at each renewal'),
  renew: Renewal.prefault({}).describe('When it is renewed'),
  check: Check.prefault({}).describe('What is refused'),
  trust: Name.optional().describe(
    'Name of a trust: a certificate of a CA that is not in force there yet waits until it is',
  ),
  revocation: RevocationOptions.optional().describe(
    'Whether it is revoked is looked after; nobody is asked without it',
  ),
  revokePrevious: z
    .boolean()
    .default(false)
    .describe('The one before is revoked once its successor is in service, and proven where it is verified'),
  revokeOnExit: z
    .boolean()
    .default(false)
    .describe(
      'It is revoked when certferry run ends, which takes two seconds at the most: for jobs, whose certificate serves nobody after them',
    ),
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

export const SecretOptions = z.strictObject({
  name: Name.describe('Names the secret in logs, metrics and commands; no certificate bears it'),
  values: z
    .record(ValueName, values.schema)
    .refine((all) => Object.keys(all).length > 0, { error: 'needs at least one value' })
    .describe('What it consists of, by the name that outputs use; read together, so that no output mixes two versions'),
  outputs: z
    .array(secretOutputs.schema)
    .default([])
    .describe('The files it becomes; none where only certferry exec hands it on'),
  reload: z.array(reloaders.schema).default([]).describe('How the target is told'),
  startupGrace: Duration.prefault('2m').describe(
    'How long a target that was never there is waited for before that counts as trouble',
  ),
})

const Admin = z.strictObject({
  listen: ListenAddress.optional().describe('Address of the read-only HTTP endpoints: health, metrics, status'),
  tls: z
    .strictObject({
      certFile: AbsolutePath.describe('PEM certificate chain; read again when it changes'),
      keyFile: AbsolutePath.describe('PEM private key'),
      clientCaFile: AbsolutePath.optional().describe('When given, clients must present a certificate of this CA'),
    })
    .optional()
    .describe('Serves the endpoints over TLS'),
  socket: SocketPath.optional().describe('Unix control socket (0600) for certferry status, rotate and wait'),
})

const Log = z.strictObject({
  level: z.enum(['debug', 'info', 'warn', 'error']).default('info').describe('Least level that is written'),
  format: z.enum(['auto', 'json', 'pretty']).default('auto').describe('auto is pretty on a terminal, JSON elsewhere'),
})

export const TrustOptions = z.strictObject({
  name: Name.describe('Names the trust in logs, metrics and commands; no certificate or secret bears it'),
  anchors: z.array(anchors.schema).min(1, 'needs at least one anchor').describe('Where the CAs come from'),
  crls: z.array(lists.schema).default([]).describe('Where the revocation lists come from'),
  poll: Duration.refine((ms) => ms >= 1000, { error: 'must be at least 1s' })
    .prefault('5m')
    .describe('How often it is looked at, up to a tenth sooner by chance; lists also when half of their time is over'),
  keep: Duration.prefault('24h').describe(
    'How long a CA that is named no more is kept after the last certificate here that chains to it was replaced: longer than certificates elsewhere live',
  ),
  spread: Duration.optional().describe(
    'How long a new CA is in force here before a certificate with this trust may chain to it: time for peers elsewhere to learn of it',
  ),
  warnBefore: Duration.prefault('30d').describe('How long before the end of a CA that is told as a warning'),
  outputs: z.array(trustOutputs.schema).min(1, 'needs at least one output').describe('The files it becomes'),
  reload: z.array(reloaders.schema).default([]).describe('How the target is told'),
  verify: z
    .array(trustVerifiers.schema)
    .default([])
    .describe('Proof that it is in force; without one, status says verified: none'),
  startupGrace: Duration.prefault('2m').describe(
    'How long a target that was never there is waited for before that counts as trouble',
  ),
})

export const ConfigFile = z.strictObject({
  vault: VaultOptions.optional().describe(
    'The Vault server; VAULT_ADDR, VAULT_CACERT, VAULT_NAMESPACE, VAULT_TOKEN and the like fill in what is not given',
  ),
  vaults: z
    .record(Name, VaultOptions)
    .prefault({})
    .describe('More Vault servers, by name: vault: NAME at a source or a value says which one'),
  kubernetes: KubernetesOptions.prefault({}).describe(
    'The API server of the cluster, for what works with it; in a pod it needs nothing here',
  ),
  injector: InjectorOptions.optional().describe(
    'The admission webhook that adds the sidecar to pods, of certferry injector; certificates are its own then',
  ),
  exec: ExecOptions.optional().describe(
    'The command of certferry exec: which secrets its environment holds, and what becomes of it when they change',
  ),
  admin: Admin.prefault({}).describe('Health, metrics, status and control'),
  log: Log.prefault({}).describe('The log, on standard output'),
  audit: z
    .strictObject({ file: AbsolutePath.describe('Append-only, hash-chained file, 0600') })
    .optional()
    .describe('The audit log'),
  volumes: z.array(AbsolutePath).optional().describe('When given, an output outside these directories is refused'),
  certificates: z.array(CertificateOptions).default([]).describe('Certificates that should exist'),
  secrets: z.array(SecretOptions).default([]).describe('Secrets that should be delivered'),
  trust: z.array(TrustOptions).default([]).describe('CAs and revocation lists that peers should go by'),
})

/** JSON Schema of the config file, for editors. */
export const configJsonSchema = (): object => ({
  ...z.toJSONSchema(ConfigFile, { io: 'input', unrepresentable: 'any' }),
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'certferry configuration',
})

/** The same with what no key can say alone. */
export const printedJsonSchema = (): object => ({
  ...configJsonSchema(),
  anyOf: [{ required: ['certificates'] }, { required: ['secrets'] }, { required: ['trust'] }],
})
