import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TOOLS } from '../../src/migrate/index.ts'
import type { Migration } from '../../src/migrate/migration.ts'
import { renderMigration } from '../../src/migrate/render.ts'
import { load } from '../config/support.ts'

/** A config that holds `more` at `place`, and besides nothing that is not needed. */
type Place = (more: string) => string

const TEMPLATE = 'destination = "/secrets/a" contents = "{{ with secret \\"kv/a\\" }}{{ .Data.x }}{{ end }}"'
const ENV_TEMPLATE = 'contents = "{{ with secret \\"kv/a\\" }}{{ .Data.x }}{{ end }}"'
const METHOD = 'method "kubernetes" { config = { role = "a" } }'
const agentWith = (method: string, more = '') =>
  `vault { address = "https://v:8200" }\nauto_auth {\n${method}\n}\ntemplate { ${TEMPLATE} }\n${more}`
const login =
  (kind: string, settings: string): Place =>
  (more) =>
    agentWith(`method "${kind}" { config = { ${settings}\n${more} } }`)
const consulTemplateWith = (more: string, vault = 'vault_agent_token_file = "/t"') =>
  `vault { address = "https://v:8200"\n${vault} }\ntemplate { ${TEMPLATE} }\n${more}`

/** What the documentation of each tool names, with values that are not the default. */
const DOCUMENTED: readonly (readonly [tool: string, where: string, Place, settings: readonly string[]])[] = [
  [
    'vault-agent',
    'the top',
    (more) => agentWith(METHOD, more),
    [
      'api_proxy { use_auto_auth_token = true }',
      'cache { persist "kubernetes" { path = "/c" } }',
      'listener "tcp" { address = "127.0.0.1:8100" agent_api { enable_quit = true } }',
      'pid_file = "/run/agent.pid"',
      'exit_after_auth = true',
      'disable_idle_connections = ["auto-auth"]',
      'disable_keep_alives = ["templating"]',
      'template { destination = "/more/b" contents = "{{ with secret \\"kv/b\\" }}{{ .Data.x }}{{ end }}" }',
      'template_config { static_secret_render_interval = "1m" }',
      'exec { command = ["/bin/app"] }',
      'env_template "X" { contents = "{{ with secret \\"kv/a\\" }}{{ .Data.x }}{{ end }}" }',
      'telemetry { statsd_address = "127.0.0.1:8125" }',
      'log_level = "debug"',
      'log_format = "json"',
      'log_file = "/var/log/agent.log"',
      'log_rotate_duration = "1h"',
      'log_rotate_bytes = 1000',
      'log_rotate_max_files = 3',
    ],
  ],
  [
    'vault-agent',
    'vault',
    (more) =>
      `vault { address = "https://v:8200" client_cert = "/c" client_key = "/k"\n${more} }\nauto_auth { ${METHOD} }\ntemplate { ${TEMPLATE} }`,
    [
      'ca_cert = "/ca"',
      'ca_path = "/cas"',
      'tls_skip_verify = true',
      'tls_server_name = "vault"',
      'namespace = "team"',
      'retry { num_retries = 5 }',
    ],
  ],
  [
    'vault-agent',
    'auto_auth',
    (more) => agentWith(`${METHOD}\n${more}`),
    ['sink "file" { config = { path = "/t" } }', 'enable_reauth_on_new_credentials = true'],
  ],
  [
    'vault-agent',
    'auto_auth.method',
    (more) => agentWith(`method "kubernetes" { config = { role = "a" }\n${more} }`),
    [
      'mount_path = "auth/cluster"',
      'namespace = "team"',
      'wrap_ttl = "5m"',
      'min_backoff = "1s"',
      'max_backoff = "1m"',
      'exit_on_err = true',
    ],
  ],
  [
    'vault-agent',
    'auto_auth.sink',
    (more) => agentWith(`${METHOD}\nsink "file" { config = { path = "/t" }\n${more} }`),
    [
      'wrap_ttl = "5m"',
      'dh_type = "curve25519"',
      'dh_path = "/dh"',
      'derive_key = true',
      'aad = "x"',
      'aad_env_var = "X"',
    ],
  ],
  [
    'vault-agent',
    'auto_auth.sink.config',
    (more) => agentWith(`${METHOD}\nsink "file" { config = { path = "/t"\n${more} } }`),
    ['mode = 0600', 'mode = 0644', 'owner = 1000', 'group = 1000', 'owner = "app"', 'group = "app"'],
  ],
  ['vault-agent', 'kubernetes', login('kubernetes', 'role = "a"'), ['token_path = "/t"']],
  [
    'vault-agent',
    'approle',
    login('approle', 'role_id_file_path = "/r"\nsecret_id_file_path = "/s"'),
    [
      'remove_secret_id_file_after_reading = false',
      'secret_id_response_wrapping_path = "auth/approle/role/a/secret-id"',
    ],
  ],
  [
    'vault-agent',
    'jwt',
    login('jwt', 'role = "a"\npath = "/j"'),
    ['remove_jwt_after_reading = false', 'remove_jwt_follows_symlinks = true', 'jwt_read_period = "1m"'],
  ],
  [
    'vault-agent',
    'cert',
    login('cert', 'client_cert = "/c"\nclient_key = "/k"'),
    ['name = "web"', 'ca_cert = "/ca"', 'reload = true', 'reload_period = "1m"'],
  ],
  [
    'vault-agent',
    'ldap',
    login('ldap', 'username = "joe"\npassword_file_path = "/p"'),
    ['remove_password_after_reading = false', 'remove_password_follows_symlinks = true', 'password_read_period = "1m"'],
  ],
  [
    'vault-agent',
    'aws',
    login('aws', 'role = "a"'),
    [
      'type = "ec2"',
      'access_key = "AKIA"',
      'secret_key = "hunter2"',
      'session_token = "hunter2"',
      'region = "eu-north-1"',
      'header_value = "vault"',
      'nonce = "n"',
      'credential_poll_interval = "30s"',
    ],
  ],
  [
    'vault-agent',
    'gcp',
    login('gcp', 'role = "a"'),
    [
      'type = "iam"',
      'credentials = "/c.json"',
      'jwt_exp = 10',
      'project = "p"',
      'service_account = "a@p.iam.gserviceaccount.com"',
    ],
  ],
  [
    'vault-agent',
    'azure',
    login('azure', 'role = "a"\nresource = "https://v"'),
    [
      'object_id = "o"',
      'client_id = "11111111-2222-4333-8444-555555555555"',
      'scope = "s"',
      'authenticate_from_environment = true',
    ],
  ],
  [
    'vault-agent',
    'template_config',
    (more) => agentWith(METHOD, `template_config { ${more} }`),
    [
      'exit_on_retry_failure = true',
      'static_secret_render_interval = "1m"',
      'max_connections_per_host = 20',
      'lease_renewal_threshold = 0.8',
    ],
  ],
  [
    'vault-agent',
    'exec',
    (more) =>
      agentWith(METHOD, `env_template "X" { ${ENV_TEMPLATE} }\nexec { command = ["/bin/app", "serve"]\n${more} }`),
    [
      'restart_on_secret_changes = "never"',
      'restart_stop_signal = "SIGINT"',
      'child_process_stdout = "/o"',
      'child_process_stderr = "/e"',
    ],
  ],
  [
    'vault-agent',
    'env_template',
    (more) => agentWith(METHOD, `exec { command = ["/bin/app"] }\nenv_template "X" { ${ENV_TEMPLATE}\n${more} }`),
    ['error_on_missing_key = true'],
  ],
  ...(['vault-agent', 'consul-template'] as const).map(
    (tool) =>
      [
        tool,
        'template',
        (more: string) =>
          tool === 'vault-agent'
            ? agentWith(METHOD).replace(TEMPLATE, `${TEMPLATE}\n${more}`)
            : consulTemplateWith('').replace(TEMPLATE, `${TEMPLATE}\n${more}`),
        [
          'create_dest_dirs = false',
          'command = "nginx -s reload"',
          'exec { command = ["nginx", "-s", "reload"] timeout = "9s" }',
          'error_on_missing_key = true',
          'error_fatal = false',
          'perms = "0640"',
          'user = 1000',
          'group = 1000',
          'user = "app"',
          'group = "app"',
          'backup = true',
          'function_denylist = ["plugin"]',
          'sandbox_path = "/s"',
          'wait { min = "2s" max = "10s" }',
        ],
      ] as const,
  ),
  [
    'consul-template',
    'the top',
    consulTemplateWith,
    [
      'reload_signal = "SIGUSR1"',
      'kill_signal = "SIGTERM"',
      'dump_signal = "SIGQUIT"',
      'max_stale = "10m"',
      'block_query_wait = "60s"',
      'log_level = "debug"',
      'template_error_fatal = false',
      'err_on_failed_lookup = true',
      'parse_only = true',
      'wait { min = "5s" max = "10s" }',
      'pid_file = "/run/ct.pid"',
      'syslog { enabled = true facility = "LOCAL5" }',
      'log_file { path = "/var/log/ct.log" }',
      'consul { address = "127.0.0.1:8500" auth { enabled = true } }',
      'nomad { address = "https://127.0.0.1:4646" }',
      'telemetry { prometheus { port = 9110 } }',
      'template { destination = "/more/b" contents = "{{ with secret \\"kv/b\\" }}{{ .Data.x }}{{ end }}" }',
      'once = true',
      'deduplicate { enabled = true }',
      'exec { command = ["/bin/app"] }',
    ],
  ],
  [
    'consul-template',
    'default_delimiters',
    (more) =>
      `vault { address = "https://v:8200" vault_agent_token_file = "/t" }\ntemplate { destination = "/a/b" contents = "[[ with secret \\"kv/a\\" ]][[ .Data.x ]][[ end ]]" }\n${more}`,
    ['default_delimiters { left = "[[" right = "]]" }'],
  ],
  [
    'consul-template',
    'vault',
    (more) => consulTemplateWith('', more),
    [
      'namespace = "team"',
      'token = "hvs.hunter2"',
      'vault_agent_token_file = "/t"',
      'unwrap_token = true',
      'default_lease_duration = "60s"',
      'lease_renewal_threshold = 0.5',
      'renew_token = false',
      'retry { attempts = 5 }',
      'transport { max_idle_conns_per_host = 5 }',
      'client_user_agent = "x"',
      'k8s_auth_role_name = "a"',
    ],
  ],
  [
    'consul-template',
    'vault.ssl',
    (more) => consulTemplateWith('', `vault_agent_token_file = "/t"\nssl { cert = "/c" key = "/k"\n${more} }`),
    ['verify = false', 'ca_cert = "/ca"', 'ca_cert_bytes = "x"', 'ca_path = "/cas"', 'server_name = "vault"'],
  ],
  [
    'consul-template',
    'exec',
    (more) => consulTemplateWith(`exec { command = ["/bin/app"]\n${more} }`),
    [
      'timeout = "1m"',
      'splay = "5s"',
      'reload_signal = "SIGHUP"',
      'kill_signal = "SIGTERM"',
      'kill_timeout = "2s"',
      'env { pristine = true }',
      'env { custom = ["A=hunter2"] }',
      'env { allowlist = ["A_*"] }',
      'env { denylist = ["B_*"] }',
    ],
  ],
  [
    'spiffe-helper',
    'the top',
    (more) => `cmd = ""\nagent_address = "/a.sock"\ncert_dir = "/certs"\n${more}`,
    [
      'cmd_args = "-x"\npid_file_name = "/run/x.pid"\nrenew_signal = "SIGHUP"',
      'pid_file_name = "/run/x.pid"',
      'renew_signal = "SIGHUP"',
      'daemon_mode = false',
      'add_intermediates_to_bundle = true',
      'svid_file_name = "svid.pem"',
      'svid_key_file_name = "svid.key"',
      'svid_bundle_file_name = "bundle.pem"',
      'jwt_svids = [{ jwt_audience = "a" jwt_svid_file_name = "t" }]',
      'jwt_bundle_file_name = "bundle.json"',
      'include_federated_domains = true',
      'omit_expired = true',
      'hint = "h"',
      'cert_file_mode = 0640',
      'key_file_mode = 0640',
      'jwt_bundle_file_mode = 0600',
      'jwt_svid_file_mode = 0600',
      'health_checks { listener_enabled = true }',
    ],
  ],
]

