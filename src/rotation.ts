import type { Clock } from './clock.ts'
import type { Bundle } from './core/bundle.ts'
import { type Content, editionOf, isSameContent } from './core/content.ts'
import { lifetimeOf, type RenewalPolicy } from './core/renewal.ts'
import type { Outcome, Stage } from './core/state.ts'
import { type ErrorCode, SidecarError, toSidecarError } from './errors.ts'
import { request } from './issuance.ts'
import type { Emit } from './observe/events.ts'
import { type Output, type RemoteOutput, render } from './outputs/output.ts'
import type { Change, Store } from './outputs/store.ts'
import type { ReloadContext, Reloader } from './reloaders/reloader.ts'
import type { Revocation } from './revocation/revocation.ts'
import { isRevoked } from './revocation-watch.ts'
import type { Origin, Source } from './sources/source.ts'
import type { Served, Verifier } from './verifiers/verifier.ts'

/** A certificate or a secret that should exist, with all that serves it. */
export interface Managed<C extends Content = Bundle> {
  readonly name: string
  readonly source: Origin<C>
  /** Throws where the content is not fit to be used at `now`, or not what the config asks for. */
  readonly assertUsable: (content: C, now: number) => void
  readonly renewal: RenewalPolicy
  readonly outputs: readonly Output<C>[]
  /** Copies elsewhere, made before the target is told. */
  readonly remotes: readonly RemoteOutput<C>[]
  readonly store: Store<C>
  readonly reloaders: readonly Reloader[]
  readonly verifiers: readonly Verifier<C>[]
  /** How long a target that never answered is waited for, ms. */
  readonly startupGraceMs: number
  /** Present where it may end before its time. */
  readonly revocation?: Revocation<C> | undefined
}

export interface ManagedCertificate extends Managed {
  readonly source: Source
}

/** What this pass is to do: deliver a bundle that is there, or fetch a new one. */
export interface Assignment<C extends Content = Bundle> {
  readonly bundle?: C
  /** `bundle` is not in service yet: where the source can be looked at, what it has by now is delivered in its place. */
  readonly askFirst?: boolean
  /** Instead: what is in service, to ask the source whether it has something newer. */
  readonly polled?: C
  /** Asked for by a person: outside the issue budget. */
  readonly forced: boolean
  /** The previous certificate must not come back into service (compromise). */
  readonly oneWay: boolean
}

export interface RotationDeps {
  readonly clock: Clock
  readonly emit: Emit
}

/**
 * One pass of the flow: preflight → fetch → check → write → reload → verify. Never throws; what went wrong, at which stage,
 * and what is worth keeping is in the outcome. Only the loop tries again.
 */
export function rotate<C extends Content>(
  cert: Managed<C>,
  assignment: Assignment<C>,
  deps: RotationDeps,
  signal: AbortSignal,
): Promise<Outcome<C>> {
  return withGrace(signal, FINISH_MS, (late) => {
    const { step, stage } = startSteps(cert.name, deps, signal)
    const { bundle: inHand } = assignment
    const known = [cert.store.current?.fingerprint, cert.store.memory.verified?.fingerprint]
    const pass: Pass<C> = {
      cert,
      deps,
      step,
      stage,
      signal,
      late,
      known,
      targetUp: false,
      inHand,
      onDisk: undefined,
      unpublished: undefined,
    }
    return goThrough(pass, assignment)
  })
}

