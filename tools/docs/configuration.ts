import * as z from 'zod'
import { configJsonSchema } from '../../src/config/schema.ts'
import { UNUSED_VARIABLES, VAULT_VARIABLES } from '../../src/config/vault-variables.ts'
import { outputs } from '../../src/outputs/index.ts'
import { secretOutputs } from '../../src/outputs/secrets.ts'
import { trustOutputs } from '../../src/outputs/trust.ts'
import { reloaders } from '../../src/reloaders/index.ts'
import { sources } from '../../src/sources/index.ts'
import { anchors, lists } from '../../src/trust/index.ts'
import { values } from '../../src/values/index.ts'
import { authMethods } from '../../src/vault/auth/index.ts'
import { verifiers } from '../../src/verifiers/index.ts'
import { trustVerifiers } from '../../src/verifiers/trust.ts'
import { code, GENERATED, table } from './table.ts'

/** The part of a JSON Schema that a table can show. */
const Shape = z.object({
  type: z.union([z.string(), z.array(z.string())]).optional(),
  description: z.string().optional(),
  default: z.unknown().optional(),
  examples: z.array(z.unknown()).optional(),
  enum: z.array(z.string()).optional(),
  required: z.array(z.string()).default([]),
  properties: z.record(z.string(), z.unknown()).optional(),
  items: z.unknown().optional(),
  prefixItems: z.unknown().optional(),
  anyOf: z.array(z.object({ const: z.unknown().optional() })).optional(),
})
type Shape = z.output<typeof Shape>

/** Families of kinds: the heading, where they stand in the config, what they are. */
const FAMILIES = [
  ['Sources', 'certificates[].source', sources],
  ['Outputs', 'certificates[].outputs[]', outputs],
  ['Reload', 'certificates[].reload[]', reloaders],
  ['Verify', 'certificates[].verify[]', verifiers],
  ['Values of secrets', 'secrets[].values', values],
  ['Outputs of secrets', 'secrets[].outputs[]', secretOutputs],
  ['Anchors of trust', 'trust[].anchors[]', anchors],
  ['Revocation lists of trust', 'trust[].crls[]', lists],
  ['Outputs of trust', 'trust[].outputs[]', trustOutputs],
  ['Verify of trust', 'trust[].verify[]', trustVerifiers],
  ['Vault login', 'vault.auth', authMethods],
] as const

export function renderConfiguration(): string {
  const whole = Shape.parse(configJsonSchema())
  const sections = Object.entries(whole.properties ?? {}).map(([key, raw]) => [key, Shape.parse(raw)] as const)
  const itemOf = (list: string) => Shape.parse(sections.find(([key]) => key === list)?.[1].items)
  return `${GENERATED}

# Configuration

One file, YAML 1.2 or JSON: \`--config FILE\`, else the variable \`CERTFERRY_CONFIG\`, else \`/etc/certferry/config.yaml\`. Whoever can write it
decides what certferry runs, so it must not be writable by group or others. \`certferry validate\` tells every mistake at once, each with
line and column; \`certferry validate --print-schema\` prints a JSON Schema for editors.

\`\`\`yaml
${EXAMPLE}\`\`\`

A changed file is loaded again by itself, and on SIGHUP (of \`certferry exec\`, where SIGHUP is the command's, by itself only). A broken one changes nothing and is told in log, metrics and status. From a valid
one the difference is applied: what is untouched keeps running, changed names lead to a new certificate, and the files of a certificate
that is gone stay. \`admin\`, \`log\`, \`audit\`, \`kubernetes\`, \`injector\` and \`exec\` are read at the start only; when they change, the log says that it takes a restart.

${table(
  ['Section', 'Required', 'Meaning'],
  sections.map(([key, { description = '' }]) => [
    `[${code(key)}](#${key})`,
    whole.required.includes(key) ? 'yes' : '',
    description,
  ]),
)}

## Values

- A duration is text such as \`500ms\`, \`90s\`, \`15m\`, \`1h30m\` or \`30d\`; a fraction is \`2/3\`, \`66%\` or \`0.66\`.
- A mode is quoted octal, \`'0600'\`: YAML reads an unquoted 0600 as the decimal 600.
- Paths are absolute. Commands are lists, \`[nginx, -s, reload]\`; no shell reads them.
- \`kind\` decides which further keys there are.

## References

In every value, but not in keys:

${table(
  ['Written', 'Becomes'],
  [
    [code('${NAME}'), 'the environment variable; not set is an error, empty counts as not set'],
    [code('${NAME:-default}'), 'the same, or the default'],
    [code('${file:/path}'), 'the content of the file, without white space at its end; at most 1 MiB'],
    [code('$${'), 'a plain `${`'],
  ],
)}

They are replaced after the YAML was read, so no value can add a key, and none is looked through for further references. Inside \`{ }\` and
\`[ ]\` write them in quotes: \`{ kind: token, token: '\${VAULT_TOKEN}' }\`. Errors show the reference, never what it stands for.

## Environment

Variables of the vault CLI fill in what the file leaves out of \`vault\`; the file wins. They count only where a certificate comes from Vault.

${table(
  ['Variable', 'Fills in'],
  [
    ...VAULT_VARIABLES.map(([name, key]) => [
      code(name),
      key === 'auth'
        ? '`vault.auth`, as `{ kind: token }`'
        : code(key === 'timeouts' ? 'vault.timeouts.total' : `vault.${key}`),
    ]),
    ...Object.entries(UNUSED_VARIABLES).map(([name, { why, isRefused }]) => [
      code(name),
      `nothing: ${isRefused ? 'certferry refuses to start' : 'a warning'}; ${why}`,
    ]),
    [code('CERTFERRY_CONFIG'), 'the option `--config`'],
  ],
)}

${sections
  .filter(([key]) => key !== 'certificates' && key !== 'secrets' && key !== 'trust')
  .map(([key, shape]) => section(key, shape))
  .join('\n\n')}

## certificates

Each entry is one certificate, with one set of files. Certificates that name the same target tell it once.

${keysTable('certificates', itemOf('certificates'))}

No two certificates share a name or a directory. Outputs of one certificate that share a directory are one set: one \`layout\`, one
\`seenAs\`, no file twice.

## secrets

Each entry is one secret: values that are read together, and what they become. Fields are named as in \`db.password\`, or with quotes as in
\`api["tls.crt"]\`.

${keysTable('secrets', itemOf('secrets'))}

## trust

Each entry is one set of CAs and revocation lists that peers go by, and where it is written. See [trust.md](trust.md).

${keysTable('trust', itemOf('trust'))}

${FAMILIES.map(family).join('\n\n')}
`
}

