import { isDeepStrictEqual } from 'node:util'
import type { Clock } from './clock.ts'
import type { CertificateConfig, Config, SecretConfig, TrustConfig } from './config/config.ts'
import type { Bundle } from './core/bundle.ts'
import type { Content } from './core/content.ts'
import type { Snapshot } from './core/snapshot.ts'
import type { Outcome } from './core/state.ts'
import type { TrustSet } from './core/trust.ts'
import type { Trusted } from './core/trusted.ts'
import { SidecarError } from './errors.ts'
import { createKubernetes, type Kubernetes } from './kubernetes/client.ts'
import { type AnyLoop, type Loop, startLoop } from './loop.ts'
import { createTargets, manage, manageSecret, manageTrust, type Parts } from './manage.ts'
import type { Emit } from './observe/events.ts'
import { asSecret } from './observe/secret-events.ts'
import { asTrust } from './observe/trust-events.ts'
import { writeToken } from './outputs/token-sink.ts'
import type { Reloader } from './reloaders/reloader.ts'
import { createScheduler } from './scheduler.ts'
import { createVault, type Vault, type VaultDeps } from './vault/client.ts'
import type { VaultOptions } from './vault/options.ts'

export interface SidecarDeps {
  readonly clock: Clock
  readonly emit: Emit
  /** Environment of this process; a reload command sees a few names of it. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** How targets of a certificate are told that are part of this process, besides those of the config. */
  readonly inProcess?: ((certificate: string) => readonly Reloader[]) | undefined
  /** True where what was leased stays in use after the end: then no token is revoked. */
  readonly keepsTokens?: boolean
  /** True where nobody uses what was issued after the end: then what says `revokeOnExit` is revoked. */
  readonly endsUse?: boolean
  /** Called after each change of the state of a certificate or a secret. */
  readonly changed?: (loop: AnyLoop) => void
}

/** What one certificate or secret came to after `rotate`. */
export interface RotateResult {
  readonly certificate: string
  readonly outcome: Outcome<Content>
  /** Something else is in service than when it was asked; a source of what others write may have nothing newer. */
  readonly isNew: boolean
}

/** All certificates and secrets of a config, each kept fresh by its own loop. */
export interface Sidecar extends AsyncDisposable {
  /** The config now in force. */
  readonly config: Config
  readonly certificates: readonly Loop[]
  readonly secrets: readonly Loop<Snapshot>[]
  readonly trust: readonly Loop<TrustSet>[]
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

const AT_START_ONLY = ['admin', 'log', 'audit', 'kubernetes', 'injector', 'exec'] as const

/** Composition root: from a config to running loops. What it opens closes in reverse order. */
export function startSidecar(initial: Config, deps: SidecarDeps): Sidecar {
  const { clock, emit, changed = () => {} } = deps
  const stop = new AbortController()
  const failure = Promise.withResolvers<never>()
  failure.promise.catch(() => {})
  const scheduler = createScheduler(clock, (byMs) => emit('clock.stepped', { byMs }))
  const ticking = scheduler.run(stop.signal)
  const certificates = new Map<string, Loop>()
  const secrets = new Map<string, Loop<Snapshot>>()
  const trust = new Map<string, Loop<TrustSet>>()
  const loopOf = (name: string): AnyLoop | undefined => certificates.get(name) ?? secrets.get(name) ?? trust.get(name)
  const allLoops = (): AnyLoop[] => [...certificates.values(), ...secrets.values(), ...trust.values()]
  const cluster = openCluster(initial, deps.env)
  const reloading = { ...deps, kubernetes: cluster.kubernetes }
  const targets = createTargets(reloading)
  const vaultDeps = { ...deps, writeToken }
  let vaults = openVaults(initial, vaultDeps)
  let config = initial
  for (const message of initial.warnings) emit('config.warning', { message })

  try {
    for (const entry of entriesOf(initial)) start(entry, { isStart: true })
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
      return config.certificates.flatMap(({ name }) => certificates.get(name) ?? [])
    },
    get secrets() {
      return config.secrets.flatMap(({ name }) => secrets.get(name) ?? [])
    },
    get trust() {
      return config.trust.flatMap(({ name }) => trust.get(name) ?? [])
    },
    sinceTick: scheduler.sinceTick,
    rotate,
    retry: () => {
      for (const loop of allLoops()) loop.ask({ kind: 'retry' })
    },
    configure,
    failed: failure.promise,
    [Symbol.asyncDispose]: async () => {
      stop.abort(new DOMException('certferry stops', 'AbortError'))
      await Promise.all(allLoops().map((loop) => loop.ended))
      if (!deps.keepsTokens) await Promise.all(vaults.all.map((vault) => vault.revokeToken()))
      await vaults[Symbol.asyncDispose]()
      await cluster[Symbol.asyncDispose]()
      await ticking
    },
  }