async function goThrough<C extends Content>(pass: Pass<C>, assignment: Assignment<C>): Promise<Outcome<C>> {
  const { cert, deps, step, stage, signal } = pass
  try {
    if (assignment.oneWay) await condemn(cert)
    const bundle =
      (await inHand(pass, assignment)) ??
      (await pollServing(pass, assignment.polled)) ??
      (await obtain(pass, assignment.forced))
    const isOver = bundle.notAfter <= deps.clock.now()
    if (isSameContent(bundle, assignment.polled) && !isOver) return { kind: 'unchanged', bundle }
    pass.inHand = bundle
    await step('check', () => cert.assertUsable(bundle, deps.clock.now()))
    const change = await step('write', () =>
      cert.store.apply(render(cert.outputs, bundle), (directories) => test(pass, bundle, directories)),
    )
    pass.onDisk = bundle
    if (change.changed)
      deps.emit('certificate.written', {
        certificate: cert.name,
        serial: bundle.serial,
        directories: directoriesOf(cert),
      })
    const served = await deliver(pass, bundle, change)
    return { kind: 'served', bundle: served, verified: cert.verifiers.length > 0, targetUp: pass.targetUp }
  } catch (thrown) {
    const error = asError(thrown, cert.name, signal)
    const inHand = WORTH_KEEPING.has(error.code) || stage() !== 'check' ? pass.inHand : undefined
    return { kind: 'failed', error, stage: stage(), inHand, onDisk: pass.onDisk, targetUp: pass.targetUp }
  }
}

/** What time will mend, of what was refused by the check. */
const WORTH_KEEPING: ReadonlySet<ErrorCode> = new Set(['NOT_YET_VALID', 'TRUST_PENDING', 'OCSP_UNAVAILABLE'])

/** What ended a pass; being stopped in the middle of it is no defect. */
function asError(thrown: unknown, certificate: string, signal: AbortSignal): SidecarError {
  if (!signal.aborted || thrown instanceof SidecarError) return toSidecarError(thrown)
  return new SidecarError('STOPPED', `the rotation of ${certificate} was stopped before its end`)
}

/** What a pass learns on its way. */
interface Pass<C extends Content> {
  readonly cert: Managed<C>
  readonly deps: RotationDeps
  readonly step: Step
  /** The stage that failed last. */
  readonly stage: () => Stage
  readonly signal: AbortSignal
  /** Aborts a little later: a reload that a stop interrupts may still finish, since the files are committed and telling is quick. */
  readonly late: AbortSignal
  /** Fingerprints of what was in service by our doing when the pass began. */
  readonly known: Known
  /** The target answered. */
  targetUp: boolean
  inHand: C | undefined
  onDisk: C | undefined
  /** Why a copy could not be made. */
  unpublished: SidecarError | undefined
}

type Known = readonly (string | undefined)[]
type Step = <T>(stage: Stage, work: () => T | Promise<T>) => Promise<T>

/** `step` alone times and reports, so no stage does its own logging or counting. */
function startSteps(
  certificate: string,
  { clock, emit }: RotationDeps,
  signal: AbortSignal,
): { step: Step; stage: () => Stage } {
  let failed: Stage = 'preflight'
  const step: Step = async (stage, work) => {
    const start = clock.elapsed()
    const report = (code?: ErrorCode) =>
      emit('rotation.stage', { certificate, stage, durationMs: clock.elapsed() - start, ok: code === undefined, code })
    try {
      const result = await work()
      report()
      return result
    } catch (thrown) {
      const error = asError(thrown, certificate, signal)
      failed = stage
      report(error.code)
      throw error
    }
  }
  return { step, stage: () => failed }
}

/** What is in service now shall not come back: on record before anything else, so that no retry and no restart forgets it. */
async function condemn<C extends Content>({ store }: Managed<C>): Promise<void> {
  const { condemned, verified } = store.memory
  const now = [store.current?.fingerprint, verified?.fingerprint].filter((fingerprint) => fingerprint !== undefined)
  await store.remember({ condemned: [...new Set([...condemned, ...now])] })
}

/** Whoever mends what the target refused must not have to wait for it to be taken first. Where nobody answers, it is tried as it is. */
async function inHand<C extends Content>(pass: Pass<C>, { bundle, askFirst }: Assignment<C>): Promise<C | undefined> {
  if (!bundle || !askFirst || !pass.cert.source.polling) return bundle
  pass.inHand = bundle
  const found = await poll(pass, bundle).catch(() => bundle)
  pass.signal.throwIfAborted()
  return found
}