/** Loaded by a test. */
export const EXAMPLE = `vault:
  address: https://vault.example.com:8200
  caFile: /etc/vault/ca.pem
  auth: { kind: approle, roleIdFile: /run/secrets/role-id, secretIdFile: /run/secrets/secret-id }
admin: { listen: '0.0.0.0:9443', socket: /run/certferry/control.sock }
volumes: [/tls]
certificates:
  - name: web
    source:  { kind: vault-pki, mount: pki, role: web, commonName: web.example.com, altNames: [www.example.com], ttl: 72h }
    key:     { algorithm: ecdsa-p256 }
    renew:   { after: 2/3 }
    outputs: [{ kind: pem, directory: /tls, mode: '0600' }]
    reload:  [{ kind: signal, pidFile: /run/nginx.pid, signal: SIGHUP }]
    verify:  [{ kind: tls, address: '127.0.0.1:443', serverName: web.example.com }]
`

function section(key: string, shape: Shape): string {
  const keys = shape.properties
    ? keysTable(key, shape)
    : key === 'vaults'
      ? 'Map: by name, each with the keys of [vault](#vault).'
      : `${capitalised(typeOf(key, shape))}.`
  return `## ${key}\n\n${shape.description}.\n\n${keys}`
}

function family([heading, place, { definitions }]: (typeof FAMILIES)[number]): string {
  const kinds = definitions.map(({ kind, summary, options }) => {
    const shape = Shape.parse(z.toJSONSchema(options, { io: 'input', unrepresentable: 'any' }))
    return `### ${place.split('.').at(-1)?.replace('[]', '')} ${code(kind)}\n\n${summary}\n\n${keysTable(place, shape)}`
  })
  return `## ${heading}\n\n${code(place)}; \`kind\` is one of ${definitions.map(({ kind }) => code(kind)).join(', ')}.\n\n${kinds.join('\n\n')}`
}

const keysTable = (place: string, shape: Shape) =>
  table(['Key', 'Type', 'Default', 'Meaning'], keysOf(place, shape, ''))

/** Maps are shown with their keys: `renew.after`. */
function keysOf(place: string, { properties = {}, required }: Shape, prefix: string): string[][] {
  return Object.entries(properties).flatMap(([key, raw]) => {
    const shape = Shape.parse(raw)
    const row = [
      code(prefix + key),
      typeOf(key, shape, place),
      standard(shape, required.includes(key)),
      shape.description ?? '',
    ]
    return shape.properties ? [row, ...keysOf(place, shape, `${prefix}${key}.`)] : [row]
  })
}

function standard({ default: value, properties }: Shape, isRequired: boolean): string {
  if (value === undefined || properties) return isRequired ? '**required**' : ''
  if (Array.isArray(value) && value.length > 0) return code(value.join(', '))
  if (Array.isArray(value) || typeof value === 'object') return 'none'
  return code(String(value))
}

/** What takes the kinds of a family that stands elsewhere. */
const SAME_FAMILY: Readonly<Record<string, string>> = {
  'secrets[].reload': 'certificates[].reload',
  'trust[].reload': 'certificates[].reload',
  'certificates[].fallback': 'certificates[].source',
}

function typeOf(key: string, shape: Shape, place = ''): string {
  const at = `${place}${place === 'vault' ? '' : '[]'}.${key}`
  const family = FAMILIES.find(([, home]) => home.replace(/\[\]$/, '') === (SAME_FAMILY[at] ?? at))
  if (family) {
    const link = `(#${family[0].toLowerCase().replaceAll(' ', '-')})`
    if (shape.type === 'object') return `map: [kind]${link}`
    return `[${shape.type === 'array' ? 'list of kinds' : key === 'auth' ? 'kind, or list of kinds' : 'kind'}]${link}`
  }
  if (shape.anyOf?.some((one) => one.const === false)) return 'name, map or `false`'
  if (shape.enum) return shape.enum.map(code).join(', ')
  if (shape.prefixItems) return 'command, a list'
  if (shape.type === 'array') return `list: ${typeOf(key, Shape.parse(shape.items), place)}`
  if (shape.type === 'integer') return 'whole number'
  if (shape.type === 'boolean') return '`true`, `false`'
  if (shape.type === 'object') return shape.properties ? 'map' : 'map: text'
  const [example] = shape.examples ?? []
  if (typeof example === 'string' && /^\d+[a-z]+$/.test(example)) return 'duration'
  if (typeof example === 'string' && example.startsWith('https:')) return 'URL'
  if (example === '2/3') return 'fraction'
  if (example === '0600') return 'mode'
  const isName = typeof shape.default === 'string'
  if (!isName && /(?:(?<!pro)file|directory|socket|volumes|seenas)$/i.test(key)) return 'path'
  return shape.type === 'number' ? 'number' : 'text'
}

const capitalised = (text: string) => text.charAt(0).toUpperCase() + text.slice(1)
