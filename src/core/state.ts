import { type ErrorCode, type RetryClass, reasonOf, type SidecarError } from '../errors.ts'
import { delayMs } from './backoff.ts'
import type { Bundle } from './bundle.ts'
import { type Content, type Instant, isSameContent } from './content.ts'
import { emergencyAt, lifetimeOf, type RenewalPolicy, renewAt, startOf } from './renewal.ts'

/** Stages of a rotation, in order; `rollback` in place of success. */
export type Stage = 'preflight' | 'fetch' | 'check' | 'write' | 'reload' | 'verify' | 'rollback'

export type Phase = 'PENDING' | 'ACTIVE' | 'DEGRADED' | 'EXPIRED'
export const PHASES: readonly Phase[] = ['PENDING', 'ACTIVE', 'DEGRADED', 'EXPIRED']

/** Whether the target serves the set on disk: `none` nobody is asked, `pending` not known yet. */
export type Verification = 'none' | 'pending' | 'verified' | 'failed'

/** A failure since the last complete success. */
export interface Failure {
  readonly code: ErrorCode
  readonly retry: RetryClass
  readonly message: string
  readonly hint: string
  readonly stage: Stage
  readonly at: Instant
}

/** Facts about one certificate or secret; what follows from them and the time (its phase, what to do next) is derived, never stored. */
export interface RotationState<C extends Content = Bundle> {
  /** The set on disk. */
  readonly serving: C | undefined
  /**
   * When it is due by the wall clock, and by the monotonic clock, which a clock set back does not hold off. What only the source renews,
   * when it has something new, has neither.
   */
  readonly renewAt: Instant | undefined
  readonly renewElapsed: number | undefined
  /** When the source is looked at next, by both clocks; undefined where it is not polled. */
  readonly pollAt: Instant | undefined
  readonly pollElapsed: number | undefined
  /** Fetched and good, not in service yet: tried again before anything is issued. */
  readonly pending: C | undefined
  readonly verification: Verification
  readonly verifiedAt: Instant | undefined
  /** Failed passes since the last complete success. */
  readonly failures: number
  readonly failure: Failure | undefined
  /** Passes that found no target yet; not failures. */
  readonly waits: number
  /** What they found instead. */
  readonly awaited: Failure | undefined
  /**
   * Nothing is tried before this time, unless forced: by the monotonic clock, so that no clock set back holds it off, or by the wall
   * clock, so that nobody waits for what a clock set right has brought already; whichever is first.
   */
  readonly nextElapsed: number
  readonly nextAt: Instant
  /** The target answered at least once in this process's life. */
  readonly targetSeen: boolean
  /** Until here, on the monotonic clock, a target that never answered is no failure. */
  readonly graceEndsElapsed: number
  readonly rotatedAt: Instant | undefined
}

/** What one pass of the flow came to. */
export type Outcome<C extends Content = Bundle> =
  | { readonly kind: 'served'; readonly bundle: C; readonly verified: boolean; readonly targetUp: boolean }
  /** The source has nothing new: what is in service may have been prolonged, and no target was told. */
  | { readonly kind: 'unchanged'; readonly bundle: C }
  | {
      readonly kind: 'failed'
      readonly error: SidecarError
      readonly stage: Stage
      /** Fetched and good: worth another try. */
      readonly inHand: C | undefined
      /** The set now on disk, where the pass changed it. */
      readonly onDisk: C | undefined
      readonly targetUp: boolean
    }

/** What to do next. */
export type Task<C extends Content = Bundle> =
  | { readonly kind: 'wait'; readonly until: Instant }
  /** Write, reload and verify a bundle that is there already. Nothing is issued. */
  | { readonly kind: 'deliver'; readonly bundle: C; readonly why: string }
  /** Fetch a new one. */
  | { readonly kind: 'renew'; readonly why: string }
  /** Ask the source whether what is in service is still the latest. */
  | { readonly kind: 'poll'; readonly bundle: C; readonly why: string }

/** Both clocks, read once: wall in ms since 1970, monotonic in ms. */
export interface Times {
  readonly now: Instant
  readonly elapsed: number
}

export interface Policy<C extends Content = Bundle> {
  readonly renewal: RenewalPolicy
  /** How long until the source is looked at again, ms; undefined where it issues by itself only when asked. */
  readonly pollAfterMs?: ((serving: C) => number) | undefined
  /** When the source itself would have it renewed, in place of `renewal`; undefined where it does not say. Absent where only a look renews. */
  readonly advice?: ((serving: C) => Instant | undefined) | undefined
  /** Random, made once per certificate and persisted. */
  readonly seed: string
}

