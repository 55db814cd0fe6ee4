import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Config } from '../../src/config/config.ts'
import { TOOLS } from '../../src/migrate/index.ts'
import type { Migration } from '../../src/migrate/migration.ts'
import { renderMigration } from '../../src/migrate/render.ts'
import { load } from '../config/support.ts'

type Files = Readonly<Record<string, string>>

const migrate = (tool: string, text: string, files: Files = {}): Migration => {
  const translate = TOOLS[tool]
  assert.ok(translate, tool)
  return translate(text, 'theirs.hcl', { directory: '/srv', read: (path) => files[path] })
}
const written = (migration: Migration) => renderMigration(migration, 'theirs.hcl')
/** What certferry itself makes of what was written. */
const loaded = (migration: Migration, env = {}): Config => load(written(migration), env)
const lost = ({ losses }: Migration) => losses.map(({ what, line }) => `${line} ${what}`)
const agent = (more: string) => `
vault { address = "https://vault.example.com:8200" }
auto_auth { method "kubernetes" { config = { role = "app" } } }
${more}`
const template = (contents: string, more = '') => `template {
  destination = "/secrets/app.conf"
  error_on_missing_key = true
  perms = "0600"
  contents = <<EOT
${contents}
EOT
  ${more}
}`
const PASSWORD = '{{ with secret "secret/data/app" }}{{ .Data.data.password }}{{ end }}'