  function start({ kind, config }: Entry, { isStart }: { isStart: boolean }): void {
    const parts = {
      clock,
      scheduler,
      changed,
      signal: stop.signal,
      isStart,
      endsUse: deps.endsUse === true,
      fatal: failure.reject,
    }
    if (kind === 'certificate') {
      const make = () => manage(config, partsFor(vaults, targets))
      certificates.set(config.name, startLoop(make, { ...parts, emit }))
    } else if (kind === 'secret') {
      const make = () => manageSecret(config, partsFor(vaults, targets))
      secrets.set(config.name, startLoop(make, { ...parts, emit: asSecret(emit) }))
    } else {
      const make = () => manageTrust(config, partsFor(vaults, targets))
      trust.set(config.name, startLoop(make, { ...parts, emit: asTrust(emit) }))
    }
  }

  /** Throws at once for a name that nobody has, before anything is asked. */
  function rotate(names: readonly string[], reason: string, signal: AbortSignal): Promise<RotateResult[]> {
    const unknown = names.filter((name) => !loopOf(name))
    if (unknown.length > 0) {
      throw new SidecarError(
        'USAGE',
        `no certificate, secret or trust named ${unknown.join(', ')}; there are: ${[...certificates.keys(), ...secrets.keys(), ...trust.keys()].join(', ')}`,
      )
    }
    return Promise.all(names.map(rotateOne))

    async function rotateOne(certificate: string): Promise<RotateResult> {
      const before = loopOf(certificate)?.report?.state.serving?.fingerprint
      const outcome = await new Promise<Outcome<Content>>((done, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true })
        loopOf(certificate)?.ask({ kind: 'rotate', reason, done })
      })
      const now = outcome.kind === 'failed' ? outcome.onDisk : outcome.bundle
      return { certificate, outcome, isNew: now !== undefined && now.fingerprint !== before }
    }
  }

  async function configure(next: Config): Promise<Difference> {
    if (stop.signal.aborted) return NO_DIFFERENCE
    const isNewVault = next.vaultIdentity !== config.vaultIdentity
    const before = new Map(entriesOf(config).map((entry) => [entry.config.name, entry]))
    const wanted = entriesOf(next)
    const after = new Set(wanted.map((entry) => entry.config.name))
    const removed = [...before.values()].filter((entry) => !after.has(entry.config.name))
    const isTouched = ({ kind, config: { name, identity } }: Entry) => {
      const known = before.get(name)
      return known && (isNewVault || known.kind !== kind || known.config.identity !== identity)
    }
    const touched = wanted.filter(isTouched)
    const added = wanted.filter((entry) => !before.has(entry.config.name))
    const nextVaults = isNewVault ? openVaults(next, vaultDeps) : vaults
    // What cannot be made must be known before anything is stopped.
    for (const entry of [...touched, ...added]) make(entry, partsFor(nextVaults, createTargets(reloading)))

    await Promise.all([...removed, ...touched].map(({ config: { name } }) => loopOf(name)?.stop()))
    if (stop.signal.aborted) {
      // Whoever stops all ends the loops there are; none may begin after that.
      if (isNewVault) await nextVaults[Symbol.asyncDispose]()
      return NO_DIFFERENCE
    }
    for (const {
      config: { name },
    } of [...removed, ...touched]) {
      certificates.delete(name)
      secrets.delete(name)
      trust.delete(name)
    }
    for (const {
      kind,
      config: { name: certificate },
    } of removed) {
      const tell = kind === 'secret' ? asSecret(emit) : kind === 'trust' ? asTrust(emit) : emit
      tell('certificate.removed', { certificate })
    }
    if (isNewVault) await vaults[Symbol.asyncDispose]()
    vaults = nextVaults
    config = next
    for (const entry of [...touched, ...added]) start(entry, { isStart: false })
    const difference = { added: namesOf(added), changed: namesOf(touched), removed: namesOf(removed) }
    const stale = AT_START_ONLY.filter((key) => !isDeepStrictEqual(next[key], initial[key]))
    emit('config.loaded', { ...difference, ...(stale.length > 0 && { needRestart: stale }) })
    return difference
  }

  function trusted(name: string): Trusted {
    const spreadMs = config.trust.find((one) => one.name === name)?.spread ?? 0
    return { name, state: trust.get(name)?.report?.state, spreadMs }
  }

  function inService(): readonly Bundle[] | undefined {
    const states = [...certificates.values()].map(({ report }) => report?.state)
    if (states.some((state) => !state || (!state.serving && state.failure?.stage === 'preflight'))) return undefined
    return states.flatMap((state) => [state?.serving, state?.pending].filter((one) => one !== undefined))
  }

  function partsFor({ get }: Vaults, targets: Parts['targets']): Parts {
    return { ...reloading, targets, vault: get, inService, trusted }
  }
}

