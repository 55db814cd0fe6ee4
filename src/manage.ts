import type { X509Certificate } from 'node:crypto'
import type { Clock } from './clock.ts'
import type { CertificateConfig, SecretConfig, TrustConfig } from './config/config.ts'
import { assertUsable, type Bundle, type Expectation, parseCertificates } from './core/bundle.ts'
import type { KeyAlgorithm } from './core/key.ts'
import type { Snapshot } from './core/snapshot.ts'
import { type Anchor, chainsTo, type TrustSet } from './core/trust.ts'
import { assertTrusted, type Trusted } from './core/trusted.ts'
import { SidecarError, systemCode, toSidecarError } from './errors.ts'
import type { Kubernetes } from './kubernetes/client.ts'
import type { Emit } from './observe/events.ts'
import { createStore, createStoreOf } from './outputs/disk-store.ts'
import { outputs } from './outputs/index.ts'
import { createMemoryStore } from './outputs/memory-store.ts'
import { isRemote, type Output, writesFiles } from './outputs/output.ts'
import { readingsFile } from './outputs/readings-file.ts'
import { secretOutputs } from './outputs/secrets.ts'
import { trustOutputs } from './outputs/trust.ts'
import { trustFile } from './outputs/trust-file.ts'
import { readPlainFile } from './plain-file.ts'
import { coalesce, targetKey } from './reloaders/coalesce.ts'
import { reloaders } from './reloaders/index.ts'
import type { Reloader, ReloaderDeps } from './reloaders/reloader.ts'
import { manageRevocation } from './revocation/manage.ts'
import { stapling } from './revocation/stapling.ts'
import type { Managed, ManagedCertificate } from './rotation.ts'
import { withoutCondemned } from './sources/condemned.ts'
import { withFallback } from './sources/fallback.ts'
import { sources } from './sources/index.ts'
import type { Source, SourceDeps } from './sources/source.ts'
import { anchors, lists } from './trust/index.ts'
import { assertTrustworthy, createTrustSource } from './trust/trust-source.ts'
import { values } from './values/index.ts'
import { createSecretSource } from './values/secret-source.ts'
import type { Vault } from './vault/client.ts'
import { verifiers } from './verifiers/index.ts'
import { trustVerifiers } from './verifiers/trust.ts'

export interface Parts {
  /** The connection of that name, or the one that has none. Throws CONFIG_INVALID where there is no such. */
  readonly vault: (name: string | undefined) => Vault
  /** Throws CONFIG_INVALID outside a cluster. */
  readonly kubernetes: () => Kubernetes
  readonly clock: Clock
  readonly env: Readonly<Record<string, string | undefined>>
  readonly targets: Targets
  readonly emit: Emit
  /** What certificates of this config show, or are about to; undefined where that is not known of each, such as before its store was opened. */
  readonly inService: () => readonly Bundle[] | undefined
  /** How it stands with the trust of that name; undefined for those who only look. */
  readonly trusted: (name: string) => Trusted | undefined
}

/** A certificate of the config with all that serves it. Throws CONFIG_INVALID, such as for a trust file that cannot be used. */
export const manage = (config: CertificateConfig, parts: Parts): ManagedCertificate =>
  naming(`certificate "${config.name}"`, () => make(config, parts))

/** A trust of the config with all that goes by it. Throws CONFIG_INVALID. */
export const manageTrust = (config: TrustConfig, parts: Parts): Managed<TrustSet> =>
  naming(`trust "${config.name}"`, () => makeTrust(config, parts))

/** A secret of the config with all that serves it. Throws CONFIG_INVALID. */
export const manageSecret = (config: SecretConfig, parts: Parts): Managed<Snapshot> =>
  naming(`secret "${config.name}"`, () => makeSecret(config, parts))

function naming<T>(what: string, work: () => T): T {
  try {
    return work()
  } catch (thrown) {
    const error = toSidecarError(thrown)
    if (error.code !== 'CONFIG_INVALID') throw error
    throw new SidecarError('CONFIG_INVALID', `${what}: ${error.message}`, { cause: thrown })
  }
}

