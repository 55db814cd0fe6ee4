import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TOOLS } from '../../src/migrate/index.ts'
import { renderMigration } from '../../src/migrate/render.ts'
import { load } from '../config/support.ts'

type Files = Readonly<Record<string, string>>

/** Files that hold what the examples of the documentation of each tool hold, all at once, as people begin with them. */
function migrate(tool: string, text: string, files: Files = {}) {
  const translate = TOOLS[tool]
  assert.ok(translate, tool)
  const migration = translate(text, 'theirs.hcl', { directory: '/srv', read: (path) => files[path] })
  const written = renderMigration(migration, 'theirs.hcl')
  return { migration, written, lost: migration.losses.map(({ what }) => what) }
}

test('Vault Agent as its first page shows it: what it proxies is listed, the rest is delivered', () => {
  const { migration, written, lost } = migrate(
    'vault-agent',
    `pid_file = "./agent.pid"

vault {
  address = "https://vault.example.com:8200"
  retry { num_retries = 5 }
}

auto_auth {
  method "aws" {
    mount_path = "auth/aws-west"
    config = { type = "iam" role = "web" }
  }
  sink "file" { config = { path = "/run/agent/token" } }
  sink "file" {
    wrap_ttl = "5m"
    aad_env_var = "SINK_AAD"
    dh_type = "curve25519"
    dh_path = "/run/agent/reader.json"
    config = { path = "/run/agent/wrapped" }
  }
}

cache {
  // An empty one turns it on.
}

api_proxy { use_auto_auth_token = true }

listener "unix" {
  address = "/run/agent/socket"
  tls_disable = true
  agent_api { enable_quit = true }
}

listener "tcp" {
  address = "127.0.0.1:8100"
  tls_disable = true
}

template {
  source = "/etc/agent/tls.key.ctmpl"
  destination = "/tls/web.key"
}

template {
  source = "/etc/agent/tls.crt.ctmpl"
  destination = "/tls/web.crt"
}
`,
    {
      '/etc/agent/tls.key.ctmpl':
        '{{ with secret "pki/issue/web" "common_name=web.example.com" }}\n{{ .Data.private_key }}{{ end }}\n',
      '/etc/agent/tls.crt.ctmpl':
        '{{ with secret "pki/issue/web" "common_name=web.example.com" }}\n{{ .Data.certificate }}{{ end }}\n',
    },
  )
  assert.deepEqual(lost, [
    'pid_file',
    'auto_auth.sink /run/agent/wrapped',
    'cache',
    'api_proxy',
    'listener',
    'listener',
  ])
  assert.equal(migration.command, 'certferry run -c FILE')
  const { vault, certificates, secrets } = load(written)
  assert.partialDeepStrictEqual(vault, {
    address: 'https://vault.example.com:8200',
    auth: { kind: 'aws', mount: 'aws-west', role: 'web' },
    tokenSink: { file: '/run/agent/token', mode: 0o640 },
  })
  // Two calls of Vault Agent, which gave two certificates, are one.
  assert.equal(certificates.length + secrets.length, 1)
  assert.partialDeepStrictEqual(certificates[0]?.outputs, [
    { kind: 'pem', directory: '/tls', files: { certificate: 'web.crt', key: 'web.key' } },
  ])
})

test('Vault Agent as process supervisor: environment and command', () => {
  const { migration, written, lost } = migrate(
    'vault-agent',
    `auto_auth {
  method {
    type = "token_file"
    config { token_file_path = "/home/app/.vault-token" }
  }
}

template_config {
  static_secret_render_interval = "5m"
  exit_on_retry_failure         = true
  max_connections_per_host      = 20
}

vault { address = "https://vault.example.com:8200" }

env_template "PAYMENT_USER" {
  contents             = "{{ with secret \\"kv/data/payment\\" }}{{ .Data.data.user }}{{ end }}"
  error_on_missing_key = true
}
env_template "PAYMENT_PASSWORD" {
  contents             = "{{ with secret \\"kv/data/payment\\" }}{{ .Data.data.password }}{{ end }}"
  error_on_missing_key = true
}

exec {
  command                   = ["./payment", "--port", "8080"]
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM"
}
`,
  )
  assert.deepEqual(lost, ['template_config.exit_on_retry_failure'])
  assert.equal(migration.command, 'certferry exec -c FILE -- ./payment --port 8080')
  const { exec, secrets } = load(written)
  assert.partialDeepStrictEqual(exec, {
    env: { PAYMENT_USER: 'env.payment.user', PAYMENT_PASSWORD: 'env.payment.password' },
    onChange: 'restart',
    stopSignal: 'SIGTERM',
  })
  assert.partialDeepStrictEqual(secrets[0]?.values, {
    payment: { kind: 'vault-kv', mount: 'kv', path: 'payment', poll: 300_000 },
  })
})

