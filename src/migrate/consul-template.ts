import { fromConsulTemplate } from './connection.ts'
import { commandLine } from './environment.ts'
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
import { logOf } from './vault-agent.ts'

/** A config of consul-template: https://github.com/hashicorp/consul-template/blob/main/docs/configuration.md. Throws USAGE where it cannot be read. */
export function migrateConsulTemplate(text: string, file: string, surroundings: Surroundings): Migration {
  const root = settingsFrom(text, file)
  const draft = createDraft()
  const context: Context = { draft, surroundings, tool: 'consul-template' }
  const vault = fromConsulTemplate(root, context)
  const delimiters = delimitersOf(root)
  const poll = root.block('vault')?.duration('default_lease_duration')
  const { certificates, secrets } = fromTemplates(root.blocks('template'), { delimiters, poll }, context)
  const child = childOf(root, context)
  const isOnce = root.flag('once') === true
  const log = logOf(root, context)
  for (const name of ['syslog', 'deduplicate']) {
    const block = root.block(name)
    if (block && block.flag('enabled') !== false) draft.lose({ what: name, line: block.line, why: LOST[name] ?? '' })
  }
  settleRest(root, '', { lost: LOST, covered: COVERED }, context)
  const config = given({
    ...(Object.keys(vault).length > 0 && { vault }),
    ...(log && { log }),
    ...(certificates.length > 0 && { certificates }),
    ...(secrets.length > 0 && { secrets }),
    ...(child && { exec: child.exec }),
  })
  if (!certificates.length && !secrets.length)
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

function delimitersOf(root: Settings) {
  const block = root.block('default_delimiters')
  return {
    left: block?.text('left') ?? root.text('default_left_delimiter') ?? '{{',
    right: block?.text('right') ?? root.text('default_right_delimiter') ?? '}}',
  }
}

/** `exec`: the command is signalled where it has a reload_signal, else it is restarted. */
function childOf(root: Settings, context: Context): { readonly exec: PlainMap; readonly command: string } | undefined {
  const { draft } = context
  const exec = root.block('exec')
  if (!exec) return undefined
  const command = exec.list('command') ?? []
  const signal = exec.text('reload_signal')
  const env = exec.block('env')
  const custom = env?.list('custom') ?? []
  if (custom.length > 0)
    draft.lose({
      what: 'exec.env.custom',
      line: env?.lineOf('custom') ?? exec.line,
      why: `${custom.map((pair) => pair.split('=')[0]).join(', ')}: give it to certferry in its own environment, which the command inherits`,
    })
  if (env?.flag('pristine')) draft.lose({ what: 'exec.env.pristine', line: env.lineOf('pristine'), why: INHERITED })
  if (env)
    settleRest(
      env,
      'exec.env',
      {
        lost: {
          allowlist: INHERITED,
          denylist: INHERITED,
          whitelist: INHERITED,
          blacklist: INHERITED,
        },
      },
      context,
    )
  const isOff = exec.flag('enabled') === false
  const map: PlainMap = given({
    onChange: signal === undefined || signal === '' ? 'restart' : 'signal',
    signal: signal || undefined,
    stopSignal: exec.text('kill_signal') ?? 'SIGINT',
    stopTimeout: exec.duration('kill_timeout'),
    splay: exec.duration('splay'),
  })
  draft.remark(map, 'onChange', 'When the command ends by itself, certferry ends as it did.')
  if (!/^(?:0(?:h|ms|m|s))?$/.test(exec.duration('timeout') ?? ''))
    draft.lose({
      what: 'exec.timeout',
      line: exec.lineOf('timeout'),
      why: 'the command runs until it ends; put a limit into it',
    })
  settleRest(exec, 'exec', {}, context)
  if (isOff || command.join('') === '') return undefined
  const [only = '', ...more] = command
  return {
    exec: map,
    command: more.length === 0 && /\s/.test(only) ? `/bin/sh -c ${commandLine([only])}` : commandLine(command),
  }
}

const INHERITED = 'the command inherits the environment of certferry, without the credentials of certferry itself'
const CONSUL = 'certferry does not read Consul; keep consul-template for the templates that do'

const LOST: Notes = {
  consul: CONSUL,
  nomad: 'certferry does not read Nomad; keep consul-template for the templates that do',
  deduplicate: 'there is none to share with: each certferry reads for itself, at most once per poll, with jitter',
  syslog: 'the log goes to standard output, in JSON if wanted; whoever runs certferry passes it on',
  log_file: 'the log goes to standard output; whoever runs certferry keeps and rotates it',
  pid_file: 'there is no pid file; certferry rotate and status go over the control socket, admin.socket',
  kill_signal: 'certferry ends at SIGTERM and SIGINT',
  reload_signal: 'certferry reads its config again at SIGHUP',
  dump_signal: 'certferry has no dump of its stack',
  telemetry: 'metrics for Prometheus are at /metrics of admin.listen; there is no push',
  once: 'is what certferry once does',
}

const COVERED: Notes = {
  wait: 'all values of a secret are read before it is rendered, and reloads that come within half a second are one',
  max_stale: 'is for Consul',
  block_query_wait: 'is for Consul',
  template_error_fatal: 'certferry tries on, and keeps what is good',
  err_on_failed_lookup: 'a value that is absent is always an error, which names it',
  parse_only: 'certferry validate checks a config',
}