/** What the source has now, where that can be known without asking for a new one. */
async function poll<C extends Content>({ cert, step, signal }: Pass<C>, polled: C | undefined) {
  const { polling } = cert.source
  return polled && polling ? step('fetch', () => polling.look(polled, signal)) : undefined
}

/** What is in service, asked about; a look that fails may have prolonged a part of it. */
async function pollServing<C extends Content>(pass: Pass<C>, polled: C | undefined) {
  try {
    return await poll(pass, polled)
  } catch (thrown) {
    if (polled) pass.onDisk = pass.cert.source.polling?.prolonged?.(polled)
    throw thrown
  }
}

/** A new bundle. The disk is proven writable before Vault is asked. */
async function obtain<C extends Content>({ cert, deps, step, signal }: Pass<C>, forced: boolean): Promise<C> {
  await step('preflight', () => cert.store.preflight())
  const bundle = await step('fetch', () => request(cert, { clock: deps.clock, forced }, signal))
  if (cert.source.isIssued?.(bundle) ?? cert.source.issues)
    deps.emit('certificate.issued', {
      certificate: cert.name,
      serial: bundle.serial,
      notAfter: bundle.notAfter,
      forced,
    })
  return bundle
}

/** The targets' own configuration tests. On the very first delivery there is nothing the target could run with yet. */
async function test<C extends Content>(
  { cert, known, signal }: Pass<C>,
  bundle: C,
  directories: readonly string[],
): Promise<void> {
  if (!cert.store.current) return
  for (const reloader of cert.reloaders) await reloader.test({ ...contextOf(cert, bundle, known), directories }, signal)
}

/** Reload and verify; goes back when the target refuses. What is in service then. */
async function deliver<C extends Content>(pass: Pass<C>, bundle: C, change: Change<C>): Promise<C> {
  const { cert, deps, step } = pass
  const before = await look(pass, bundle)
  try {
    await convince(pass, bundle, before)
  } catch (thrown) {
    const error = await unlessDown(pass, toSidecarError(thrown), { before, bundle })
    if (wasRefused(error, before) && change.previous && (await mayGoBack(pass, change.previous)))
      await step('rollback', () => goBack(pass, bundle, change.previous, error))
    throw error
  }
  await noteOutdated(cert, change.previous, bundle)
  await cert.store.settle(deps.clock.now())
  const since = cert.store.memory.verified?.at ?? deps.clock.now()
  const served = cert.source.polling?.delivered?.(bundle, since) ?? bundle
  if (cert.verifiers.length > 0)
    deps.emit('certificate.served', { certificate: cert.name, serial: bundle.serial, notAfter: bundle.notAfter })
  const { unpublished } = pass
  if (unpublished) await step('reload', () => Promise.reject(unpublished))
  return served
}

/** On record before the new one counts as proven: what is proven, or in place, is not revoked, so a stop in between does no harm. */
async function noteOutdated<C extends Content>(
  { store, revocation }: Managed<C>,
  previous: C | undefined,
  bundle: C,
): Promise<void> {
  const one = previous && revocation?.outdated?.(previous, bundle)
  const { toRevoke = [] } = store.memory
  if (!one || toRevoke.some(({ fingerprint }) => fingerprint === one.fingerprint)) return
  await store.remember({ toRevoke: [...toRevoke, one] })
}