const migrate = (tool: string, text: string): Migration => {
  const translate = TOOLS[tool]
  assert.ok(translate, tool)
  return translate(text, 'theirs.hcl', { directory: '/srv', read: () => undefined })
}
const told = ({ losses, covered }: Migration) => [...losses, ...covered].map(({ what, why }) => `${what}: ${why}`)
const written = (migration: Migration) => renderMigration(migration, 'theirs.hcl')

for (const [tool, where, place, settings] of DOCUMENTED)
  test(`${tool}: nothing that is documented of ${where} is passed over in silence`, () => {
    const plain = migrate(tool, place(''))
    for (const setting of settings) {
      const migration = migrate(tool, place(setting))
      const more = told(migration).filter((line) => !told(plain).includes(line))
      assert.ok(written(migration) !== written(plain), `${setting} makes no difference`)
      assert.ok(!more.join().includes('is no setting of'), `${setting}: ${more.join()}`)
      assert.doesNotMatch(written(migration), /hunter2/, setting)
      load(written(migration), { VAULT_TOKEN: 'x' })
    }
  })

test('what no documentation names is listed as unknown, wherever it stands', () => {
  for (const [tool, where, place] of DOCUMENTED) {
    const { losses } = migrate(tool, place('nobody_knows = "x"'))
    const loss = losses.find(({ what }) => what.split('.').at(-1) === 'nobody_knows')
    assert.match(loss?.why ?? '', /is no setting of/, `${tool}: ${where}`)
  }
})