/** Stages after the commit: a failure there leaves it open what the target serves. */
const DELIVERING: ReadonlySet<Stage> = new Set(['reload', 'verify', 'rollback'])

/** The state of a certificate whose store was just opened. What is on disk is delivered (verified) first, before anything is issued. */
export function initialState<C extends Content>(
  held: { current: C | undefined; pending: C | undefined },
  policy: Policy<C>,
  times: Times,
  graceMs: number,
): RotationState<C> {
  return {
    ...dueTimes(undefined, held.current, policy, times),
    // What was there before is looked at as soon as it is delivered.
    ...polled(0, policy, times),
    pending: held.pending,
    verification: 'pending',
    verifiedAt: undefined,
    failures: 0,
    failure: undefined,
    waits: 0,
    awaited: undefined,
    ...after(0, times),
    targetSeen: false,
    graceEndsElapsed: times.elapsed + graceMs,
    rotatedAt: undefined,
  }
}

/** The set on disk and when it is due; kept as it is while the set stays the same. */
function dueTimes<C extends Content>(
  state: RotationState<C> | undefined,
  serving: C | undefined,
  policy: Policy<C>,
  { now, elapsed }: Times,
): Pick<RotationState<C>, 'serving' | 'renewAt' | 'renewElapsed'> {
  if (!serving || (policy.pollAfterMs && !policy.advice))
    return { serving, renewAt: undefined, renewElapsed: undefined }
  const at = policy.advice?.(serving) ?? renewAt(serving, policy.renewal, policy.seed)
  if (state?.serving?.fingerprint === serving.fingerprint && state.renewAt === at)
    return { serving, renewAt: at, renewElapsed: state.renewElapsed }
  // A clock by which its life has not begun is behind, and must not put the renewal off by that.
  return { serving, renewAt: at, renewElapsed: elapsed + (at - Math.max(now, startOf(serving))) }
}

const polled = <C extends Content>(ms: number, { pollAfterMs }: Policy<C>, { now, elapsed }: Times) =>
  pollAfterMs
    ? { pollAt: Math.ceil(now + ms), pollElapsed: elapsed + ms }
    : { pollAt: undefined, pollElapsed: undefined }

export const phase = (state: RotationState<Content>, now: Instant): Phase =>
  !state.serving
    ? 'PENDING'
    : now >= state.serving.notAfter
      ? 'EXPIRED'
      : isDegraded(state, now)
        ? 'DEGRADED'
        : 'ACTIVE'

const OVERDUE_MS = 60_000
const FAILURES_TOLERATED = 3

/** Local trouble (disk, reload, verify) counts at once; Vault may fail a while before anyone needs to hear of it. */
function isDegraded({ failure, failures, renewAt, serving }: RotationState<Content>, now: Instant): boolean {
  if (!failure || !serving) return false
  if (failure.code === 'NOT_YET_VALID') return false
  if (failure.retry === 'local' || failure.code === 'CA_EXPIRING' || failures >= FAILURES_TOLERATED) return true
  return renewAt !== undefined && now >= renewAt + Math.min(OVERDUE_MS, lifetimeOf(serving) / 20)
}

/** Why a certificate is not simply ACTIVE, as metric label and for people; undefined where all is well. */
export const reasonFor = (state: RotationState<Content>): string | undefined =>
  state.failure && reasonOf(state.failure.code)