/** Tells the target unless it serves the bundle already, then asks for proof; a target that still serves the old one is told once more. */
async function convince<C extends Content>(pass: Pass<C>, bundle: C, before: readonly Served[]): Promise<void> {
  const { cert, step, signal, known } = pass
  const isServed = before.length > 0 && before.every((served) => served.up && served.fingerprint === bundle.fingerprint)
  const isTold = cert.store.memory.told === editionOf(bundle)
  // Who reads a copy is not who is asked for proof.
  const isSeen = bundle.edition === undefined && !cert.verifiers.some(({ seesPart }) => seesPart)
  const mayBeServed = isServed && isSeen && cert.remotes.length === 0
  const isDone = cert.verifiers.length === 0 ? isTold : mayBeServed || (isServed && isTold)
  assertAnyone(pass, before)
  if (!isDone) await step('reload', () => reload(pass, bundle))
  else if (cert.remotes.length > 0) await step('reload', () => publish(pass, bundle))
  const previous = previousIn(before, bundle, known)
  const verify = () =>
    step('verify', () => inOrder(cert.verifiers, (verifier) => verifier.verify(bundle, previous, signal)))
  try {
    await verify()
  } catch (thrown) {
    if (toSidecarError(thrown).code !== 'RELOAD_NOT_EFFECTIVE') throw thrown
    await step('reload', () => reload(pass, bundle))
    await verify()
  }
  if (cert.verifiers.length > 0) pass.targetUp = true
}

/** Where nobody is told and nobody answers, there is nothing to wait for. */
function assertAnyone<C extends Content>({ cert }: Pass<C>, before: readonly Served[]): void {
  const [first] = before
  if (cert.reloaders.length > 0 || cert.remotes.length > 0 || !first || before.some(({ up }) => up)) return
  const why = first.up ? '' : `: ${first.why}`
  throw new SidecarError('TARGET_DOWN', `${cert.verifiers[0]?.description} does not answer${why}`)
}

/** The one of ours that a target serves yet: only that, shown after the reload, is a refusal. A certificate of somebody else is none. */
function previousIn(before: readonly Served[], bundle: Content, known: Known): string | undefined {
  const shown = before.flatMap((served) => (served.up ? [served.fingerprint] : []))
  return shown.find((fingerprint) => fingerprint !== bundle.fingerprint && known.includes(fingerprint))
}

/** What every target serves now; seeing one up is remembered. */
async function look<C extends Content>(pass: Pass<C>, bundle: C): Promise<readonly Served[]> {
  const seen = await Promise.all(pass.cert.verifiers.map((verifier) => verifier.probe(pass.signal, bundle)))
  if (seen.some((served) => served.up)) pass.targetUp = true
  return seen
}

/** All that a stop leaves to the reloads of one pass, ms. */
const FINISH_MS = 2_000

/** Copies first. One that cannot be made keeps no target from its certificate but those that may read it; they are told in a later pass. */
async function reload<C extends Content>(pass: Pass<C>, bundle: C): Promise<void> {
  const { cert, known, signal, late } = pass
  const context = contextOf(cert, bundle, known)
  await publish(pass, bundle)
  const ready = cert.reloaders.filter(({ readsCopies }) => !(readsCopies && pass.unpublished))
  await inOrder(ready, (reloader) => reloader.reload(context, late))
  const isTold = !pass.unpublished && cert.store.memory.told !== editionOf(bundle)
  if (isTold) await cert.store.remember({ told: editionOf(bundle) })
  signal.throwIfAborted()
}

async function publish<C extends Content>(pass: Pass<C>, bundle: C): Promise<void> {
  const { cert, deps, signal, late } = pass
  pass.unpublished = undefined
  for (const { place, publish } of cert.remotes) {
    try {
      const before = await publish(bundle, late)
      if (before) deps.emit('certificate.published', { certificate: cert.name, serial: bundle.serial, place })
    } catch (thrown) {
      pass.unpublished ??= asError(thrown, cert.name, signal)
    }
  }
}

/** The target itself said no, or fell over: the new set is not fit for it. A target that was down all along refused nothing. */
function wasRefused(error: SidecarError, before: readonly Served[]): boolean {
  if (error.code === 'RELOAD_NOT_EFFECTIVE' || error.code === 'RELOAD_FAILED') return true
  return error.code === 'TARGET_DOWN' && before.some((served) => served.up)
}