/** What has a loop of its own. */
type Entry =
  | { readonly kind: 'certificate'; readonly config: CertificateConfig }
  | { readonly kind: 'secret'; readonly config: SecretConfig }
  | { readonly kind: 'trust'; readonly config: TrustConfig }

// Whom to trust first: certificates may wait for it.
const entriesOf = ({ certificates, secrets, trust }: Config): Entry[] => [
  ...trust.map((config): Entry => ({ kind: 'trust', config })),
  ...certificates.map((config): Entry => ({ kind: 'certificate', config })),
  ...secrets.map((config): Entry => ({ kind: 'secret', config })),
]

const namesOf = (entries: readonly Entry[]) => entries.map(({ config }) => config.name)

const make = (entry: Entry, parts: Parts) =>
  entry.kind === 'certificate'
    ? manage(entry.config, parts)
    : entry.kind === 'secret'
      ? manageSecret(entry.config, parts)
      : manageTrust(entry.config, parts)

type VaultsDeps = Pick<SidecarDeps, 'clock' | 'emit' | 'env'> & Pick<VaultDeps, 'writeToken'>

/** The Vaults of a config; each logs in on first use, so one that is away holds nothing up. */
export interface Vaults extends AsyncDisposable {
  /** The connection of that name in `vaults`, or that of `vault`. Throws CONFIG_INVALID where there is no such. */
  get(name: string | undefined): Vault
  readonly all: readonly Vault[]
}

/** Without `writeToken` no token is shared by a file: for those who only look. */
export function openVaults({ vault, vaults }: Config, deps: VaultsDeps): Vaults {
  const { clock, emit, env } = deps
  const all = [...(vault ? ([[undefined, vault]] as const) : []), ...Object.entries(vaults)]
  const opened = new Map(all.map(([name, options]) => [name, openVault(name, options)]))
  return {
    get: (name) => {
      const found = opened.get(name)
      if (found) return found
      const wanted = name === undefined ? 'vault.address' : `the connection "${name}" in vaults`
      throw new SidecarError('CONFIG_INVALID', `this needs ${wanted}`)
    },
    all: [...opened.values()],
    [Symbol.asyncDispose]: async () => {
      for (const one of opened.values()) await one[Symbol.asyncDispose]()
    },
  }

  function openVault(name: string | undefined, options: VaultOptions): Vault {
    const which = name === undefined ? {} : { connection: name }
    return createVault(options, {
      clock,
      env,
      place: name === undefined ? 'vault' : `vaults.${name}`,
      ...(deps.writeToken && { writeToken: deps.writeToken }),
      onRequest: (event) => emit('vault.request', { ...event, ...which }),
      onWarning: (event) => emit('vault.warning', { ...event, ...which }),
      onToken: (event) => emit('vault.token', { ...event, ...which }),
      onTokenFailed: (event) => emit('vault.token-failed', { ...event, ...which }),
      onWrapReused: (event) => emit('security.wrap-reused', { ...event, ...which }),
      onClockSkew: (byMs) => emit('vault.clock-skew', { byMs, ...which }),
    })
  }
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