/** What to do now. `mismatch` says in words why the set on disk is not what the config asks for, if it is not. */
export function decide<C extends Content>(
  state: RotationState<C>,
  { now, elapsed }: Times,
  mismatch: string | undefined,
): Task<C> {
  if (isHeldOff(state, { now, elapsed }))
    return { kind: 'wait', until: Math.min(state.nextAt, Math.ceil(now + state.nextElapsed - elapsed)) }
  if (state.pending && isWorthServing(state.pending, now))
    return { kind: 'deliver', bundle: state.pending, why: 'retry' }
  const { serving, renewAt, renewElapsed, pollAt, pollElapsed } = state
  if (!serving) return { kind: 'renew', why: 'missing' }
  if (mismatch) return { kind: 'renew', why: `config: ${mismatch}` }
  // Of what is polled only a part may be over; the rest has to be kept alive meanwhile.
  if (now >= serving.notAfter)
    return renewAt !== undefined ? { kind: 'renew', why: 'expired' } : { kind: 'poll', bundle: serving, why: 'expired' }
  const isDue = isReached(now, renewAt) || isReached(elapsed, renewElapsed)
  const isUnproven = state.verification === 'pending' || state.verification === 'failed'
  // What is not valid yet at half of its life, by our clock, may never be.
  const isWaste = isDue && state.failure?.code === 'NOT_YET_VALID'
  if (isUnproven && !isWaste && isWorthServing(serving, now))
    return { kind: 'deliver', bundle: serving, why: state.failures > 0 ? 'retry' : 'verify' }
  if (renewAt !== undefined && now >= emergencyAt(serving)) return { kind: 'renew', why: 'emergency' }
  // Whoever advises may put the renewal off: asked first, such as after a restart, unless that has failed.
  const isLookDue = isReached(now, pollAt) || isReached(elapsed, pollElapsed)
  if (isDue && !(isLookDue && !state.failure)) return { kind: 'renew', why: 'due' }
  if (isUnproven) return { kind: 'deliver', bundle: serving, why: 'retry' }
  if (isLookDue) return { kind: 'poll', bundle: serving, why: 'poll' }
  const at = Math.min(renewAt ?? serving.notAfter, pollAt ?? serving.notAfter, serving.notAfter)
  const atElapsed = Math.min(renewElapsed ?? Number.POSITIVE_INFINITY, pollElapsed ?? Number.POSITIVE_INFINITY)
  return { kind: 'wait', until: Math.min(at, Math.ceil(now + atElapsed - elapsed)) }
}

const isReached = (time: number, due: number | undefined) => due !== undefined && time >= due

/** A failure, or something awaited, is not tried again yet. */
export const isHeldOff = ({ nextElapsed, nextAt }: RotationState<Content>, { now, elapsed }: Times): boolean =>
  elapsed < nextElapsed && now < nextAt

/** Material in hand is used while at least a third of its life is left; after that a new one is asked for. */
const isWorthServing = (bundle: Content, now: Instant) => bundle.notAfter - now >= lifetimeOf(bundle) / 3

export function evolve<C extends Content>(
  state: RotationState<C>,
  outcome: Outcome<C>,
  policy: Policy<C>,
  { random, ...times }: Times & { random: () => number },
): RotationState<C> {
  const { now } = times
  if (outcome.kind === 'unchanged') return unchanged(state, outcome.bundle, policy, times)
  const targetSeen = state.targetSeen || outcome.targetUp
  if (outcome.kind === 'served') return served(state, outcome, policy, times)
  const { error, stage, inHand, onDisk } = outcome
  const serving = onDisk ?? state.serving
  const fresh = isSameContent(inHand, serving) ? undefined : inHand
  const isNew = onDisk !== undefined && onDisk.fingerprint !== state.serving?.fingerprint
  const common = {
    ...state,
    targetSeen,
    ...dueTimes(state, serving, policy, times),
    pending: fresh && serving && comesTooLate(error, fresh, serving) ? undefined : fresh,
    rotatedAt: isNew ? now : state.rotatedAt,
  }
  const remainingMs = serving && Math.max(serving.notAfter - now, 0)
  if (isAwaited(error, { ...state, targetSeen }, times) && serving) {
    const waits = state.waits + 1
    const pause = Math.min(delayMs({ retry: 'local', failures: waits, remainingMs }, random), 5_000)
    return {
      ...common,
      // What kept it from being obtained and written before is over.
      ...(isNew && { failures: 0, failure: undefined }),
      verification: 'pending',
      waits,
      awaited: failureOf(error, stage, now),
      ...after(Math.min(pause, Math.max(state.graceEndsElapsed - times.elapsed, 500)), times),
    }
  }
  const failures = state.failures + 1
  const failure = failureOf(error, stage, now)
  const pause = retryDelay(error, common.pending ?? serving, failures, now, random, remainingMs)
  return {
    ...common,
    verification: DELIVERING.has(stage) ? 'failed' : state.verification,
    failures,
    failure,
    ...after(isTooEarly(error, common, now) ? Math.min(pause, untilDue(common, times)) : pause, times),
  }
}

/** Its life begins when that of the one in service is about to end, as by a Vault whose clock is ahead: another one is asked for. */
const comesTooLate = (error: SidecarError, fresh: Content, serving: Content) =>
  error.code === 'NOT_YET_VALID' && fresh.notBefore + NOT_YET_VALID_MARGIN_MS > emergencyAt(serving)

/** What is on disk is not valid yet: a restart while the clock is behind. The renewal does not wait for that. */
const isTooEarly = (error: SidecarError, { pending, serving }: RotationState<Content>, now: Instant) =>
  error.code === 'NOT_YET_VALID' && !pending && serving !== undefined && serving.notBefore > now