/** A command fails as well when there is nobody to be told: where nobody answers before and after, that is what there is to say. */
async function unlessDown<C extends Content>(
  pass: Pass<C>,
  error: SidecarError,
  { before, bundle }: { readonly before: readonly Served[]; readonly bundle: C },
): Promise<SidecarError> {
  const isTelling = error.code === 'RELOAD_FAILED' || error.code === 'RELOAD_TIMEOUT'
  if (!isTelling || before.length === 0 || before.some(({ up }) => up)) return error
  const [first, ...others] = await look(pass, bundle)
  if (!first || first.up || others.some(({ up }) => up)) return error
  const name = pass.cert.verifiers[0]?.description
  return new SidecarError('TARGET_DOWN', `${name} does not answer: ${first.why}; ${error.message}`, { cause: error })
}

/** How long whoever knows of revocation is waited for before a rollback, ms. */
const ASK_MS = 2_000

/** Only to a set with a future. For certificates that live minutes, five minutes would be too much to ask. */
async function mayGoBack<C extends Content>({ cert, deps, signal }: Pass<C>, previous: C): Promise<boolean> {
  const lifetime = lifetimeOf(previous)
  if (cert.store.memory.condemned.includes(previous.fingerprint)) return false
  if (previous.notAfter - deps.clock.now() <= Math.min(Math.max(300_000, lifetime / 20), lifetime / 4)) return false
  // The target may be without a good certificate meanwhile.
  const soon = AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)])
  return !(await isRevoked(cert, previous, deps.emit, soon))
}

/** Restores the old files, reloads, verifies. Where even that fails, the newest valid set is left on disk. */
async function goBack<C extends Content>(
  pass: Pass<C>,
  refused: C,
  previous: C | undefined,
  cause: SidecarError,
): Promise<void> {
  const { cert, deps, signal } = pass
  if (!previous) return
  await cert.store.undo()
  try {
    await reload(pass, previous)
    await inOrder(cert.verifiers, (verifier) => verifier.verify(previous, refused.fingerprint, signal))
  } catch (thrown) {
    if (signal.aborted) throw thrown
    await cert.store.apply(render(cert.outputs, refused))
    const error = toSidecarError(thrown)
    throw new SidecarError(
      'ROLLBACK_FAILED',
      `the target refused certificate ${refused.serial} (${cause.message}), and the previous one, ${previous.serial}: ${error.message}`,
      { cause },
    )
  }
  pass.onDisk = previous
  deps.emit('rotation.rolled-back', { certificate: cert.name, serial: previous.serial, refused: refused.serial })
}

const directoriesOf = <C extends Content>(cert: Managed<C>) => [
  ...new Set(cert.outputs.map((output) => output.directory)),
]

const contextOf = <C extends Content>(cert: Managed<C>, bundle: C, known: Known): ReloadContext => {
  const { serial, fingerprint, notAfter } = bundle
  return {
    certificates: [cert.name],
    serial,
    fingerprint,
    notAfter,
    lifetimeMs: lifetimeOf(bundle),
    isFirst: [...known, cert.store.memory.told].every((one) => one === undefined || one === fingerprint),
    directories: directoriesOf(cert),
  }
}

async function inOrder<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  for (const item of items) await work(item)
}

/** Runs `work` with a signal that aborts `ms` after `signal` does. */
async function withGrace<T>(signal: AbortSignal, ms: number, work: (late: AbortSignal) => Promise<T>): Promise<T> {
  const late = new AbortController()
  const start = () => setTimeout(() => late.abort(signal.reason), ms).unref()
  if (signal.aborted) start()
  else signal.addEventListener('abort', start, { once: true })
  try {
    return await work(late.signal)
  } finally {
    signal.removeEventListener('abort', start)
  }
}
