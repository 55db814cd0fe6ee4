import type { Clock } from './clock.ts'
import { type Config, loadConfig } from './config/config.ts'
import { ConfigError } from './config/problems.ts'
import { SidecarError, toSidecarError } from './errors.ts'
import { pemFilesOf } from './injector/options.ts'
import type { Admin } from './observe/admin.ts'
import { type Control, type ReloadReply, type RotateReply, type RotateRequest, wireError } from './observe/control.ts'
import type { Emit, Observer } from './observe/events.ts'
import { createObservers } from './observe/index.ts'
import type { LogDeps } from './observe/log.ts'
import type { Reloader } from './reloaders/reloader.ts'
import { openCluster, type RotateResult, type Sidecar, type SidecarDeps, startSidecar } from './sidecar.ts'
import { createSnapshots } from './snapshot.ts'
import { version } from './version.ts'

export interface ServiceDeps {
  readonly clock: Clock
  readonly env: Readonly<Record<string, string | undefined>>
  /** Where the log goes. */
  readonly destination: LogDeps['destination']
  /** How the config is read again; as `loadConfig` does unless given. */
  readonly load?: (file: string) => Config
  /** Called after each change of the state of a certificate or a secret. */
  readonly changed?: NonNullable<SidecarDeps['changed']>
  /** Told of all that happens, besides the log and the rest. */
  readonly also?: readonly Observer[]
}

/** The sidecar with everything that watches it and everything that may ask it. */
export interface Service extends AsyncDisposable {
  readonly admin: Admin
  readonly control: Control
  readonly sidecar: Sidecar
  readonly emit: Emit
  /** Loads the config file again; a broken one is told and changes nothing. Puts every backoff aside. */
  refresh(): Promise<void>
  /** Rejects when a certificate cannot be run at all. */
  readonly failed: Promise<never>
}

/**
 * Opens observers, loops and admin server, in that order; closes in reverse. Throws ADDRESS_IN_USE, CONFIG_INVALID and the like. The first
 * certificate goes before the loading of metrics and admin server, which would only make it wait.
 */
