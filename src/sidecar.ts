import { isDeepStrictEqual } from 'node:util'
import type { Clock } from './clock.ts'
import type { CertificateConfig, Config } from './config/config.ts'
import type { Outcome } from './core/state.ts'
import { SidecarError } from './errors.ts'
import { createKubernetes, type Kubernetes } from './kubernetes/client.ts'
import { type Loop, startLoop } from './loop.ts'
import { createTargets, manage, type Parts, type Targets } from './manage.ts'
import type { Emit } from './observe/events.ts'
import type { Reloader } from './reloaders/reloader.ts'
import { createScheduler } from './scheduler.ts'
import { createVault, type Vault } from './vault/client.ts'

export interface SidecarDeps {
  readonly clock: Clock
  readonly emit: Emit
  /** Environment of this process; a reload command sees a few names of it. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** How targets of a certificate are told that are part of this process, besides those of the config. */
  readonly inProcess?: ((certificate: string) => readonly Reloader[]) | undefined
  /** Called after each change of a certificate's state. */
  readonly changed?: (loop: Loop) => void
}

/** What one certificate came to after `rotate`. */
export interface RotateResult {
  readonly certificate: string
  readonly outcome: Outcome
}

/** All certificates of a config, each kept fresh by its own loop. */
export interface Sidecar extends AsyncDisposable {
  /** The config now in force. */
  readonly config: Config
  readonly certificates: readonly Loop[]
  /** Monotonic ms since the scheduler last ticked. */
  sinceTick(): number
  /** Rotates now, outside the issue budget; resolves when every pass has ended. Throws USAGE for an unknown name. */
  rotate(names: readonly string[], reason: string, signal: AbortSignal): Promise<RotateResult[]>
  /** Puts every backoff aside. */
  retry(): void
  /** Applies another config: unchanged certificates keep running, removed ones stop and leave their files. */
  configure(config: Config): Promise<Difference>
  /** Rejects when a certificate cannot be run at all. */
  readonly failed: Promise<never>
}

export interface Difference {
  readonly added: readonly string[]
  readonly changed: readonly string[]
  readonly removed: readonly string[]
}

const NO_DIFFERENCE: Difference = { added: [], changed: [], removed: [] }

const AT_START_ONLY = ['admin', 'log', 'audit', 'kubernetes', 'injector'] as const

