import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import * as z from 'zod'
import { loadConfig } from '../../src/config/config.ts'
import { Fields, type Values } from '../../src/core/values.ts'
import { migrateConsulTemplate } from '../../src/migrate/consul-template.ts'
import { renderMigration } from '../../src/migrate/render.ts'
import { parseTemplate } from '../../src/text/template.ts'
import { component, skipReason } from '../support/components.ts'
import { startVault } from '../support/vault.ts'

const skip = await skipReason('vault', 'consul-template')
const vault = skip ? undefined : await startVault()
const consulTemplate = skip ? '' : await component('consul-template')
const folder = mkdtempSync(join(tmpdir(), 'certferry-migrate-'))
after(async () => {
  await vault?.[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

/** What Vault holds. Line breaks, quotes, braces, letters beyond ASCII, nothing, and keys that are not in order. */
const FIELDS = {
  user: 'jörg',
  password: 'p"w\\ {{ x }} {% y %}\nsecond  ',
  'with-dash': ' dashed ',
  empty: '',
  off: false,
  port: 5432,
  zeta: 'z',
  alpha: 'a,b',
  hosts: ['one', 'two'],
  nested: { deep: { er: 'x' } },
}
const KV2 = { method: 'secret/data/team/app', mount: 'secret', path: 'team/app' }

/** Templates as the documentation of both tools has them, in words of our own. */
const TEMPLATES: Readonly<Record<string, string>> = {
  'a field of KV 2': '{{ with secret "secret/data/team/app" }}{{ .Data.data.user }}:{{ .Data.data.password }}{{ end }}',
  'white space that is trimmed':
    '  {{- with secret "secret/data/team/app" -}}\n  a\n  {{- .Data.data.user -}}  \n\n b {{ end -}}\n  tail\n',
  'a comment':
    'x {{- /* no }} end */ -}} y{{/* z */}}{{ with secret "secret/data/team/app" }}{{ .Data.data.user }}{{ end }}',
  'a field of KV 1': '{{ with secret "kv1/app" }}{{ .Data.user }}/{{ .Data.password }}{{ end }}',
  'braces around, as in JSON': '{"a":{"u":"{{ with secret "kv1/app" }}{{ .Data.user }}"}},{ {% raw %} }{{ end }}}',
  'a variable':
    '{{ with $s := secret "kv1/app" }}{{ $u := $s.Data.user }}{{ $u }}-{{ .Data.zeta }}-{{ $u | toUpper }}{{ end }}',
  'two secrets, one within the other':
    '{{ with secret "kv1/app" }}{{ $a := .Data.alpha }}{{ with secret "secret/data/team/app" }}{{ $a }}{{ .Data.data.zeta }}{{ end }}{{ .Data.user }}{{ end }}',
  'if, else and else if':
    '{{ with secret "kv1/app" }}{{ if .Data.empty }}1{{ else if .Data.off }}2{{ else if .Data.absent }}3{{ else if .Data.user }}4{{ else }}5{{ end }}{{ end }}',
  'not, eq and ne':
    '{{ with secret "kv1/app" }}{{ if not .Data.empty }}1{{ else }}x{{ end }}{{ if not .Data.user }}2{{ end }}{{ if eq .Data.zeta "z" }}3{{ end }}{{ if ne .Data.zeta "z" }}4{{ else }}5{{ end }}{{ end }}',
  'with a field':
    '{{ with secret "kv1/app" }}{{ with .Data.nested.deep }}{{ .er }}{{ end }}{{ with .Data.empty }}x{{ else }}none{{ end }}{{ end }}',
  'a range over a list':
    '{{ with secret "kv1/app" }}{{ range .Data.hosts }}- {{ . }}\n{{ end }}{{ range $h := .Data.hosts }}{{ $h }};{{ else }}none{{ end }}{{ end }}',
  'a range over all fields':
    '{{ with secret "secret/data/team/plain" }}{{ range $k, $v := .Data.data }}{{ $k }}={{ $v }}\n{{ end }}{{ end }}',
  'a range over all fields of KV 1':
    '{{ with secret "kv1/plain" }}{{ range $k, $v := .Data }}{{ $k | toUpper }}={{ $v | toJSON }}\n{{ end }}{{ end }}',
  'functions one after the other':
    '{{ with secret "kv1/app" }}{{ .Data.user | toUpper | base64Encode }} {{ base64Encode .Data.password }} {{ .Data.user | base64Encode | base64Decode }}{{ end }}',
  indent: '{{ with secret "kv1/app" }}{{ .Data.password | indent 4 }}|{{ indent 2 .Data.zeta }}{{ end }}',
  'text functions':
    '{{ with secret "kv1/app" }}{{ index .Data "with-dash" | trimSpace }}|{{ .Data.alpha | replaceAll "," ";" }}|{{ .Data.user | toLower }}|{{ trimPrefix "a," .Data.alpha }}|{{ .Data.alpha | trimSuffix ",b" }}|{{ .Data.user | sha256Hex }}{{ end }}',
  JSON: '{{ with secret "kv1/app" }}{{ .Data.nested | toJSON }}{{ .Data.hosts | toJSONPretty }}{{ .Data.password | toJSON }}{{ end }}',
  'JSON of all fields':
    '{{ with secret "secret/data/team/app" }}{{ .Data.data | toJSON }}{{ .Data.data | toUnescapedJSONPretty }}{{ end }}',
  'index and numbers':
    '{{ with secret "kv1/app" }}{{ index .Data.hosts 1 }}{{ index .Data "nested" "deep" "er" }}{{ .Data.port }}{{ .Data.off }}{{ end }}',
  printf: '{{ with secret "kv1/app" }}{{ printf "%s:%s {{ 100%%" .Data.user .Data.zeta }}{{ end }}',
  'the environment': '{{ env "STAGE" }}{{ with secret "kv1/app" }}{{ .Data.zeta }}{{ env "NOT_SET" }}{{ end }}',
  'a path with a variable of the environment':
    '{{ with secret (printf "secret/data/%s/app" (env "STAGE")) }}{{ .Data.data.zeta }}{{ end }}{{ with secret (env "WHOLE") }}{{ .Data.alpha }}{{ end }}',
  'metadata of KV 2':
    '{{ with secret "secret/data/team/app" }}{{ .Data.metadata.version }}{{ .Data.data.zeta }}{{ end }}',
  'a version': '{{ with secret "secret/data/team/app?version=1" }}{{ .Data.data.zeta }}{{ end }}',
  'quoted text': '{{ with secret "kv1/app" }}{{ "a\\t{{ \\"b\\"" }}{{ `raw \\n` }}{{ .Data.zeta }}{{ end }}',
}

describe('templates that migrate translates', { skip }, () => {
  for (const [what, text] of Object.entries(TEMPLATES))
    test(`${what}: certferry prints the bytes that consul-template prints`, async () => {
      await prepared
      assert.equal(await ours(text), theirs(text))
    })
})

const prepared = vault && prepare(vault)

async function prepare({ api }: NonNullable<typeof vault>): Promise<void> {
  await api('POST', 'sys/mounts/secret', { type: 'kv', options: { version: '2' } })
  await api('POST', 'sys/mounts/kv1', { type: 'kv', options: { version: '1' } })
  const plain = { zeta: 'z', alpha: 'a', Beta: 'b', 10: 'ten', 9: 'nine' }
  await api('POST', KV2.method, { data: FIELDS })
  await api('POST', 'secret/data/team/plain', { data: plain })
  await api('POST', 'secret/data/prod/app', { data: { zeta: 'of prod' } })
  await api('POST', 'kv1/app', FIELDS)
  await api('POST', 'kv1/plain', plain)
}

const Written = z.object({ kind: z.literal('template'), template: z.string() })

const env = { STAGE: 'prod', WHOLE: 'kv1/app' }

/** What consul-template writes. */
function theirs(text: string): string {
  const home = mkdtempSync(join(folder, 'theirs-'))
  writeFileSync(join(home, 'in.ctmpl'), text)
  const args = [
    '-once',
    '-vault-addr',
    vault?.address ?? '',
    '-vault-renew-token=false',
    '-template',
    `${join(home, 'in.ctmpl')}:${join(home, 'out')}`,
  ]
  const { status, stderr } = spawnSync(consulTemplate, args, {
    env: { ...env, VAULT_TOKEN: vault?.rootToken },
    encoding: 'utf8',
    timeout: 30_000,
  })
  assert.equal(status, 0, stderr)
  return readFileSync(join(home, 'out'), 'utf8')
}

/** What certferry makes of the config that migrate writes, with what Vault gives for its values. */
async function ours(text: string): Promise<string> {
  const home = mkdtempSync(join(folder, 'ours-'))
  mkdirSync(join(home, 'secrets'))
  const hcl = JSON.stringify({
    vault: { address: vault?.address, vault_agent_token_file: '/run/token' },
    template: [{ contents: text, destination: join(home, 'secrets/out'), perms: '0600' }],
  })
  const migration = migrateConsulTemplate(hcl, 'theirs.json', { directory: home, read: () => undefined })
  assert.deepEqual(migration.losses, [])
  const file = join(home, 'c.yaml')
  writeFileSync(file, renderMigration(migration, 'theirs.json'), { mode: 0o600 })
  const [secret] = loadConfig(file, env).secrets
  const [output] = secret?.outputs ?? []
  assert.ok(secret)
  const { template } = Written.parse(output)
  const values = await Promise.all(
    Object.entries(secret.values).map(async ([name, value]) => [name, await read(value)] as const),
  )
  const known: Values = Object.fromEntries(values)
  return parseTemplate(template, 'out').render(known, { now: Date.now() })
}

async function read(value: {
  readonly kind: string
  readonly mount?: string
  readonly path?: string
  readonly version?: number | undefined
}) {
  const below =
    value.kind === 'vault-kv' ? `${value.mount}/data/${value.path}?version=${value.version ?? 0}` : (value.path ?? '')
  const answer = await vault?.api('GET', below)
  return Fields.parse(value.kind === 'vault-kv' ? answer?.data?.data : answer?.data)
}