test('what Vault Agent says of the connection and the login is said in a config that certferry takes', () => {
  const migration = migrate(
    'vault-agent',
    `vault {
       address = "https://vault.example.com:8200"
       ca_cert = "/etc/ssl/vault.pem"
       client_cert = "client.pem"
       client_key = "/etc/ssl/client.key"
       tls_server_name = "vault"
       namespace = "/team/web/"
       retry { num_retries = 5 }
     }
     auto_auth {
       method "approle" {
         mount_path = "auth/machines"
         namespace = "team/web"
         config = { role_id_file_path = "/run/role" secret_id_file_path = "/run/secret" remove_secret_id_file_after_reading = false secret_id_response_wrapping_path = "auth/machines/role/app/secret-id" }
       }
       sink "file" { wrap_ttl = "5m" config = { path = "/run/token" mode = 0600 } }
     }
     ${template(PASSWORD)}`,
  )
  assert.deepEqual(lost(migration), [])
  const { vault } = loaded(migration)
  assert.equal(vault?.address, 'https://vault.example.com:8200')
  assert.equal(vault.caFile, '/etc/ssl/vault.pem')
  assert.equal(vault.clientCertFile, '/srv/client.pem')
  assert.equal(vault.serverName, 'vault')
  assert.equal(vault.namespace, 'team/web')
  assert.deepEqual({ file: vault.tokenSink?.file, mode: vault.tokenSink?.mode }, { file: '/run/token', mode: 0o600 })
  assert.partialDeepStrictEqual(vault.auth, { kind: 'approle', mount: 'machines', secretIdWrapped: true })
  assert.match(written(migration), /# "client\.pem" was taken from the working directory of Vault Agent/)
})

const LOGINS: Readonly<Record<string, readonly [string, object]>> = {
  kubernetes: [
    'config = { role = "app" token_path = "/run/t" }',
    { kind: 'kubernetes', role: 'app', tokenFile: '/run/t' },
  ],
  jwt: ['config = { role = "app" path = "/run/jwt" }', { kind: 'jwt', role: 'app', tokenFile: '/run/jwt' }],
  token_file: ['config = { token_file_path = "/run/t" }', { kind: 'token', tokenFile: '/run/t' }],
  cert: ['config = { name = "web" client_cert = "/c" client_key = "/k" }', { kind: 'cert', name: 'web' }],
  ldap: ['config = { username = "joe" password_file_path = "/p" }', { kind: 'ldap', username: 'joe' }],
  aws: [
    'config = { type = "iam" role = "app" region = "eu-north-1" header_value = "vault" }',
    { kind: 'aws', role: 'app', serverId: 'vault' },
  ],
  azure: [
    'config = { role = "app" resource = "https://vault" }',
    { kind: 'azure', role: 'app', resource: 'https://vault' },
  ],
  gcp: ['config = { type = "gce" role = "app" }', { kind: 'gcp', role: 'app' }],
}

for (const [kind, [settings, expected]] of Object.entries(LOGINS))
  test(`the login of Vault Agent by ${kind} is one of certferry`, () => {
    const migration = migrate(
      'vault-agent',
      `vault { address = "https://v:8200" }\nauto_auth {\n method "${kind}" { ${settings} }\n}\n${template(PASSWORD)}`,
    )
    assert.deepEqual(lost(migration), [])
    assert.partialDeepStrictEqual(loaded(migration).vault?.auth, expected)
  })

test('a login with another client certificate than that of the connection is told', () => {
  const migration = migrate(
    'vault-agent',
    `vault { address = "https://v:8200" client_cert = "/a" client_key = "/b" }\nauto_auth {\n method "cert" { config = { client_cert = "/c" client_key = "/d" } }\n}\n${template(PASSWORD)}`,
  )
  assert.deepEqual(lost(migration), ['3 auto_auth.method.config'])
  assert.partialDeepStrictEqual(loaded(migration).vault, { clientCertFile: '/c', clientKeyFile: '/d' })
})

test('method and sink are read in all their forms, also in JSON', () => {
  const forms = [
    'auto_auth { method { type = "kubernetes" config = { role = "app" } } }',
    'auto_auth { method "kubernetes" { config { role = "app" } } }',
    'auto_auth = { method = [{ kubernetes = { config = { role = "app" } } }] }',
  ]
  const auths = forms.map(
    (form) =>
      loaded(migrate('vault-agent', `vault { address = "https://v:8200" }\n${form}\n${template(PASSWORD)}`)).vault
        ?.auth,
  )
  const json = {
    vault: { address: 'https://v:8200' },
    auto_auth: [{ method: [{ kubernetes: { config: { role: 'app' } } }] }],
    template: [{ destination: '/secrets/a', perms: '0600', contents: PASSWORD }],
  }
  auths.push(loaded(migrate('vault-agent', JSON.stringify(json))).vault?.auth)
  for (const auth of auths) assert.partialDeepStrictEqual(auth, { kind: 'kubernetes', role: 'app' })
})

test('a login that certferry does not have is told, with what to do instead', () => {
  const { losses } = migrate(
    'vault-agent',
    `auto_auth {\n method "kerberos" { config = { x = "y" } }\n}\n${template(PASSWORD)}`,
  )
  assert.match(losses.find(({ what }) => what.includes('kerberos'))?.why ?? '', /no such method.*tokenFile/)
})

for (const tool of ['vault-agent', 'consul-template'])
  test(`an address that the config of ${tool} leaves to the environment is taken from there, and that is told`, () => {
    const auth = 'auto_auth { method "kubernetes" { config = { role = "app" } } }'
    const migration = migrate(tool, `${tool === 'vault-agent' ? auth : ''}\n${template(PASSWORD)}`)
    assert.match(written(migration), /# - line 1: vault\.address: is not given: certferry takes it from VAULT_ADDR/)
    const { vault } = loaded(migration, { VAULT_ADDR: 'https://from.env:8200', VAULT_TOKEN: 'x' })
    assert.equal(vault?.address, 'https://from.env:8200')
  })

test('a Vault without encryption, or unproven, is never connected to', () => {
  const migration = migrate(
    'vault-agent',
    `vault {\n address = "http://vault:8200"\n tls_skip_verify = true\n}\nauto_auth { method "kubernetes" { config = { role = "a" } } }\n${template(PASSWORD)}`,
  )
  assert.deepEqual(lost(migration), ['2 vault.address', '3 vault.tls_skip_verify'])
  assert.equal(loaded(migration).vault?.address, 'https://vault:8200')
})

test('key, certificate and CA of one pkiCert in files of their own become one set', () => {
  const call = (what: string, file: string, perms: string) =>
    `template {\n contents = "{{ with pkiCert \\"pki/issue/web\\" \\"common_name=web.example.com\\" \\"alt_names=a.example.com,b.example.com\\" \\"ttl=24h\\" }}{{ .${what} }}{{ end }}"\n destination = "/tls/${file}"\n perms = "${perms}"\n command = "pkill -HUP nginx"\n}\n`
  const migration = migrate(
    'vault-agent',
    agent(call('Cert', 'web.crt', '0644') + call('Key', 'web.key', '0640') + call('CA', 'root.crt', '0644')),
  )
  assert.deepEqual(lost(migration), [])
  const [certificate, ...more] = loaded(migration).certificates
  assert.deepEqual(more, [])
  assert.equal(certificate?.name, 'web')
  assert.partialDeepStrictEqual(certificate.source, {
    kind: 'vault-pki',
    mount: 'pki',
    role: 'web',
    method: 'issue',
    commonName: 'web.example.com',
    altNames: ['a.example.com', 'b.example.com'],
  })
  assert.partialDeepStrictEqual(certificate.outputs, [
    {
      kind: 'pem',
      directory: '/tls',
      mode: 0o640,
      certificateMode: 0o644,
      files: { certificate: 'web.crt', key: 'web.key', ca: 'root.crt' },
    },
  ])
  assert.partialDeepStrictEqual(certificate.reload, [{ kind: 'signal', process: 'nginx', signal: 'SIGHUP' }])
})

test('a template that prints the pair and writes side files becomes one set as well', () => {
  const migration = migrate(
    'vault-agent',
    agent(`template {
  destination = "/tls/all.pem"
  contents = <<EOT
{{- with pkiCert "pki/issue/web" "common_name=web.example.com" -}}
{{ .Key }}{{ .Cert }}{{ .CA }}
{{ .Key | writeToFile "/tls/web.key" "" "1000" "0600" }}
{{ .Cert | writeToFile "/tls/web.crt" "" "1000" "0644" }}
{{ .CA | writeToFile "/tls/web.crt" "" "1000" "0644" "append" }}
{{- end -}}
EOT
}`),
  )
  assert.deepEqual(lost(migration), [])
  assert.partialDeepStrictEqual(loaded(migration).certificates[0]?.outputs, [
    { kind: 'combined', directory: '/tls', file: 'all.pem' },
    { kind: 'pem', directory: '/tls', gid: 1000, files: { certificate: 'web.crt', key: 'web.key' } },
  ])
})

test('two certificates for one directory are put apart, and that is told', () => {
  const call = (name: string) =>
    `template {\n contents = "{{ with pkiCert \\"pki/issue/web\\" \\"common_name=${name}.test\\" }}{{ .Key }}{{ .Cert }}{{ end }}"\n destination = "/tls/${name}.pem"\n}\n`
  const migration = migrate(
    'consul-template',
    `vault { address = "https://v:8200" vault_agent_token_file = "/run/t" }\n${call('a')}${call('b')}`,
  )
  assert.deepEqual(
    migration.losses.map(({ what }) => what),
    ['/tls of a', '/tls of b'],
  )
  assert.partialDeepStrictEqual(
    loaded(migration).certificates.map(({ outputs }) => outputs),
    [[{ directory: '/tls/a', file: 'a.pem' }], [{ directory: '/tls/b', file: 'b.pem' }]],
  )
})

test('of two templates that write one file the first is kept, and a set that moves is told once', () => {
  const one = (path: string) =>
    `template { destination = "${path}" perms = "0600" error_on_missing_key = true contents = "{{ with secret \\"kv/a\\" }}{{ .Data.x }}{{ end }}" }\n`
  const migration = migrate('vault-agent', agent(['/s/a', '/s/b', '/s/a', '/s/more/c'].map(one).join('')))
  assert.deepEqual(
    migration.losses.map(({ what }) => what),
    ['/s of s', 'template of /s/a'],
  )
  assert.deepEqual(
    loaded(migration).secrets.map(({ outputs }) => outputs.length),
    [2, 1],
  )
})

test('the other templates of a directory become one secret, whose values are read once', () => {
  const migration = migrate(
    'vault-agent',
    agent(`${template('{{ with secret "secret/data/team/app?version=3" }}{{ .Data.data.user }}:{{ .Data.data.password }}{{ end }}{{ with secret "database/creds/app" }}{{ .Data.username }}{{ end }}', 'command = "sh -c \'x | y\'"')}
template {
  destination = "/secrets/b.conf"
  source = "/etc/b.ctmpl"
  perms = "0640"
}
template_config { static_secret_render_interval = "10m" }`),
    { '/etc/b.ctmpl': '{{ with secret "secret/data/team/app?version=3" }}{{ .Data.data.user }}{{ end }}\n' },
  )
  assert.deepEqual(lost(migration), [])
  const [secret, ...more] = loaded(migration).secrets
  assert.deepEqual(more, [])
  assert.partialDeepStrictEqual(secret?.values, {
    app: { kind: 'vault-kv', mount: 'secret', path: 'team/app', version: 3, poll: 600_000 },
    app_2: { kind: 'vault-read', path: 'database/creds/app' },
  })
  assert.partialDeepStrictEqual(secret?.outputs, [
    {
      kind: 'template',
      directory: '/secrets',
      file: 'app.conf',
      template: '{{ app.user }}:{{ app.password }}{{ app_2.username }}\n',
    },
    { kind: 'template', directory: '/secrets', file: 'b.conf', mode: 0o640, template: '{{ app.user }}\n' },
  ])
  assert.partialDeepStrictEqual(secret?.reload, [{ kind: 'exec', command: ['/bin/sh', '-c', "sh -c 'x | y'"] }])
})

test('a template that cannot be translated stands whole in a comment, with line and reason', () => {
  const migration = migrate('vault-agent', agent(template('a\n{{ key "app/port" }}\nb')))
  const loss = migration.losses.find(({ what }) => what === 'template of /secrets/app.conf')
  assert.ok(loss)
  assert.match(loss.why, /^line 2 of it: \{\{ key "app\/port" \}\}: key: reads Consul/)
  assert.match(written(migration), /\n# {5}\| a\n# {5}\| \{\{ key "app\/port" \}\}\n# {5}\| b\n/)
  assert.equal(migration.config.secrets, undefined)
})

for (const [text, reason] of [
  [
    '{{ with secret "secret/data/app?version=1" }}{{ .Data.metadata.version }}{{ end }}',
    /of one version.*\.Data\.data/,
  ],
  ['{{ with secret "secret/data/app?version=1" }}{{ .Data | toJSON }}{{ end }}', /of one version/],
  [
    '{{ with secret "secret/data/app?version=1" }}{{ range $k, $v := .Data }}{{ $k }}{{ end }}{{ end }}',
    /of one version/,
  ],
  ['{{ with secret "secret/data/app?list=true" }}{{ .Data.data.x }}{{ end }}', /\?list=true has no equivalent/],
  ['{{ with secret (printf "secret/data/app?version=%s" (env "V")) }}{{ .Data.data.x }}{{ end }}', /has no equivalent/],
] as const)
  test(`what follows a path is never dropped: ${text}`, () => {
    const { config, losses } = migrate('vault-agent', agent(template(text)))
    assert.match(losses.find(({ what }) => what.startsWith('template'))?.why ?? '', reason)
    assert.equal(config.secrets, undefined)
  })

test('what looks like a reference to the environment is none, and env is one', () => {
  const text = loaded(migrate('vault-agent', agent(template(`\${HOME} $\${x} {{ env "STAGE" }} ${PASSWORD}`))), {
    STAGE: 'prod',
  })
  assert.partialDeepStrictEqual(text.secrets[0]?.outputs, [{ template: '${HOME} $${x} prod {{ app.password }}\n' }])
})

test('env_template and exec become a command of certferry exec', () => {
  const migration = migrate(
    'vault-agent',
    agent(`env_template "DB_USER" { contents = "{{ with secret \\"database/creds/app\\" }}{{ .Data.username }}{{ end }}" error_on_missing_key = true }
env_template "API_KEY" { contents = "{{ with secret \\"secret/data/api\\" }}{{ .Data.data.key }}{{ end }}" }
env_template "DSN" { contents = "pg://{{ with secret \\"database/creds/app\\" }}{{ .Data.username }}{{ end }}" }
exec { command = ["/bin/app", "a b"] restart_on_secret_changes = "always" restart_stop_signal = "SIGINT" }`),
  )
  assert.deepEqual(lost(migration), ['6 env_template "DSN"'])
  const { exec, secrets } = loaded(migration)
  assert.partialDeepStrictEqual(exec, {
    env: { DB_USER: 'env.app.username', API_KEY: 'env.api.key' },
    onChange: 'restart',
    stopSignal: 'SIGINT',
  })
  assert.deepEqual(Object.keys(secrets[0]?.values ?? {}), ['app', 'api'])
  assert.equal(migration.command, "certferry exec -c FILE -- /bin/app 'a b'")
})

test('white space around the value of a variable, which is not kept, is told', () => {
  const text = written(
    migrate(
      'vault-agent',
      agent(`env_template "USER" {
  contents = <<-EOT
    {{ with secret "kv/app" }}{{ .Data.user }}{{ end }}
    EOT
}
env_template "PASSWORD" { contents = "{{ with secret \\"kv/app\\" }}{{ .Data.password }}{{ end }}" }
exec { command = ["/bin/app"] }`),
    ),
  )
  assert.match(text, /# Vault Agent kept the white space around it;.*\n +USER: env\.app\.user\n +PASSWORD: /)
})

test('what has no equivalent in Vault Agent is listed, in the order of the file, and what needs no setting apart', () => {
  const migration = migrate(
    'vault-agent',
    agent(`${template(PASSWORD, 'backup = true')}
cache { }
listener "tcp" { address = "127.0.0.1:8100" }
api_proxy { use_auto_auth_token = true }
telemetry { }
pid_file = "/run/x"
log_file = "/var/log/x"
nonsense = 1
template_config { exit_on_retry_failure = true max_connections_per_host = 5 }`),
  )
  assert.deepEqual(
    migration.losses.map(({ what }) => what),
    [
      'cache',
      'listener',
      'api_proxy',
      'telemetry',
      'pid_file',
      'log_file',
      'nonsense',
      'template_config.exit_on_retry_failure',
    ],
  )
  assert.match(written(migration), /# What needs no setting:(?:.*\n)*?.*template\.backup: the set before is kept/)
  assert.equal(loaded(migration).secrets.length, 1)
})

test('consul-template: connection, delimiters, command and signals', () => {
  const migration = migrate(
    'consul-template',
    `vault { address = "https://v:8200" token = "hvs.secret" renew_token = true ssl { enabled = true ca_cert = "/ca.pem" } }
default_delimiters { left = "[[" right = "]]" }
log_level = "warn"
wait { min = "5s" }
exec { command = ["/bin/app"] splay = "5s" reload_signal = "SIGUSR1" kill_signal = "SIGTERM" kill_timeout = "2s" env { pristine = true custom = ["A=hunter2"] } }
template { contents = "[[ with secret \\"kv/app\\" ]][[ .Data.user ]] {{x}}[[ end ]]" destination = "/secrets/a" perms = 0600 command = "nginx -s reload" command_timeout = "9s" }
consul { address = "127.0.0.1:8500" }
syslog { enabled = true }
deduplicate { enabled = true }`,
  )
  const text = written(migration)
  assert.doesNotMatch(text, /hvs\.secret|hunter2/)
  assert.deepEqual(migration.losses.map(({ what }) => what).sort(), [
    'consul',
    'deduplicate',
    'exec.env.custom',
    'exec.env.pristine',
    'syslog',
  ])
  const config = loaded(migration, { VAULT_TOKEN: 'x' })
  assert.partialDeepStrictEqual(config.exec, {
    onChange: 'signal',
    signal: 'SIGUSR1',
    stopSignal: 'SIGTERM',
    stopTimeout: 2000,
    splay: 5000,
  })
  assert.equal(config.log.level, 'warn')
  assert.partialDeepStrictEqual(config.secrets[0], {
    values: { app: { kind: 'vault-read', path: 'kv/app' } },
    outputs: [{ template: '{{ app.user }} {{ "{" }}{x}}' }],
    reload: [{ command: ['nginx', '-s', 'reload'], timeout: 9000 }],
  })
})

test('what is turned off is no loss, and an empty command is none', () => {
  const off = 'syslog { enabled = false }\ndeduplicate { enabled = false }\nexec { command = "" timeout = "0" }'
  const migration = migrate(
    'consul-template',
    `vault { address = "https://v:8200" vault_agent_token_file = "/t" }\n${off}\n${template(PASSWORD)}`,
  )
  assert.deepEqual(lost(migration), [])
  assert.equal(migration.command, 'certferry run -c FILE')
  assert.equal(migration.config.exec, undefined)
})

test('a level of the log that nobody knows is told', () => {
  const migration = migrate('vault-agent', agent(`${template(PASSWORD)}\nlog_level = "chatty"`))
  assert.match(migration.losses.map(({ what, why }) => `${what}: ${why}`).join(), /^log_level: "chatty" is no level/)
  assert.equal(migration.config.log, undefined)
})

test('spiffe-helper: the SVID, the files and who is told', () => {
  const migration = migrate(
    'spiffe-helper',
    `agent_address = "/run/agent.sock"
hint = "public"
include_federated_domains = true
cmd = "/usr/sbin/nginx"
cmd_args = "-g 'daemon off;'"
cert_dir = "/certs"
renew_signal = "SIGHUP"
svid_file_name = "svid.pem"
svid_key_file_name = "svid.key"
svid_bundle_file_name = "bundle.pem"
key_file_mode = 0600
cert_file_mode = 0644
jwt_svids = [{ jwt_audience = "a", jwt_svid_file_name = "jwt.token" }]
health_checks { listener_enabled = true bind_port = "8081" liveness_path = "/live" }`,
  )
  assert.deepEqual(
    migration.losses.map(({ what }) => what),
    ['cmd', 'jwt_svids'],
  )
  const { certificates, admin } = load(written(migration))
  assert.partialDeepStrictEqual(certificates[0], {
    outputs: [
      {
        kind: 'pem',
        directory: '/certs',
        mode: 0o600,
        certificateMode: 0o644,
        files: { certificate: 'svid.pem', key: 'svid.key', ca: 'bundle.pem' },
      },
    ],
    source: { kind: 'spiffe', socket: { path: '/run/agent.sock' }, hint: 'public', federated: true },
    reload: [{ kind: 'signal', process: 'nginx', signal: 'SIGHUP' }],
  })
  assert.equal(admin.listen, '0.0.0.0:8081')
})

test('spiffe-helper: without an address the one of the environment', () => {
  const text = written(migrate('spiffe-helper', 'cert_dir = "/certs"'))
  const { certificates } = load(text, { SPIFFE_ENDPOINT_SOCKET: 'unix:///run/spire.sock' })
  assert.partialDeepStrictEqual(certificates[0], { source: { kind: 'spiffe', socket: { path: '/run/spire.sock' } } })
})