test('consul-template with all of its blocks: what is of Consul stays with it', () => {
  const { migration, written, lost } = migrate(
    'consul-template',
    `consul {
  address = "127.0.0.1:8500"
  auth { enabled = true username = "joe" password = "hunter2" }
  retry { attempts = 12 backoff = "250ms" }
  ssl { enabled = true verify = false }
}
nomad { address = "https://127.0.0.1:4646" token = "hunter2" }
vault {
  address = "https://vault.example.com:8200"
  namespace = "team"
  token = "hvs.hunter2"
  unwrap_token = false
  renew_token = true
  default_lease_duration = "60s"
  lease_renewal_threshold = 0.90
  retry { enabled = true attempts = 5 }
  ssl { enabled = true verify = true ca_cert = "/etc/ssl/vault.pem" server_name = "vault" }
}
reload_signal = "SIGHUP"
kill_signal = "SIGINT"
max_stale = "10m"
block_query_wait = "60s"
log_level = "warn"
template_error_fatal = true
wait { min = "5s" max = "10s" }
pid_file = "/run/ct.pid"
syslog { enabled = true facility = "LOCAL5" }
log_file { path = "/var/log/ct.log" log_rotate_bytes = 1024000 }
deduplicate { enabled = true prefix = "ct/dedup/" }
exec {
  command = ["/usr/bin/app"]
  splay = "5s"
  env { pristine = false custom = ["MODE=prod"] denylist = ["CONSUL_*"] }
  kill_signal = "SIGINT"
  kill_timeout = "2s"
}
template {
  contents = "{{ key \\"app/port\\" }}"
  destination = "/etc/app/port"
}
template {
  source = "/etc/ct/db.ctmpl"
  destination = "/etc/app/secrets/db.conf"
  perms = 0600
  user = 1000
  group = 1000
  backup = true
  error_on_missing_key = true
  left_delimiter = "<<"
  right_delimiter = ">>"
  wait { min = "2s" max = "10s" }
  exec { command = ["/bin/reload", "app"] timeout = "30s" }
}
`,
    { '/etc/ct/db.ctmpl': 'user=<< with secret "database/creds/app" >><< .Data.username >><< end >>\n' },
  )
  assert.deepEqual(lost, [
    'consul',
    'nomad',
    'reload_signal',
    'kill_signal',
    'pid_file',
    'syslog',
    'log_file',
    'deduplicate',
    'exec.env.custom',
    'exec.env.denylist',
    'template of /etc/app/port',
  ])
  assert.doesNotMatch(written, /hunter2|MODE=prod/)
  assert.equal(migration.command, 'certferry exec -c FILE -- /usr/bin/app')
  const { vault, exec, secrets } = load(written, { VAULT_TOKEN: 'x' })
  assert.partialDeepStrictEqual(vault, { namespace: 'team', caFile: '/etc/ssl/vault.pem', serverName: 'vault' })
  assert.partialDeepStrictEqual(exec, { onChange: 'restart', stopSignal: 'SIGINT', stopTimeout: 2000, splay: 5000 })
  assert.partialDeepStrictEqual(secrets, [
    {
      values: { app: { kind: 'vault-read', path: 'database/creds/app', poll: 60_000 } },
      outputs: [{ directory: '/etc/app/secrets', file: 'db.conf', uid: 1000, template: 'user={{ app.username }}\n' }],
      reload: [{ kind: 'exec', command: ['/bin/reload', 'app'], timeout: 30_000 }],
    },
  ])
})