const untilDue = (
  { renewElapsed = Number.POSITIVE_INFINITY }: Pick<RotationState<Content>, 'renewElapsed'>,
  times: Times,
) => Math.max(renewElapsed - times.elapsed, 1000)

export const failureOf = (error: SidecarError, stage: Stage, at: Instant): Failure => ({
  code: error.code,
  retry: error.kind.retry,
  message: error.message,
  hint: error.kind.hint,
  stage,
  at,
})

/** Whatever went wrong before, the source has answered since, and what it has is in service. */
const unchanged = <C extends Content>(
  state: RotationState<C>,
  serving: C,
  policy: Policy<C>,
  times: Times,
): RotationState<C> => ({
  ...state,
  ...dueTimes(state, serving, policy, times),
  ...polled(policy.pollAfterMs?.(serving) ?? 0, policy, times),
  failures: 0,
  failure: undefined,
  ...after(0, times),
})

function served<C extends Content>(
  state: RotationState<C>,
  { bundle, verified, targetUp }: Extract<Outcome<C>, { kind: 'served' }>,
  policy: Policy<C>,
  times: Times,
): RotationState<C> {
  return {
    ...state,
    ...dueTimes(state, bundle, policy, times),
    // What was on disk is delivered first, and looked at then.
    ...(isSameContent(bundle, state.serving) ? {} : polled(policy.pollAfterMs?.(bundle) ?? 0, policy, times)),
    pending: undefined,
    verification: verified ? 'verified' : 'none',
    verifiedAt: verified ? times.now : undefined,
    failures: 0,
    failure: undefined,
    waits: 0,
    awaited: undefined,
    ...after(0, times),
    targetSeen: state.targetSeen || targetUp,
    rotatedAt: bundle.fingerprint === state.serving?.fingerprint ? state.rotatedAt : times.now,
  }
}

/** A target that was never there yet: not an error for the start-up grace. */
const isAwaited = (
  error: SidecarError,
  state: Pick<RotationState<Content>, 'targetSeen' | 'graceEndsElapsed'>,
  { elapsed }: Times,
): boolean =>
  (error.code === 'TARGET_DOWN' || error.code === 'RELOAD_TARGET_MISSING') &&
  !state.targetSeen &&
  elapsed < state.graceEndsElapsed

const after = (ms: number, { now, elapsed }: Times) => ({ nextAt: Math.ceil(now + ms), nextElapsed: elapsed + ms })

const NOT_YET_VALID_MARGIN_MS = 5_000

function retryDelay(
  error: SidecarError,
  bundle: Content | undefined,
  failures: number,
  now: Instant,
  random: () => number,
  remainingMs: number | undefined,
): number {
  if (error.code === 'NOT_YET_VALID' && bundle && bundle.notBefore > now)
    return bundle.notBefore + NOT_YET_VALID_MARGIN_MS - now
  return delayMs({ retry: error.kind.retry, failures, remainingMs, retryAfterMs: error.retryAfterMs }, random)
}

/** A look between rotations found files or target not as they should be: deliver again. Trouble already known keeps its backoff. */
export const doubted = <C extends Content>(state: RotationState<C>, times: Times): RotationState<C> =>
  state.verification === 'failed' ? state : { ...state, verification: 'pending', ...after(0, times) }

/**
 * The source says that there may be something new: it is looked at now, whatever was to be waited for. Where that failed again and again,
 * not before some seconds have passed, for what changes all the time and is never good.
 */
export function noticed<C extends Content>(state: RotationState<C>, times: Times): RotationState<C> {
  const { failures, failure, pollAt } = state
  const apart = Math.min(Math.max(failures - RINGS_FREE, 0) * 1_000, MOST_APART_MS)
  const pause = Math.min(Math.max((failure?.at ?? times.now) + apart - times.now, 0), apart)
  const isSooner = isHeldOff(state, { now: times.now + pause, elapsed: times.elapsed + pause })
  return {
    ...state,
    ...(isSooner && after(pause, times)),
    ...(pollAt !== undefined && { pollAt: times.now, pollElapsed: times.elapsed }),
  }
}

const RINGS_FREE = 3
const MOST_APART_MS = 30_000

/** Someone asked for a try now: backoff is put aside. */
export const hurried = <C extends Content>(state: RotationState<C>, times: Times): RotationState<C> =>
  isHeldOff(state, times) ? { ...state, ...after(0, times) } : state
