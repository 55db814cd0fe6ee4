import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { component, skipReason } from '../support/components.ts'
import { startVault, WEB_ROLE } from '../support/vault.ts'

const skip = await skipReason('vault')
const vault = skip ? undefined : await startVault()
const folder = mkdtempSync(join(tmpdir(), 'certferry-migrate-agent-'))
after(async () => {
  await vault?.[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

const CLI = new URL('../../src/cli.ts', import.meta.url).pathname

/** The same config for Vault Agent and for migrate, but for where the files go. */
const agentConfig = (home: string) => `
pid_file = "${home}/pid"
exit_after_auth = true
vault { address = "${vault?.address}" }
auto_auth {
  method "token_file" { config = { token_file_path = "${folder}/token" } }
  sink "file" { config = { path = "${home}/sink" mode = 0600 } }
}
template_config { exit_on_retry_failure = true }
template {
  destination = "${home}/secrets/app.conf"
  perms = "0640"
  error_on_missing_key = true
  contents = <<-EOT
    {{- with secret "secret/data/app" }}
    user={{ .Data.data.user }}
    {{ range $k, $v := .Data.data }}{{ $k }}={{ $v | toUpper }};{{ end }}
    {{ end -}}
    EOT
}
template {
  destination = "${home}/secrets/more.json"
  perms = "0600"
  contents = "{{ with secret \\"secret/data/app\\" }}{{ .Data.data | toJSON }}{{ end }}"
}
template {
  destination = "${home}/tls/web.pem"
  perms = "0600"
  contents = "{{ with pkiCert \\"pki/issue/web\\" \\"common_name=web.example.com\\" \\"ttl=1h\\" }}{{ .Key }}{{ .Cert }}{{ end }}"
}
`

test('a config that was migrated delivers what Vault Agent delivered', { skip }, async () => {
  assert.ok(vault)
  await vault.setupPki({ roles: { web: { ...WEB_ROLE, key_type: 'ec', key_bits: 256 } } })
  await vault.api('POST', 'sys/mounts/secret', { type: 'kv', options: { version: '2' } })
  await vault.api('POST', 'secret/data/app', { data: { user: 'ada', password: 'p"w' } })
  writeFileSync(join(folder, 'token'), vault.rootToken, { mode: 0o600 })
  const [theirs, ours] = [join(folder, 'theirs'), join(folder, 'ours')]
  for (const home of [theirs, ours]) mkdirSync(home)

  writeFileSync(join(folder, 'agent.hcl'), agentConfig(theirs))
  const agent = spawnSync(await component('vault'), ['agent', '-config', join(folder, 'agent.hcl')], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  assert.equal(agent.status, 0, agent.stdout + agent.stderr)

  writeFileSync(join(folder, 'ours.hcl'), agentConfig(ours))
  const config = join(folder, 'certferry.yaml')
  const migrated = certferry('migrate', 'vault-agent', join(folder, 'ours.hcl'), '-o', config)
  assert.equal(migrated.status, 1, migrated.stderr)
  assert.deepEqual(
    [...migrated.stderr.matchAll(/: line \d+: ([\w.]+):/g)].map(([, what]) => what),
    ['pid_file', 'template_config.exit_on_retry_failure'],
  )
  assert.match(readFileSync(config, 'utf8'), /^# Run it with: certferry once -c FILE$/m)
  const once = certferry('once', '-c', config)
  assert.equal(once.status, 0, once.stdout + once.stderr)

  for (const name of ['secrets/app.conf', 'secrets/more.json', 'sink'])
    assert.equal(readFileSync(join(ours, name), 'utf8'), readFileSync(join(theirs, name), 'utf8'), name)
  for (const home of [theirs, ours]) {
    const pem = readFileSync(join(home, 'tls/web.pem'))
    const certificate = new X509Certificate(pem.subarray(pem.indexOf('-----BEGIN CERTIFICATE')))
    assert.equal(certificate.subject, 'CN=web.example.com')
    assert.ok(certificate.checkPrivateKey(createPrivateKey(pem)))
  }
})

const certferry = (...args: readonly string[]) =>
  spawnSync(process.execPath, [CLI, ...args], { encoding: 'utf8', timeout: 60_000, env: { PATH: process.env.PATH } })