/** Composition root: from a config to running loops. What it opens closes in reverse order. */
export function startSidecar(initial: Config, deps: SidecarDeps): Sidecar {
  const { clock, emit, changed = () => {} } = deps
  const stop = new AbortController()
  const failure = Promise.withResolvers<never>()
  failure.promise.catch(() => {})
  const scheduler = createScheduler(clock, (byMs) => emit('clock.stepped', { byMs }))
  const ticking = scheduler.run(stop.signal)
  const loops = new Map<string, Loop>()
  const cluster = openCluster(initial, deps.env)
  const reloading = { ...deps, kubernetes: cluster.kubernetes }
  const targets = createTargets(reloading)
  let vault = openVault(initial, deps)
  let config = initial

  try {
    for (const certificate of initial.certificates) start(certificate, { isStart: true })
  } catch (error) {
    // One that cannot be made ends those before it, and the ticks: nobody else could.
    stop.abort(error)
    throw error
  }

  return {
    get config() {
      return config
    },
    get certificates() {
      return config.certificates.flatMap(({ name }) => loops.get(name) ?? [])
    },
    sinceTick: scheduler.sinceTick,
    rotate,
    retry: () => {
      for (const loop of loops.values()) loop.ask({ kind: 'retry' })
    },
    configure,
    failed: failure.promise,
    [Symbol.asyncDispose]: async () => {
      stop.abort(new DOMException('certferry stops', 'AbortError'))
      await Promise.all([...loops.values()].map((loop) => loop.ended))
      await vault?.[Symbol.asyncDispose]()
      await cluster[Symbol.asyncDispose]()
      await ticking
    },
  }

  function start(certificate: CertificateConfig, { isStart }: { isStart: boolean }): void {
    const make = () => manage(certificate, partsFor(vault, targets))
    loops.set(
      certificate.name,
      startLoop(make, {
        clock,
        emit,
        scheduler,
        changed,
        signal: stop.signal,
        isStart,
        fatal: failure.reject,
      }),
    )
  }

  /** Throws at once for a name that nobody has, before anything is asked. */
  function rotate(names: readonly string[], reason: string, signal: AbortSignal): Promise<RotateResult[]> {
    const unknown = names.filter((name) => !loops.has(name))
    if (unknown.length > 0) {
      throw new SidecarError(
        'USAGE',
        `no certificate named ${unknown.join(', ')}; there are: ${[...loops.keys()].join(', ')}`,
      )
    }
    return Promise.all(names.map(async (certificate) => ({ certificate, outcome: await rotateOne(certificate) })))

    function rotateOne(certificate: string): Promise<Outcome> {
      return new Promise((done, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true })
        loops.get(certificate)?.ask({ kind: 'rotate', reason, done })
      })
    }
  }

  async function configure(next: Config): Promise<Difference> {
    if (stop.signal.aborted) return NO_DIFFERENCE
    const isNewVault = next.vaultIdentity !== config.vaultIdentity
    const before = new Map(config.certificates.map(({ name, identity }) => [name, identity]))
    const after = new Set(next.certificates.map(({ name }) => name))
    const removed = [...before.keys()].filter((name) => !after.has(name))
    const touched = next.certificates.filter(
      ({ name, identity }) => before.has(name) && (isNewVault || before.get(name) !== identity),
    )
    const added = next.certificates.filter(({ name }) => !before.has(name))
    const nextVault = isNewVault ? openVault(next, deps) : vault
    // What cannot be made must be known before anything is stopped.
    for (const certificate of [...touched, ...added]) manage(certificate, partsFor(nextVault, createTargets(reloading)))

    await Promise.all([...removed, ...touched.map(({ name }) => name)].map((name) => loops.get(name)?.stop()))
    if (stop.signal.aborted) {
      // Whoever stops all ends the loops there are; none may begin after that.
      if (isNewVault) await nextVault?.[Symbol.asyncDispose]()
      return NO_DIFFERENCE
    }
    for (const certificate of removed) {
      loops.delete(certificate)
      emit('certificate.removed', { certificate })
    }
    if (isNewVault) await vault?.[Symbol.asyncDispose]()
    vault = nextVault
    config = next
    for (const certificate of [...touched, ...added]) start(certificate, { isStart: false })
    const difference = { added: added.map(({ name }) => name), changed: touched.map(({ name }) => name), removed }
    const stale = AT_START_ONLY.filter((key) => !isDeepStrictEqual(next[key], initial[key]))
    emit('config.loaded', { ...difference, ...(stale.length > 0 && { needRestart: stale }) })
    return difference
  }

  function partsFor(someVault: Vault | undefined, targets: Targets): Parts {
    return { ...reloading, targets, vault: () => someVault ?? missingVault() }
  }
}

/** The Vault of a config; logs in on first use, so a Vault that is away holds nothing up. */
export function openVault({ vault }: Config, { clock, emit }: Pick<SidecarDeps, 'clock' | 'emit'>): Vault | undefined {
  if (!vault) return undefined
  return createVault(vault, {
    clock,
    onRequest: (event) => emit('vault.request', event),
    onWarning: (event) => emit('vault.warning', event),
    onToken: (event) => emit('vault.token', event),
    onTokenFailed: (event) => emit('vault.token-failed', event),
    onWrapReused: (event) => emit('security.wrap-reused', event),
    onClockSkew: (byMs) => emit('vault.clock-skew', { byMs }),
  })
}

export const missingVault = (): never => {
  throw new SidecarError('CONFIG_INVALID', 'this source needs vault.address')
}

/** The API server of the cluster, for whoever asks first; most never do. */
export function openCluster({ kubernetes: options }: Config, env: SidecarDeps['env']) {
  let opened: Kubernetes | undefined
  return {
    kubernetes: (): Kubernetes => {
      opened ??= createKubernetes(options, { env })
      return opened
    },
    [Symbol.asyncDispose]: async () => opened?.[Symbol.asyncDispose](),
  }
}
