import { fromVaultAgent } from './connection.ts'
import { childFrom, envFrom } from './environment.ts'
import {
  type Context,
  createDraft,
  given,
  type Migration,
  type Notes,
  type PlainMap,
  type Surroundings,
  settleRest,
} from './migration.ts'
import { type Settings, settingsFrom } from './settings.ts'
import { fromTemplates } from './templates.ts'

/** A config of Vault Agent: https://developer.hashicorp.com/vault/docs/agent-and-proxy/agent. Throws USAGE where it cannot be read. */
export function migrateVaultAgent(text: string, file: string, surroundings: Surroundings): Migration {
  const root = settingsFrom(text, file)
  const draft = createDraft()
  const context: Context = { draft, surroundings, tool: 'Vault Agent' }
  const vault = fromVaultAgent(root, context)
  const { poll } = templateConfig(root, context)
  const delimiters = { left: '{{', right: '}}' }
  const { certificates, secrets } = fromTemplates(root.blocks('template'), { delimiters, poll }, context)
  const env = envFrom(root.blocks('env_template'), { delimiters, poll }, context)
  const child = childFrom(root.block('exec'), env, context)
  const isOnce = root.flag('exit_after_auth') === true
  const log = logOf(root, context)
  settleRest(root, '', { lost: LOST, covered: COVERED }, context)
  const config = given({
    ...(Object.keys(vault).length > 0 && { vault }),
    ...(log && { log }),
    ...(certificates.length > 0 && { certificates }),
    ...(secrets.length + (env ? 1 : 0) > 0 && { secrets: [...secrets, ...(env ? [env.secret] : [])] }),
    ...(child && { exec: child.exec }),
  })
  if (!certificates.length && !secrets.length && !env)
    draft.lose({
      what: 'the config',
      line: 1,
      why: 'asks for nothing that certferry delivers: a certificate or a secret',
    })
  return draft.finish(
    config,
    isOnce ? 'certferry once -c FILE' : child ? `certferry exec -c FILE -- ${child.command}` : 'certferry run -c FILE',
  )
}

/** Vault Agent reads again every five minutes what has no lease, as certferry does. */
function templateConfig(root: Settings, context: Context): { poll: string | undefined } {
  const block = root.block('template_config')
  if (!block) return { poll: undefined }
  const poll = block.duration('static_secret_render_interval')
  if (block.flag('exit_on_retry_failure'))
    context.draft.lose({
      what: 'template_config.exit_on_retry_failure',
      line: block.lineOf('exit_on_retry_failure'),
      why: 'certferry keeps what is good, tries on, and says so in /readyz and its metrics; for a job that must fail, certferry once --timeout 2m',
    })
  settleRest(
    block,
    'template_config',
    {
      covered: {
        max_connections_per_host: 'vault.concurrency has a default that fits',
        lease_renewal_threshold: 'leases are renewed at two thirds of their life',
      },
    },
    context,
  )
  return { poll }
}

const LEVELS: Readonly<Record<string, string>> = {
  trace: 'debug',
  debug: 'debug',
  info: 'info',
  notice: 'info',
  warn: 'warn',
  warning: 'warn',
  err: 'error',
  error: 'error',
}

export function logOf(root: Settings, { draft, tool }: Context): PlainMap | undefined {
  const named = root.text('log_level')?.toLowerCase() || undefined
  const level = named === undefined ? undefined : LEVELS[named]
  if (named !== undefined && level === undefined)
    draft.lose({
      what: 'log_level',
      line: root.lineOf('log_level'),
      why: `"${named}" is no level of ${tool} that is known here`,
    })
  const format = root.text('log_format')
  const log = given({ level, ...(format !== undefined && { format: format === 'json' ? 'json' : 'pretty' }) })
  return Object.keys(log).length > 0 ? log : undefined
}

const STDOUT = 'the log goes to standard output; whoever runs certferry keeps and rotates it'

const LOST: Notes = {
  cache: 'certferry is no caching proxy; keep Vault Agent, or Vault Proxy, for the programs that ask Vault themselves',
  api_proxy: 'certferry is no proxy; keep Vault Proxy for the programs that ask Vault themselves',
  listener: 'certferry serves no API of Vault; keep Vault Proxy. Health and metrics are served at admin.listen',
  telemetry: 'metrics for Prometheus are at /metrics of admin.listen; there is no push',
  pid_file: 'there is no pid file; certferry rotate and status go over the control socket, admin.socket',
  log_file: STDOUT,
  log_rotate_bytes: STDOUT,
  log_rotate_duration: STDOUT,
  log_rotate_max_files: STDOUT,
  exit_after_auth: 'is what certferry once does, after it has delivered all',
}

const COVERED: Notes = {
  disable_idle_connections: 'connections are kept only while they are used',
  disable_keep_alives: 'connections are kept only while they are used',
}
