import { systemClock } from '../clock.ts'
import { type Config, loadConfig } from '../config/config.ts'
import { SecretOptions } from '../config/schema.ts'
import { digest, watchConfig } from '../config/watch.ts'
import { valuesOf } from '../core/snapshot.ts'
import { lookUp, textOf, type Values } from '../core/values.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import type { Emit, Observer } from '../observe/events.ts'
import { commandLine } from '../reloaders/command.ts'
import type { Argv } from '../reloaders/options.ts'
import { openService } from '../service.ts'
import type { Sidecar } from '../sidecar.ts'
import type { Ended, Environment } from '../supervisor/child.ts'
import { childEnvironment } from '../supervisor/environment.ts'
import { standBeneathInit } from '../supervisor/init.ts'
import { controllingTerminal } from '../supervisor/kin.ts'
import { ExecOptions } from '../supervisor/options.ts'
import { referencesIn } from '../supervisor/references.ts'
import { type Referred, referredIn } from '../supervisor/referred.ts'
import { forwardSignals } from '../supervisor/signals.ts'
import { createSupervisor, type Supervisor } from '../supervisor/supervisor.ts'
import { untilItMayBeTold } from '../supervisor/waiting.ts'
import type { Io } from './io.ts'
import { isSettled, whyStopped } from './settled.ts'

/** Name of the secret that the references in the environment make up. */
const REFERENCES = 'exec-environment'
/** Changes that follow one another this closely are told as one, ms. */
const QUIET_MS = 1_000

export interface ExecArguments {
  readonly config: string
  /** How long secrets and certificates are waited for before the command starts, ms. */
  readonly timeout: number
}

/**
 * Runs the sidecar, and the command with secrets in its environment as its child. Resolves with how the command ended, once nothing of it is
 * left. Throws TIMED_OUT when not all is there in time; then the command was not started.
 */
export async function exec(
  command: readonly string[],
  { config: file, timeout }: ExecArguments,
  io: Io,
): Promise<Ended> {
  const [program = '', ...args] = command
  const argv: Argv = [program, ...args]
  const again = [...io.self, 'exec', '-c', file, '--timeout', `${timeout}ms`, '--', ...command]
  const warning = await standBeneathInit(again, io.process)
  const terminal = controllingTerminal()
  const known = digest(file)
  const load = createLoader(io)
  const { config, referred } = load(file)
  const options = config.exec ?? ExecOptions.parse({})
  const changes = createChanges()
  const settling = createSettling(config)
  await using service = await openService(config, {
    clock: systemClock,
    env: io.env,
    // Standard output is the command's.
    destination: io.stderr,
    load: (path) => load(path).config,
    changed: settling.changed,
    also: [changes.observe],
  })
  const { sidecar, emit } = service
  await Promise.race([settling.over(sidecar, timeout, io), service.failed])

  const environment = () => childEnvironment(io.env, additionsFrom(sidecar, options, referred), config.vaultVariables)
  const env = environment()
  const warn = (message: string) => emit('exec.warning', { message })
  if (warning !== undefined) warn(warning)
  // Also while a stop takes its time.
  using forwarding = new DisposableStack()
  await using supervisor = createSupervisor(
    { argv, stopSignal: options.stopSignal, stopTimeoutMs: options.stopTimeout },
    { clock: systemClock, terminal, warn },
  )
  // A stop that came while the last secret did.
  io.signal.throwIfAborted()
  forwarding.use(forwardSignals(io.releaseSignals(), supervisor, terminal))
  // Signals no longer abort it, but a defect of certferry does: the command must not outlive its supervisor.
  io.signal.addEventListener('abort', () => void supervisor.stop(), { once: true })
  changes.take()
  await supervisor.start(env)
  emit('exec.started', { command: commandLine(argv) })
  const over = new AbortController()
  const watching = watchConfig(file, known, () => void service.refresh(), systemClock, over.signal)
  const telling = tellChanges(changes, { supervisor, options, environment, emit }, over.signal)
  try {
    const ended = await Promise.race([supervisor.ended, service.failed])
    emit('exec.ended', { exitCode: ended.code, why: ended.why })
    return ended
  } finally {
    over.abort()
    await Promise.allSettled([watching, telling])
  }
}

/** The config, with a secret besides of what the environment refers to. */
function createLoader({ env }: Pick<Io, 'env'>): (file: string) => { config: Config; referred: Referred } {
  const variables = referencesIn(env)
  return (file) => {
    const config = loadConfig(file, env)
    const referred = referredIn(variables, { transit: config.exec?.transit })
    if (variables.size === 0) return { config, referred }
    if ([...config.certificates, ...config.secrets].some(({ name }) => name === REFERENCES))
      throw new SidecarError(
        'CONFIG_INVALID',
        `"${REFERENCES}" is the name of what the environment refers to; call it otherwise`,
      )
    const secret = SecretOptions.parse({ name: REFERENCES, values: referred.values })
    const identity = JSON.stringify(referred.values)
    return { config: { ...config, secrets: [...config.secrets, { ...secret, identity }] }, referred }
  }
}