function make(
  config: CertificateConfig,
  { vault, clock, env, targets, kubernetes, emit, trusted }: Parts,
): ManagedCertificate {
  const { name, key, renew, check, startupGrace, revocation: revocationOptions } = config
  const deps: SourceDeps = {
    vault,
    key,
    kubernetes,
    clock,
    env,
    warn: (message) => emit('source.warning', { certificate: name, message }),
  }
  const sourceOf = (options: { readonly kind: string }) =>
    withoutCondemned(sources.create(options, deps), ({ fingerprint }) => store.memory.condemned.includes(fingerprint))
  const [first, others] = [sourceOf(config.source), config.fallback.map(sourceOf)]
  const made = config.outputs.map((options) =>
    outputs.create(options, { certificate: name, now: clock.now, kubernetes }),
  )
  const files = made.filter(writesFiles)
  const remotes = made.filter(isRemote)
  // Outside a cluster that is an error of the config, and not one of each pass.
  if (remotes.length > 0) kubernetes()
  const expectOf = ({ names, isCommonNameFree, algorithm }: Source) =>
    trusting(check.trustFile, {
      ...(names && { names }),
      ...(isCommonNameFree && { isCommonNameFree }),
      ...(algorithm && { algorithm }),
      minTtlMs: check.minTtl,
      chain: check.chain,
      serverAuth: config.verify.length > 0,
    })
  const [expect, expected] = [expectOf(first), new Map(others.map((one) => [one.origin, expectOf(one)]))]
  const isUsable = (bundle: Bundle, at: number) => assertUsable(bundle, expected.get(bundle.origin) ?? expect, at)
  const store = createStore({ certificate: name, outputs: files, now: clock.now })
  const plain = withFallback([first, ...others], {
    now: clock.now,
    assertUsable: isUsable,
    tell: ({ origin, serial }, { code, message }) =>
      emit('source.fallback', { certificate: name, origin, serial, instead: first.origin, code, message }),
  })
  const staples = files.some((output) => output.staples)
    ? stapling(plain, { ocspUrl: revocationOptions?.ocspUrl, now: clock.now })
    : undefined
  const source = staples?.source ?? plain
  const isStapleRequired = revocationOptions?.stapleRequired ?? true
  const serverName = [first, ...others].find(({ names }) => names?.dns[0] !== undefined)?.names?.dns[0]
  for (const { algorithm } of [first, ...others]) assertForms(name, files, algorithm)
  const { after, before: beforeMs, cron, timezone = 'UTC', jitter } = renew
  return {
    name,
    source,
    assertUsable: (bundle, at) => {
      isUsable(bundle, at)
      const trust = config.trust === undefined ? undefined : trusted(config.trust)
      if (trust) assertTrusted(bundle, { current: store.current, trust, now: clock.now() })
      if (isStapleRequired) staples?.assertStapled(bundle, store.current, at)
    },
    renewal: { after, beforeMs, cron, timezone, jitter },
    outputs: files,
    remotes,
    store,
    reloaders: [...config.reload.map(targets.reloader), ...targets.inProcess(name)],
    verifiers: config.verify.map((options) => verifiers.create(options, { clock, serverName })),
    startupGraceMs: startupGrace,
    revocation: manageRevocation(config, { sources: [first, ...others], now: clock.now }),
  }
}

/** Throws CONFIG_INVALID where the key that will be made cannot be written as an output wants it. */
function assertForms(name: string, files: readonly Output[], algorithm: KeyAlgorithm | undefined): void {
  if (algorithm === undefined) return
  for (const { directory, misfit } of files) {
    const why = misfit?.(algorithm)
    if (why) throw new SidecarError('CONFIG_INVALID', `certificate "${name}", output in ${directory}: ${why}`)
  }
}

function makeTrust(config: TrustConfig, { vault, clock, targets, inService, emit }: Parts): Managed<TrustSet> {
  const { name } = config
  const files = config.outputs.map((options) => trustOutputs.create(options, undefined))
  const isUsed = (anchor: X509Certificate) => inService()?.some((bundle) => chainsTo(bundle, anchor)) ?? true
  const warned = new Set<string>()
  const warnOfEnds = (all: readonly Anchor[], now: number) => {
    for (const { certificate, retiredAt } of all) {
      const notAfter = certificate.validToDate.getTime()
      if (retiredAt !== undefined || notAfter - now > config.warnBefore || warned.has(certificate.fingerprint256))
        continue
      warned.add(certificate.fingerprint256)
      emit('trust.ca-expiring', { trust: name, subject: certificate.subject.replaceAll('\n', ', '), notAfter })
    }
  }
  const warn = (message: string) => {
    if (warned.has(message)) return
    warned.add(message)
    emit('trust.warning', { trust: name, message })
  }
  const deps = { vault, clock }
  return {
    name,
    source: createTrustSource({
      name,
      anchors: config.anchors.map((options) => anchors.create(options, deps)),
      lists: config.crls.map((options) => lists.create(options, deps)),
      pollMs: config.poll,
      keepMs: config.keep,
      isUsed,
      mind: warnOfEnds,
      warn,
      clock,
    }),
    assertUsable: assertTrustworthy,
    renewal: { jitter: 0 },
    outputs: files,
    remotes: [],
    store: createStoreOf(trustFile, { certificate: name, outputs: files, now: clock.now }),
    reloaders: [...config.reload.map(targets.reloader), ...targets.inProcess(name)],
    verifiers: config.verify.map((options) => trustVerifiers.create(options, { clock })),
    startupGraceMs: config.startupGrace,
  }
}