export async function openService(config: Config, deps: ServiceDeps): Promise<Service> {
  const { clock, env, destination, load = (file) => loadConfig(file, env) } = deps
  await using opened = new AsyncDisposableStack()
  const snapshots = createSnapshots(version, clock)
  const snapshot = () => snapshots.take(sidecar)
  const options = { version, log: config.log, audit: config.audit }
  const opening = untilFirstResult()
  const events = config.kubernetes.events
    ? opened.use(await openEvents(config, { clock, env, emit: (name, event) => emit(name, event) }))
    : undefined
  const also = [...(deps.also ?? []), snapshots.observe, opening.observe, ...(events ? [events.observe] : [])]
  const { emit, loadMetrics } = opened.use(createObservers(options, { now: clock.now, destination, snapshot, also }))
  emit('sidecar.started', {
    version,
    certificates: config.certificates.length,
    secrets: config.secrets.length,
    config: config.file,
  })
  let inForce = () => config
  const injector =
    config.injector && opened.use(await openWebhook(config, { clock, env, emit, inForce: () => inForce() }))
  const sidecar: Sidecar = opened.use(
    startSidecar(config, {
      clock,
      emit,
      env,
      endsUse: true,
      inProcess: injector?.inProcess,
      ...(deps.changed && { changed: deps.changed }),
    }),
  )
  inForce = () => sidecar.config
  const unready = () => injector?.unready()
  const control = createControl(sidecar, { emit, load, snapshot, unready })
  await Promise.race([opening.over(clock), sidecar.failed])
  const [metrics, { openAdmin }] = await Promise.all([loadMetrics(), import('./observe/admin.ts')])
  const admin = opened.use(await openAdmin(config.admin, { control, metrics, emit, now: clock.now }))
  // First of all, while health can still be asked: whoever is told by it sends nothing more here.
  if (injector) opened.defer(() => injector[Symbol.asyncDispose]())
  const held = opened.move()
  return {
    admin,
    control,
    sidecar,
    emit,
    failed: sidecar.failed,
    refresh: async () => {
      sidecar.retry()
      await Promise.all([
        admin.reloadTls(),
        injector?.look(),
        control.reloadConfig(AbortSignal.any([])).catch(() => {}),
      ])
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

/** Kubernetes Events, over a client of their own that outlives the loops. Throws CONFIG_INVALID outside a cluster. */
async function openEvents(config: Config, { clock, env, emit }: Pick<ServiceDeps, 'clock' | 'env'> & { emit: Emit }) {
  await using opened = new AsyncDisposableStack()
  const { createKubernetesEvents } = await import('./observe/kubernetes-events.ts')
  const { kubernetes } = opened.use(openCluster(config, env))
  const { observe } = opened.use(createKubernetesEvents(kubernetes(), { clock, podUid: env.POD_UID, emit }))
  const held = opened.move()
  return { observe, [Symbol.asyncDispose]: () => held.disposeAsync() }
}

interface WebhookDeps extends Pick<ServiceDeps, 'clock' | 'env'> {
  readonly emit: Emit
  readonly inForce: () => Config
}

/** The admission webhook, told of its own certificate as any other target is. */
async function openWebhook(config: Config, { inForce, ...deps }: WebhookDeps) {
  const { injector: options } = config
  if (!options) return undefined
  await using opened = new AsyncDisposableStack()
  const { openInjector } = await import('./injector/server.ts')
  const { kubernetes } = opened.use(openCluster(config, deps.env))
  let last = filesOf(config, options.certificate)
  const files = () => {
    last = filesOf(inForce(), options.certificate) ?? last
    if (last) return last
    throw new SidecarError('CONFIG_INVALID', `certificate "${options.certificate}" has no output of kind pem`)
  }
  const injector = opened.use(await openInjector(options, { ...deps, files, kubernetes }))
  const reloader: Reloader = {
    kind: 'injector',
    description: 'the webhook of this process',
    testCommand: undefined,
    inspect: async () => 'the webhook of this process would take it into service',
    test: async () => {},
    reload: (_, signal) => injector.takeUp(signal),
  }
  const held = opened.move()
  return {
    unready: injector.unready,
    look: injector.look,
    inProcess: (certificate: string) => (certificate === options.certificate ? [reloader] : []),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

function filesOf({ certificates }: Config, wanted: string) {
  const found = certificates.find(({ name }) => name === wanted)
  return found && pemFilesOf(found.outputs)
}

/** Health can be asked for this long after the start at the latest, ms. */
const FIRST_RESULT_MS = 250

/** Events from which it is known what became of a certificate. */
const RESULTS: ReadonlySet<string> = new Set([
  'certificate.phase',
  'rotation.finished',
  'rotation.waiting',
  'rotation.failed',
])

/** The time until the first certificate is there, or fails, or is still on its way after a while. */
function untilFirstResult(): { readonly observe: Observer; over(clock: Clock): Promise<void> } {
  const known = new AbortController()
  return {
    observe: (name) => {
      if (!known.signal.aborted && RESULTS.has(name)) known.abort()
    },
    over: (clock) => clock.sleep(FIRST_RESULT_MS, known.signal).catch(() => {}),
  }
}

/** The scheduler ticks at least every 30 s; this much silence means that the event loop is stuck. */
const STUCK_MS = 90_000

interface ControlParts {
  readonly emit: Emit
  readonly load: (file: string) => Config
  readonly snapshot: Control['snapshot']
  readonly unready: Control['unready']
}

function createControl(sidecar: Sidecar, { emit, load, snapshot, unready }: ControlParts): Control {
  let reloading: Promise<unknown> = Promise.resolve()
  let queued: Promise<ReloadReply> | undefined
  return { snapshot, stuck, unready, rotate, reloadConfig }

  function stuck(): string | undefined {
    const silentMs = sidecar.sinceTick()
    return silentMs > STUCK_MS ? `the scheduler has not ticked for ${Math.round(silentMs / 1000)} s` : undefined
  }

  async function rotate({ certificates, reason, wait }: RotateRequest, signal: AbortSignal): Promise<RotateReply> {
    const { config } = sidecar
    const all = [...config.certificates, ...config.secrets, ...config.trust].map(({ name }) => name)
    const names = certificates === 'all' ? all : [...new Set(certificates)]
    const rotations = sidecar.rotate(names, reason || 'asked for by hand', signal)
    if (wait) return { results: (await rotations).map(wireResult) }
    rotations.catch(() => {})
    const accepted = { ok: true, serial: null, isNew: null, error: null }
    return { results: names.map((certificate) => ({ certificate, ...accepted })) }
  }

  /** One after the other: two at once would stop and start the same loops. Who asks while one waits for its turn is served by that one. */
  function reloadConfig(): Promise<ReloadReply> {
    queued ??= queueReload()
    return queued
  }

  function queueReload(): Promise<ReloadReply> {
    const next = reloading.then(() => {
      queued = undefined
      return loadAgain()
    })
    reloading = next.catch(() => {})
    return next
  }

  async function loadAgain(): Promise<ReloadReply> {
    try {
      return await sidecar.configure(load(sidecar.config.file))
    } catch (thrown) {
      const error = toSidecarError(thrown)
      const errors =
        error instanceof ConfigError
          ? error.problems.map(({ place, path, message }) => `${place} ${path}${path && ': '}${message}`)
          : [error.message]
      emit('config.rejected', { code: error.code, message: errors.join('; '), errors })
      throw error
    }
  }
}

function wireResult({ certificate, outcome, isNew }: RotateResult): RotateReply['results'][number] {
  if (outcome.kind !== 'failed') return { certificate, ok: true, serial: outcome.bundle.serial, isNew, error: null }
  return { certificate, ok: false, serial: outcome.onDisk?.serial ?? null, isNew, error: wireError(outcome.error) }
}
