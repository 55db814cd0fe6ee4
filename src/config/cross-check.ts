import { normalize } from 'node:path'
import * as z from 'zod'
import { FieldPath, parseFieldPath } from '../core/values.ts'
import { pemFilesOf } from '../injector/options.ts'
import { outputs } from '../outputs/index.ts'
import { writesFiles } from '../outputs/output.ts'
import { secretOutputs } from '../outputs/secrets.ts'
import { trustOutputs } from '../outputs/trust.ts'
import { type Claim, type Clash, findClashes } from './clashes.ts'
import { asksOf } from './environment.ts'
import type { ConfigDocument } from './file.ts'
import { isRecord, type Path, type Problem, valueAt } from './problems.ts'
import { AbsolutePath, CertificateOptions, type ConfigFile, SecretOptions, TrustOptions } from './schema.ts'

/** What clashes among the certificates and secrets that are valid by themselves; a missing Vault; and what the injector is to serve. */
export function crossCheck(
  value: unknown,
  valid: z.output<typeof ConfigFile> | undefined,
  document: Pick<ConfigDocument, 'problem'>,
): Problem[] {
  if (!isRecord(value)) return []
  const certificates = valid?.certificates ?? each(value.certificates, CertificateOptions)
  const secrets = valid?.secrets ?? each(value.secrets, SecretOptions)
  const trust = valid?.trust ?? each(value.trust, TrustOptions)
  const claims = [
    ...certificates.flatMap((data, index) => (data ? [claimOf(data, index)] : [])),
    ...secrets.flatMap((data, index) => (data ? [secretClaimOf(data, index)] : [])),
    ...trust.flatMap((data, index) => (data ? [trustClaimOf(data, index)] : [])),
  ]
  const clashes = findClashes(claims, z.array(AbsolutePath).safeParse(value.volumes).data)
  const troubles: Clash[] = [
    ...entryTroubles(secrets),
    ...sinkTroubles(value, claims),
    ...circleTroubles(value, claims),
    ...trustTroubles(value),
    ...listTroubles(trust),
    ...execTroubles(value),
    ...emptiness(value),
    ...injectorTroubles(value, certificates).map((message) => ({ path: ['injector', 'certificate'], message })),
    ...asksOf(value).flatMap((asked) =>
      connectionTroubles(asked, value).map((message) => ({ path: asked.path, message })),
    ),
    ...clashes,
  ]
  return troubles.map(({ path, message }) => document.problem(path, message))
}

const each = <T>(raw: unknown, schema: z.ZodType<T>) =>
  (Array.isArray(raw) ? raw : []).map((one) => schema.safeParse(one).data)

function emptiness({ certificates, secrets, trust, exec }: Record<string, unknown>): Clash[] {
  const isEmpty = (list: unknown) => list === undefined || (Array.isArray(list) && list.length === 0)
  // Of a command's environment the variables may say what is wanted.
  if (!isEmpty(certificates) || !isEmpty(secrets) || !isEmpty(trust) || exec !== undefined) return []
  const path = certificates === undefined && secrets !== undefined ? ['secrets'] : ['certificates']
  return [{ path, message: 'needs at least one certificate, or one of secrets or trust' }]
}

/** What is written under a name must be of a value that the secret has. */
function entryTroubles(secrets: readonly (z.output<typeof SecretOptions> | undefined)[]): Clash[] {
  return secrets.flatMap((secret, index) =>
    (secret?.outputs ?? []).flatMap((output, position) => {
      const entries = 'entries' in output && isRecord(output.entries) ? output.entries : {}
      return Object.entries(entries).flatMap(([name, path]) => {
        const [value = ''] = typeof path === 'string' ? parseFieldPath(path) : []
        const known = Object.keys(secret?.values ?? {})
        if (known.includes(value)) return []
        const message = `names no value "${value}"; there are: ${known.join(', ')}`
        return [{ path: ['secrets', index, 'outputs', position, 'entries', name], message }]
      })
    }),
  )
}

/** The file of a token must be none that a certificate or a secret becomes. */
function sinkTroubles({ vault, vaults }: Record<string, unknown>, claims: readonly Claim[]): Clash[] {
  const named = isRecord(vaults) ? Object.entries(vaults).map(([name, one]) => [['vaults', name], one] as const) : []
  return [[['vault'], vault] as const, ...named].flatMap(([path, connection]) => {
    const sink = isRecord(connection) && isRecord(connection.tokenSink) ? connection.tokenSink : {}
    const owner = claims.find(({ outputs }) =>
      outputs.filter(writesFiles).some((one) => one.names.some((name) => `${one.directory}/${name}` === sink.file)),
    )
    if (!owner) return []
    return [{ path: [...path, 'tokenSink', 'file'], message: `is a file of ${owner.kind} "${owner.name}"` }]
  })
}

/** What reads its own files finds only what it wrote: a certificate that nobody renews, a CA that never goes. */
function circleTroubles(value: Record<string, unknown>, claims: readonly Claim[]): Clash[] {
  return claims.flatMap(({ kind, path, name, outputs }) => {
    const own = outputs.filter(writesFiles).flatMap((one) => one.names.map((file) => `${one.directory}/${file}`))
    return INPUTS.flatMap((key) => filesIn([...path, key], valueAt(value, [...path, key])))
      .filter(({ file }) => own.includes(normalize(file)))
      .map(({ path }) => ({
        path,
        message: `is a file that ${kind} "${name}" itself writes; name the one it comes from`,
      }))
  })
}

