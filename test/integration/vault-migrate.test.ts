import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { component, skipReason } from '../support/components.ts'
import { startVault } from '../support/vault.ts'

const skip = await skipReason('vault', 'consul-template')
const vault = skip ? undefined : await startVault()
const folder = mkdtempSync(join(tmpdir(), 'certferry-vault-migrate-'))
after(async () => {
  await vault?.[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

const filled = vault && fill(vault)
const CLI = new URL('../../src/cli.ts', import.meta.url).pathname
const FILES = ['conf/app.conf', 'conf/hosts.json', 'conf/old.properties', 'more/brackets.ini', 'more/first.txt']

/** One file, as people have them: several templates, from files and in place, of both versions of KV, in two directories. */
const templates = (home: string, sources: string) => `
once = true
log_level = "warn"
wait { min = "100ms" max = "1s" }
vault {
  address = "${vault?.address}"
  vault_agent_token_file = "${folder}/token"
  retry { attempts = 3 }
}
template {
  source = "${sources}/app.ctmpl"
  destination = "${home}/conf/app.conf"
  perms = 0640
  error_on_missing_key = true
}
template {
  contents = "{{ with secret \\"secret/data/app\\" }}{{ .Data.data.hosts | toJSONPretty }}{{ end }}"
  destination = "${home}/conf/hosts.json"
  perms = "0600"
}
template {
  destination = "${home}/conf/old.properties"
  perms = "0600"
  contents = <<-EOT
    {{- with secret "kv/legacy" }}
    {{- range $key, $value := .Data }}
    legacy.{{ $key }}={{ $value }}
    {{- end }}
    {{ end -}}
    EOT
}
template {
  left_delimiter = "[["
  right_delimiter = "]]"
  destination = "${home}/more/brackets.ini"
  perms = "0600"
  contents = "[x]\\nliquid={{ untouched }} {% raw %}\\nuser=[[ with secret \\"secret/data/app\\" ]][[ .Data.data.user | toUpper ]][[ end ]]\\n"
}
template {
  destination = "${home}/more/first.txt"
  perms = "0600"
  contents = "{{ with secret \\"secret/data/app?version=1\\" }}{{ .Data.data.user }}{{ end }}"
}
`

const SOURCE = `# comment stays {{/* this one does not */}}
{{ with $app := secret "secret/data/app" -}}
user     = {{ $app.Data.data.user }}
password = "{{ .Data.data.password }}"
encoded  = {{ .Data.data.password | base64Encode }}
{{ if .Data.data.debug }}debug    = on{{ else }}debug    = off{{ end }}
{{ range .Data.data.hosts -}}
server {{ . }};
{{ end -}}
stage    = {{ env "STAGE" }}
{{ with secret "kv/legacy" -}}
{{ index .Data "with-dash" | indent 4 }}
{{ end -}}
{{ end -}}
tail
`

test('files that consul-template wrote are the same bytes once its config was migrated', { skip }, async () => {
  await filled
  const [theirs, ours] = [join(folder, 'theirs'), join(folder, 'ours')]
  for (const home of [theirs, ours]) mkdirSync(home)
  writeFileSync(join(folder, 'app.ctmpl'), SOURCE)
  for (const home of [theirs, ours]) writeFileSync(`${home}.hcl`, templates(home, folder))

  succeed(await component('consul-template'), '-config', `${theirs}.hcl`, '-once')

  const config = join(folder, 'certferry.yaml')
  const migrated = succeed(process.execPath, CLI, 'migrate', 'consul-template', `${ours}.hcl`, '-o', config)
  assert.match(migrated.stderr, /all of it has an equivalent/)
  succeed(process.execPath, CLI, 'once', '-c', config)

  const read = (home: string) => Object.fromEntries(FILES.map((name) => [name, readFileSync(join(home, name), 'utf8')]))
  assert.deepEqual(read(ours), read(theirs))
  assert.equal(read(ours)['more/first.txt'], 'before')
  assert.match(read(ours)['conf/app.conf'] ?? '', /^debug {4}= off$/m)
})

/** The command tells, by a file, what is in its environment, and ends. */
const supervisor = (home: string) => `
vault { address = "${vault?.address}" }
auto_auth { method "token_file" { config = { token_file_path = "${folder}/token" } } }
env_template "APP_USER" {
  contents = "{{ with secret \\"secret/data/app\\" }}{{ .Data.data.user }}{{ end }}"
  error_on_missing_key = true
}
env_template "APP_PASSWORD" {
  contents = "{{ with secret \\"secret/data/app\\" }}{{ .Data.data.password }}{{ end }}"
}
env_template "LEGACY" {
  contents = "{{ with secret \\"kv/legacy\\" }}{{ index .Data \\"with-dash\\" }}{{ end }}"
}
exec {
  command = ["sh", "-c", "env -0 > ${home}/env"]
  restart_on_secret_changes = "never"
  restart_stop_signal = "SIGINT"
}
`

test('a command finds in its environment what Vault Agent put there', { skip }, async () => {
  await filled
  const [theirs, ours] = [join(folder, 'agent'), join(folder, 'certferry')]
  for (const home of [theirs, ours]) {
    mkdirSync(home)
    writeFileSync(`${home}.hcl`, supervisor(home))
  }
  succeed(await component('vault'), 'agent', '-config', `${theirs}.hcl`)

  const config = join(folder, 'exec.yaml')
  succeed(process.execPath, CLI, 'migrate', 'vault-agent', `${ours}.hcl`, '-o', config)
  const [, command = ''] = /^# Run it with: certferry (exec .*)$/m.exec(readFileSync(config, 'utf8')) ?? []
  // The line is for a shell, and so it is one that reads it.
  succeed('sh', '-c', `"$0" "$1" ${command.replace('FILE', '"$2"')}`, process.execPath, CLI, config)

  const read = (home: string) =>
    readFileSync(join(home, 'env'), 'utf8')
      .split('\0')
      .filter((pair) => /^(?:APP_|LEGACY|STAGE)/.test(pair))
      .sort()
  assert.equal(read(ours).length, 4)
  assert.deepEqual(read(ours), read(theirs))
})

async function fill({ api, rootToken }: NonNullable<typeof vault>): Promise<void> {
  const fields = { user: 'jörg', password: 'p"w\\ {{ x }}', debug: false, hosts: ['a.example.com', 'b.example.com'] }
  await api('POST', 'sys/mounts/secret', { type: 'kv', options: { version: '2' } })
  await api('POST', 'sys/mounts/kv', { type: 'kv', options: { version: '1' } })
  await api('POST', 'secret/data/app', { data: { ...fields, user: 'before' } })
  await api('POST', 'secret/data/app', { data: fields })
  await api('POST', 'kv/legacy', { zeta: 'z=1', alpha: 'a', 'with-dash': 'first\nsecond' })
  writeFileSync(join(folder, 'token'), rootToken, { mode: 0o600 })
}

function succeed(program: string, ...args: readonly string[]) {
  const env = { PATH: process.env.PATH, STAGE: 'prod' }
  const run = spawnSync(program, args, { encoding: 'utf8', timeout: 60_000, env })
  assert.equal(run.status, 0, run.stdout + run.stderr)
  return run
}