/** The variables that secrets give. Throws FIELD_MISSING. */
function additionsFrom({ secrets }: Sidecar, { env }: ExecOptions, referred: Referred): Environment {
  const bySecret: Record<string, Values> = Object.fromEntries(
    secrets.flatMap(({ cert, report }) => {
      const serving = report?.state.serving
      return serving ? [[cert.name, valuesOf(serving)]] : []
    }),
  )
  const named = Object.entries(env).map(([variable, path]) => [variable, textOf(lookUp(bySecret, path))])
  const own = bySecret[REFERENCES]
  return { ...(own && referred.resolve(own)), ...Object.fromEntries(named) }
}

/** When all secrets and certificates of the config are in place. */
function createSettling(config: Config) {
  const settled = new Set<string>()
  const all = Promise.withResolvers<void>()
  const isAll = () => [...config.certificates, ...config.secrets].every(({ name }) => settled.has(name))
  return {
    changed: (loop: Parameters<typeof isSettled>[0]) => {
      if (!isSettled(loop)) return
      settled.add(loop.cert.name)
      if (isAll()) all.resolve()
    },
    over: async (sidecar: Sidecar, timeoutMs: number, io: Io) => {
      if (isAll()) return
      const signal = AbortSignal.any([io.signal, AbortSignal.timeout(timeoutMs)])
      const stopped = Promise.withResolvers<never>()
      const stop = () => stopped.reject(whyStopped(io, timeoutMs, sidecar, settled))
      signal.addEventListener('abort', stop, { once: true })
      await Promise.race([all.promise, stopped.promise]).finally(() => signal.removeEventListener('abort', stop))
    },
  }
}

/** What has changed since it was last taken. */
function createChanges() {
  const names = new Set<string>()
  let arrived = Promise.withResolvers<void>()
  const observe: Observer = (name, event) => {
    if (name === 'secret.delivered' && 'secret' in event) names.add(event.secret)
    else if (name === 'rotation.finished' && 'certificate' in event) names.add(event.certificate)
    else return
    arrived.resolve()
  }
  return {
    observe,
    arrival: () => arrived.promise,
    peek: () => [...names],
    take: (): string[] => {
      const taken = [...names]
      names.clear()
      arrived = Promise.withResolvers<void>()
      return taken
    },
  }
}

interface Telling {
  readonly supervisor: Supervisor
  readonly options: ExecOptions
  readonly environment: () => Environment
  readonly emit: Emit
}

/** Tells the command of changes, by the policy of the config, until the signal aborts. */
async function tellChanges(
  changes: ReturnType<typeof createChanges>,
  telling: Telling,
  signal: AbortSignal,
): Promise<void> {
  const { options, emit } = telling
  const stopped = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
  while (!signal.aborted) {
    await Promise.race([changes.arrival(), stopped])
    try {
      await untilItMay(changes, options, emit, signal)
    } catch {
      return
    }
    const changed = changes.take()
    if (changed.length > 0 && options.onChange !== 'nothing') await tellOnce(changed, telling)
  }
}

/** Throws when the signal aborts. */
async function untilItMay(
  changes: ReturnType<typeof createChanges>,
  { splay: splayMs = 0, window }: ExecOptions,
  emit: Emit,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted()
  await systemClock.sleep(QUIET_MS, signal)
  const given = window && { cron: window.cron, timezone: window.timezone ?? 'UTC', durationMs: window.duration }
  const onWait = (pause: number | undefined) => {
    if (pause !== undefined && pause > QUIET_MS)
      emit('exec.waits', { changed: changes.peek(), nextAt: systemClock.now() + pause })
  }
  await untilItMayBeTold({ splayMs, window: given }, { clock: systemClock, onWait }, signal)
}

async function tellOnce(
  changed: readonly string[],
  { supervisor, options, environment, emit }: Telling,
): Promise<void> {
  const { onChange } = options
  try {
    const env = environment()
    assertPassable(env)
    emit('exec.told', { how: onChange === 'signal' ? 'signal' : 'restart', changed })
    if (onChange === 'signal') supervisor.signal(options.signal)
    else await supervisor.restart(env)
  } catch (thrown) {
    // A field that is gone, or of no use: the command keeps what it has until there is one again.
    const { code, message } = toSidecarError(thrown)
    emit('exec.failed', { code, message })
  }
}

/** MAX_ARG_STRLEN of Linux: a variable with its name, `=` and the null byte at its end. */
const LONGEST_VARIABLE = 131_072

/** Known before the command that runs is stopped for it. */
function assertPassable(env: Environment): void {
  for (const [name, value] of Object.entries(env)) {
    if (value.includes('\0')) throw new SidecarError('VALUE_UNWRITABLE', `the value of ${name} holds a null byte`)
    if (Buffer.byteLength(`${name}=${value}`) >= LONGEST_VARIABLE)
      throw new SidecarError('VALUE_UNWRITABLE', `the value of ${name} is too long for a variable`)
  }
}