function makeSecret({ name, outputs: wanted, ...config }: SecretConfig, { vault, clock, targets }: Parts) {
  const from = Object.entries(config.values).map(([value, options]) => [
    value,
    values.create(options, { vault, clock }),
  ])
  const files = wanted.map((options) => secretOutputs.create(options, { values: Object.keys(config.values) }))
  return {
    name,
    source: createSecretSource(name, Object.fromEntries(from), clock),
    // What was read is as good as it can be; whether all that the outputs name is there, they say themselves.
    assertUsable: () => {},
    renewal: { jitter: 0 },
    outputs: files,
    remotes: [],
    store:
      files.length > 0
        ? createStoreOf(readingsFile, { certificate: name, outputs: files, now: clock.now })
        : createMemoryStore<Snapshot>(),
    reloaders: [...config.reload.map(targets.reloader), ...targets.inProcess(name)],
    verifiers: [],
    startupGraceMs: config.startupGrace,
  }
}

/**
 * With the roots of the trust file as anchors. It is read again for each check, so that a new root needs no restart; while it cannot be
 * read, what it held last counts. Throws CONFIG_INVALID when it is of no use to begin with.
 */
function trusting(trustFile: string | undefined, expect: Expectation): Expectation {
  if (trustFile === undefined) return expect
  let last = anchorsIn(trustFile)
  return {
    ...expect,
    get anchors() {
      try {
        last = anchorsIn(trustFile)
      } catch {
        // It may be between two versions.
      }
      return last
    },
  }
}

function anchorsIn(trustFile: string): readonly X509Certificate[] {
  try {
    const anchors = parseCertificates(readPlainFile(trustFile).toString('utf8'))
    if (anchors.length > 0) return anchors
  } catch (cause) {
    throw new SidecarError(
      'CONFIG_INVALID',
      `check.trustFile ${trustFile} cannot be used: ${systemCode(cause) ?? toSidecarError(cause).message}`,
      { cause },
    )
  }
  throw new SidecarError('CONFIG_INVALID', `check.trustFile ${trustFile} holds no certificate`)
}

/** The reloaders of one sidecar: certificates that name the same target share one, so it is told once for all of them. */
export interface Targets {
  reloader(options: { readonly kind: string }): Reloader
  /** Of the targets of this certificate that are part of this process. */
  inProcess(certificate: string): readonly Reloader[]
}

interface TargetsDeps extends ReloaderDeps {
  readonly emit: Emit
  readonly inProcess?: ((certificate: string) => readonly Reloader[]) | undefined
}

export function createTargets({ emit, inProcess = () => [], ...deps }: TargetsDeps): Targets {
  const { clock } = deps
  const shared = new Map<string, { reloader: Reloader; users: number }>()
  return {
    reloader: (options) => {
      const key = targetKey(options)
      const known = shared.get(key)
      if (known) {
        known.users += 1
        return known.reloader
      }
      const target = { reloader: reported(reloaders.create(options, deps), clock, emit), users: 1 }
      // A target of one certificate has nothing to wait for.
      const pace = {
        get quietMs() {
          return target.users > 1 ? 500 : 0
        },
        maxMs: 5_000,
      }
      target.reloader = coalesce(target.reloader, clock, pace)
      shared.set(key, target)
      return target.reloader
    },
    inProcess: (certificate) => inProcess(certificate).map((reloader) => reported(reloader, clock, emit)),
  }
}

/** A reloader that tells the observers of each reload, once for all the certificates it was for. */
function reported(reloader: Reloader, clock: Clock, emit: Emit): Reloader {
  return {
    ...reloader,
    reload: async (context, signal) => {
      const startedAt = clock.elapsed()
      const event = { kind: reloader.kind, target: reloader.description, certificates: context.certificates }
      try {
        await reloader.reload(context, signal)
        emit('reload.finished', { ...event, ok: true, durationMs: clock.elapsed() - startedAt })
      } catch (thrown) {
        const error = toSidecarError(thrown)
        if (!signal.aborted)
          emit('reload.finished', { ...event, ok: false, code: error.code, durationMs: clock.elapsed() - startedAt })
        throw error
      }
    },
  }
}