const INPUTS = ['source', 'fallback', 'anchors', 'crls']

/** Every path in a source of kind `file`, or in a list of them. */
function filesIn(path: Path, value: unknown): { path: Path; file: string }[] {
  if (Array.isArray(value)) return value.flatMap((one, index) => filesIn([...path, index], one))
  if (!isRecord(value) || value.kind !== 'file') return []
  return Object.entries(value).flatMap(([key, file]) =>
    typeof file === 'string' && file.startsWith('/') ? [{ path: [...path, key], file }] : [],
  )
}

/** A certificate may go by a trust that there is. */
function trustTroubles({ certificates, trust }: Record<string, unknown>): Clash[] {
  const namesOf = (list: unknown) =>
    (Array.isArray(list) ? list : []).map((one) => (isRecord(one) ? { name: one.name, trust: one.trust } : {}))
  const known = namesOf(trust).map(({ name }) => name)
  return namesOf(certificates).flatMap(({ trust: wanted }, index) =>
    wanted === undefined || known.includes(wanted)
      ? []
      : [
          {
            path: ['certificates', index, 'trust'],
            message: `names no trust "${String(wanted)}"; there are: ${known.join(', ') || 'none'}`,
          },
        ],
  )
}

/** Lists that nothing writes end the trust in vain; a file of no lists has nginx refuse everybody. */
function listTroubles(trust: readonly (z.output<typeof TrustOptions> | undefined)[]): Clash[] {
  return trust.flatMap((one, index) => {
    const { crls = [], outputs = [] } = one ?? {}
    const writers = outputs.filter(({ kind }) => kind === 'crl')
    const writesDeltas = writers.some((output) => 'deltaFile' in output && output.deltaFile !== undefined)
    const deltas = writesDeltas ? [] : crls.flatMap((list, at) => ('delta' in list && list.delta === true ? [at] : []))
    const idle = crls.length > 0 ? [] : writers
    return [
      ...(crls.length > 0 && writers.length === 0
        ? [
            {
              path: ['trust', index, 'crls'],
              message: 'are written by no output: add one of kind crl, or leave them out',
            },
          ]
        : deltas.map((at) => ({
            path: ['trust', index, 'crls', at, 'delta'],
            message: 'is written by no output: name a deltaFile in one of kind crl',
          }))),
      ...idle.map((output) => ({
        path: ['trust', index, 'outputs', outputs.indexOf(output), 'kind'],
        message: 'writes the lists of crls, and there are none: name where they come from, or leave this output out',
      })),
    ]
  })
}

/** `exec.env` may name what there is. */
function execTroubles({ exec, secrets }: Record<string, unknown>): Clash[] {
  const known = new Map(
    (Array.isArray(secrets) ? secrets : []).flatMap((one) =>
      isRecord(one) && typeof one.name === 'string'
        ? [[one.name, isRecord(one.values) ? Object.keys(one.values) : []]]
        : [],
    ),
  )
  const env = isRecord(exec) && isRecord(exec.env) ? exec.env : {}
  return Object.entries(env).flatMap(([variable, path]) => {
    if (!FieldPath.safeParse(path).success || typeof path !== 'string') return []
    const [secret = '', value = '', field] = parseFieldPath(path)
    const say = (message: string) => [{ path: ['exec', 'env', variable], message }]
    const values = known.get(secret)
    if (!values) return say(`names no secret "${secret}"; there are: ${[...known.keys()].join(', ') || 'none'}`)
    if (!values.includes(value))
      return say(`names no value "${value}" of secret "${secret}"; there are: ${values.join(', ')}`)
    return field === undefined ? say('lacks the field; write SECRET.VALUE.FIELD') : []
  })
}

function connectionTroubles(
  { connection }: { connection: unknown },
  { vault, vaults }: Record<string, unknown>,
): string[] {
  if (connection === undefined) return vault === undefined ? ['needs vault.address (or VAULT_ADDR)'] : []
  const names = isRecord(vaults) ? Object.keys(vaults) : []
  if (typeof connection !== 'string' || names.includes(connection)) return []
  return [`names the connection "${connection}", which is not in vaults; there are: ${names.join(', ') || 'none'}`]
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
  const deps = { certificate: name, now: notNow, kubernetes: notNow }
  const made = options.map((one) => outputs.create(one, deps))
  return { kind: 'certificate', path: ['certificates', index], name, outputs: made }
}

function secretClaimOf({ name, values, outputs: options }: z.output<typeof SecretOptions>, index: number): Claim {
  const made = options.map((one) => secretOutputs.create(one, { values: Object.keys(values) }))
  return { kind: 'secret', path: ['secrets', index], name, outputs: made }
}

function trustClaimOf({ name, outputs: options }: z.output<typeof TrustOptions>, index: number): Claim {
  return {
    kind: 'trust',
    path: ['trust', index],
    name,
    outputs: options.map((one) => trustOutputs.create(one, undefined)),
  }
}

const notNow = (): never => {
  throw new TypeError('a config is only looked at')
}
