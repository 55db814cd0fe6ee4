import { Argument, Command, InvalidArgumentError, Option } from 'commander'
import type { Io } from './commands/io.ts'
import { parseDuration } from './core/units.ts'
import { version } from './version.ts'

const DEFAULT_CONFIG = '/etc/certferry/config.yaml'
const START_TLS = ['postgres', 'nats', 'ldap']
const MIGRATED = ['vault-agent', 'consul-template', 'spiffe-helper']

/** Sets the exit code of a command that ends with more than done or failed. */
export type Exit = (code: number) => void

/** The verbs, their options and their help. Each command is loaded when it is called. */
export function createProgram(io: Io, exit: Exit): Command {
  const root = new Command('certferry')
    .enablePositionalOptions()
    .description(
      'Vault-backed certificate and secrets sidecar: fetches, checks, writes atomically, reloads, and proves over TLS that the new certificate is served.',
    )
    .version(version, '-V, --version')
    .exitOverride()
    .showSuggestionAfterError()
    .showHelpAfterError('(see certferry --help)')
    .helpCommand(false)
    .addHelpText(
      'after',
      `
Examples:
  certferry demo                          see it rotate, without Vault and without root
  certferry validate -c certferry.yaml    every config error at once, with its place
  certferry doctor -c certferry.yaml      what would fail, before it fails
  certferry run -c certferry.yaml         the sidecar
  certferry status -c certferry.yaml      what the running sidecar knows
  certferry check example.com:443         expiry, chain and names of an endpoint

Exit codes: 0 done · 64 usage · 69 no certificate, or nobody there · 70 defect · 78 config`,
    )

  root
    .command('run')
    .description('run the sidecar until SIGTERM; SIGHUP loads the config again and puts every backoff aside')
    .addOption(configOption())
    .addHelpText('after', '\nExample:\n  certferry run -c /etc/certferry/config.yaml')
    .action(async ({ config }) => (await import('./commands/run.ts')).run(config, io))

  root
    .command('once')
    .description('obtain what is missing or due, deliver it, and exit: for an init container or cron')
    .addOption(configOption())
    .addOption(durationOption('--timeout <duration>', 'give up after this long', '2m'))
    .option('--dry-run', 'obtain for a trial, from the staging directory of an ACME server; write nothing, tell nobody')
    .addHelpText(
      'after',
      '\nExamples:\n  certferry once -c certferry.yaml --timeout 2m\n  certferry once -c certferry.yaml --dry-run',
    )
    .action(async ({ config, timeout, dryRun }) => {
      if (dryRun === true) exit(await (await import('./commands/rehearse.ts')).rehearse(config, timeout, io))
      else await (await import('./commands/once.ts')).once(config, timeout, io)
    })

  root
    .command('validate')
    .description('check a config file: all errors at once, with file:line:column and what to write instead')
    .addOption(configOption())
    .option('--print-schema', 'print the JSON Schema of the config, for editors')
    .addHelpText(
      'after',
      '\nExamples:\n  certferry validate -c certferry.yaml\n  certferry validate --print-schema > certferry.schema.json',
    )
    .action(async ({ config, printSchema }) => {
      const commands = await import('./commands/validate.ts')
      return printSchema ? commands.printSchema(io) : commands.validate(config, io)
    })

  root
    .command('plan')
    .description('say what would be renewed, when, why and who would be told; touches nothing, prints no secret')
    .addOption(configOption())
    .option('--json', 'for machines')
    .addHelpText('after', '\nExample:\n  certferry plan -c certferry.yaml')
    .action(async ({ config, json }) => (await import('./commands/plan.ts')).plan(config, { json: json === true }, io))

  root
    .command('doctor')
    .description('look for what would fail: Vault, login, role, volume, target, probe; each with its fix')
    .addOption(configOption())
    .addHelpText('after', '\nExample:\n  certferry doctor -c certferry.yaml')
    .action(async ({ config }) => {
      exit(await (await import('./commands/doctor.ts')).doctor(config, io))
    })

  root
    .command('status')
    .description('ask the running sidecar: phase, serial, expiry, next renewal, served = disk?')
    .addOption(configOption())
    .addOption(socketOption())
    .option('--json', 'the whole status as JSON')
    .option('--watch', 'again every second')
    .addHelpText(
      'after',
      '\nExamples:\n  certferry status -c certferry.yaml\n  certferry status --socket /run/certferry/control.sock --watch',
    )
    .action(async (options) => (await import('./commands/status.ts')).status(options, io))

  root
    .command('rotate')
    .argument('[names...]', 'names of certificates and secrets')
    .description('rotate now, through the control socket of the running sidecar; outside the issue budget')
    .addOption(configOption())
    .addOption(socketOption())
    .option('--all', 'every certificate and secret')
    .option(
      '--reason <text>',
      'for the log and the audit log; "compromise" forbids going back to the old certificate',
      'asked for by hand',
    )
    .option('--wait', 'until the new certificate is proven to be served')
    .addOption(durationOption('--timeout <duration>', 'how long to wait', '2m'))
    .addHelpText(
      'after',
      '\nExamples:\n  certferry rotate web -c certferry.yaml --wait\n  certferry rotate --all --reason compromise --wait',
    )
    .action(async (names, options) => (await import('./commands/rotate.ts')).rotate(names, options, io))

  root
    .command('wait')
    .argument('[names...]', 'names of certificates; all without')
    .description(
      'return when the certificates are ready, that is, when valid sets are on disk: for startup probes and scripts',
    )
    .addOption(configOption())
    .addOption(socketOption())
    .addOption(durationOption('--timeout <duration>', 'give up after this long', '2m'))
    .addHelpText('after', '\nExample:\n  certferry wait -c certferry.yaml web --timeout 30s')
    .action(async (names, options) => (await import('./commands/wait.ts')).wait(names, options, io))

  root
    .command('check')
    .argument('<targets...>', 'HOST[:PORT] or FILE')
    .description(
      'expiry, chain and names of remote endpoints and local files; exits 0 ok, 1 warning, 2 critical, 3 unknown, like a Nagios plugin',
    )
    .addOption(durationOption('--warn <duration>', 'warn when less is left', '30d'))
    .addOption(durationOption('--critical <duration>', 'critical when less is left', '7d'))
    .option('--server-name <name>', 'name to ask for (SNI) and to expect')
    .option('--ca-file <path>', 'PEM roots to trust, instead of those of the system')
    .addOption(new Option('--start-tls <protocol>', 'ask hosts for TLS in this protocol first').choices(START_TLS))
    .option('--json', 'for machines')
    .addHelpText(
      'after',
      '\nExamples:\n  certferry check example.com 10.0.0.5:8443 /tls/tls.crt\n  certferry check web.internal:443 --ca-file ca.pem --warn 10d --critical 2d\n  certferry check db.internal --start-tls postgres',
    )
    .action(async (targets, options) => {
      exit(await (await import('./commands/check.ts')).check(targets, options, io))
    })

  root
    .command('injector')
    .description(
      'run the admission webhook that adds the sidecar to Kubernetes pods, and keep its own certificate fresh; the config needs the section injector',
    )
    .addOption(configOption())
    .addHelpText('after', '\nExample:\n  certferry injector -c /etc/certferry/config.yaml')
    .action(async ({ config }) => (await import('./commands/injector.ts')).injector(config, io))

  root
    .command('inject')
    .description(
      'add the sidecar to Kubernetes manifests as the webhook would, for GitOps; prints them, changes no file',
    )
    .requiredOption(
      '-f, --filename <file>',
      'manifests, YAML or JSON; - is standard input; may be given again',
      collect,
    )
    .option('--image <image>', 'image of the sidecar', `certferry:${version}`)
    .option(
      '--default <annotation=value>',
      'what holds where a pod does not say otherwise, without certferry.io/; may be given again',
      collect,
      [],
    )
    .option('--no-native-sidecars', 'for clusters older than Kubernetes 1.29')
    .option('--vault-annotations', 'accept vault.hashicorp.com/agent-inject annotations, too', false)
    .addHelpText(
      'after',
      '\nExamples:\n  certferry inject -f deploy.yaml \\\n    --default vault-address=https://vault.vault.svc:8200 --default vault-role=web\n  kustomize build . | certferry inject -f - | kubectl apply -f -',
    )
    .action(async (options) => (await import('./commands/inject.ts')).inject(options, io))

  root
    .command('migrate')
    .addArgument(new Argument('<tool>', 'what the file is a config of').choices(MIGRATED))
    .argument('<file>', 'the config, HCL or JSON')
    .description(
      'write the config of certferry that does what a config of another tool does; lists what has no equivalent',
    )
    .option('-o, --output <file>', 'write there instead of standard output')
    .option('--force', 'replace the file that is there', false)
    .addHelpText(
      'after',
      '\nExamples:\n  certferry migrate vault-agent agent.hcl -o certferry.yaml\n  certferry migrate consul-template /etc/consul-template.hcl | less\n\nExit codes: 0 all has an equivalent · 1 something has none: it is listed',
    )
    .action(async (tool, file, options) => {
      exit(await (await import('./commands/migrate.ts')).migrate(tool, file, options, io))
    })

  root
    .command('reload-helper')
    .argument('[command...]', 'what the container runs, after --')
    .description(
      'in the container of the target, where the sidecar does not see its processes: become the command, and signal it on POST /reload over a Unix socket',
    )
    .requiredOption('--socket <path>', 'where to listen, in a volume that the sidecar mounts too')
    .option('--socket-mode <mode>', '0600, for its own user, or 0660, for its group as well', '0600')
    .option('--signal <name>', 'what the target takes as a request to reload', 'SIGHUP')
    .option('--pid-file <path>', 'signal the process that this file names')
    .option('--process <name>', 'signal the process of this name')
    .addOption(new Option('--parent <pid>').argParser(Number).hideHelp())
    .addHelpText(
      'after',
      "\nExamples:\n  certferry reload-helper --socket /run/certferry/app.sock -- nginx -g 'daemon off;'\n  certferry reload-helper --socket /run/certferry/app.sock --process nginx",
    )
    .action(async (command, options) => {
      exit(await (await import('./commands/reload-helper.ts')).reloadHelper(command, options, io))
    })

  root
    .command('exec')
    // What follows the command is its own, also without --.
    .passThroughOptions()
    .argument('<command...>', 'what to run, after --')
    .description(
      'run a command with secrets in its environment, as its supervisor: waits for them, forwards signals, keeps the exit code, and restarts or signals it when they change',
    )
    .addOption(configOption())
    .addOption(durationOption('--timeout <duration>', 'give up when not all is there after this long', '2m'))
    .addHelpText(
      'after',
      `
Variables such as DB_PASSWORD='vault:secret/data/app#password' are resolved, too.
The log is on standard error.

Example:
  certferry exec -c /etc/certferry/config.yaml -- java -jar app.jar`,
    )
    .action(async (command, options) => {
      const ended = await (await import('./commands/exec.ts')).exec(command, options, io)
      ;(await import('./supervisor/ending.ts')).endLike(ended, io.process)
    })

  const audit = root.command('audit').description('work with the audit log').exitOverride().helpCommand(false)
  audit
    .command('verify')
    .argument('<file>', 'the audit log')
    .description('follow the hash chain; says which line breaks it')
    .addHelpText('after', '\nExample:\n  certferry audit verify /var/log/certferry/audit.log')
    .action(async (file) => (await import('./commands/audit.ts')).verify(file, io))

  root
    .command('demo')
    .description(
      'rotate certificates of a minute under a live TLS server, with a client that hammers it: no Vault, no root',
    )
    .option('--seconds <n>', 'end after this many seconds with a summary; fails if a handshake failed', positive)
    .addOption(durationOption('--ttl <duration>', 'lifetime of the certificates', '1m').argParser(lifetime))
    .addOption(new Option('--serve <directory>').hideHelp())
    .addOption(new Option('--port <n>').argParser(positive).hideHelp())
    .addHelpText('after', '\nExamples:\n  certferry demo\n  certferry demo --seconds 20 --ttl 20s')
    .action(async (options) => (await import('./commands/demo.ts')).demo(options, io))

  for (const command of [root, ...root.commands, ...audit.commands])
    command.configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'certferry: ')) })
  return root
}

function configOption(): Option {
  return new Option('-c, --config <file>', 'config file').env('CERTFERRY_CONFIG').default(DEFAULT_CONFIG)
}

function socketOption(): Option {
  return new Option('--socket <path>', 'control socket, instead of the one in the config')
}

/** The help shows the default as a person would type it. */
function durationOption(flags: string, description: string, preset: string): Option {
  return new Option(flags, description).argParser(duration).default(parseDuration(preset), preset)
}

function duration(text: string): number {
  try {
    return parseDuration(text)
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error))
  }
}

/** Less could not be seen, and would be refused by check.minTtl. */
function lifetime(text: string): number {
  const ms = duration(text)
  if (ms < 15_000) throw new InvalidArgumentError('must be at least 15s')
  return ms
}

function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value]
}

function positive(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('must be a whole number above zero')
  return Number(text)
}
