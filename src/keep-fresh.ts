import type { Clock } from './clock.ts'
import { delayMs } from './core/backoff.ts'
import type { Bundle } from './core/bundle.ts'
import type { Content } from './core/content.ts'
import {
  decide,
  evolve,
  hurried,
  initialState,
  isHeldOff,
  noticed,
  type Outcome,
  type Policy,
  type RotationState,
  type Stage,
  type Task,
} from './core/state.ts'
import { type ErrorCode, toSidecarError } from './errors.ts'
import { createInspection } from './inspection.ts'
import type { Emit } from './observe/events.ts'
import type { Held } from './outputs/store.ts'
import { createReporter, type Publish } from './report.ts'
import { createRevocationWatch } from './revocation-watch.ts'
import { type Assignment, type Managed, rotate } from './rotation.ts'
import type { Alarm } from './scheduler.ts'

/** What a person or an event asks of the loop: a rotation now, or only that backoff be put aside. */
export type LoopRequest<C extends Content = Bundle> =
  | { readonly kind: 'rotate'; readonly reason: string; readonly done: (outcome: Outcome<C>) => void }
  | { readonly kind: 'retry' }

export interface LoopDeps<C extends Content = Bundle> {
  readonly clock: Clock
  readonly emit: Emit
  readonly alarm: Alarm
  /** Requests that arrived; whoever adds one rings the alarm. */
  readonly requests: LoopRequest<C>[]
  readonly publish: Publish<C>
  /** At the start of the process a directory that is not fit to be used ends it; later it is tried again like any other trouble. */
  readonly isStart: boolean
  /** Whether the whole process ends with this loop, and nobody uses the certificate after that. */
  readonly isEnd?: () => boolean
}

/**
 * Keeps one certificate fresh: waits or is woken, rotates, evolves, reports. The only place that waits and retries.
 * Owns the store from here on. Rejects with the reason of `signal` when that aborts, and with a SidecarError of exit
 * code 78 when a directory is not fit to be used at all.
 */
export async function keepFresh<C extends Content>(
  cert: Managed<C>,
  deps: LoopDeps<C>,
  signal: AbortSignal,
): Promise<void> {
  await using store = cert.store
  const { clock, alarm, requests } = deps
  const times = () => ({ now: clock.now(), elapsed: clock.elapsed(), random: clock.random })
  const policy = () => policyOf(cert, store.memory.seed)
  const mismatch = rememberLast((bundle: C) => mismatchOf(cert, bundle))
  const { source } = cert
  const isIssued = (content: C) => source.isIssued?.(content) ?? source.issues
  const reporter = createReporter(cert.name, { ...deps, isIssued })
  const inspection = createInspection(cert, deps, signal)
  const revocation = createRevocationWatch(cert, deps, signal)
  // Before the store is closed.
  await using _end = { [Symbol.asyncDispose]: async () => (deps.isEnd?.() ? revocation.end() : undefined) }

  const held = await openStore(cert, deps, reporter)
  let isRung = false
  await using _watching = cert.source.polling?.watch?.(() => {
    isRung = true
    alarm.ring()
  })
  let state = initialState(worthKeeping(held, mismatch), policy(), times(), cert.startupGraceMs)
  /** Why a rotation was asked for that could not be begun yet; tried again like any other, within the budget. */
  let wanted = held.current && store.memory.condemned.includes(held.current.fingerprint) ? REVOKED : undefined
  for (;;) {
    const rotations = requests.splice(0).flatMap((request) => {
      state = hurried(state, times())
      return request.kind === 'rotate' ? [request] : []
    })
    if (isRung) state = noticed(state, times())
    isRung = false
    const [forced] = rotations
    wanted = forced?.reason ?? wanted
    const due = decide(state, times(), state.serving && mismatch(state.serving))
    const isWanted = forced || (wanted !== undefined && !isHeldOff(state, times()))
    const task: Task<C> = isWanted ? { kind: 'renew', why: wanted ?? '' } : due
    reporter.publish(state, inspection.served(), task)
    if (state.serving) alarm.mind(state.serving.notAfter - state.serving.receivedAt)
    if (task.kind === 'wait') {
      await alarm.until(Math.min(task.until, inspection.dueAt(state), revocation.dueAt(state)))
      if (clock.now() >= inspection.dueAt(state)) state = await inspection.look(state)
      if (clock.now() >= revocation.dueAt(state)) {
        const { mustReplace, isNews } = await revocation.look(state)
        if (mustReplace) wanted ??= REVOKED
        if (isNews && mustReplace) state = hurried(state, times())
      }
      continue
    }
    const pass = reporter.started(task, state)
    const outcome = await rotate(
      cert,
      assignmentOf(task, { forced: forced !== undefined, wanted, pending: state.pending }),
      deps,
      signal,
    )
    if (outcome.kind !== 'failed' || !BEFORE_ISSUING.has(outcome.stage)) wanted = undefined
    // What the pass has just checked need not be checked again.
    if (outcome.kind === 'served') mismatch.know(outcome.bundle, undefined)
    if (signal.aborted) for (const rotation of rotations) rotation.done(outcome)
    signal.throwIfAborted()
    state = evolve(state, outcome, policy(), times())
    inspection.learn(outcome, state)
    pass.finished(outcome, state)
    for (const rotation of rotations) rotation.done(outcome)
    if (outcome.kind === 'failed' && outcome.error.code === 'VOLUME_REPLACED') {
      const found = await openStore(cert, { ...deps, isStart: false }, reporter)
      state = moved(state, initialState(worthKeeping(found, mismatch), policy(), times(), cert.startupGraceMs))
    }
  }
}

/** Why a rotation is wanted of what must not be in service any longer. */
const REVOKED = 'revoked'

/** When a rotation is due, by the config and the source. */
export function policyOf<C extends Content>(
  { renewal, source: { polling } }: Pick<Managed<C>, 'renewal' | 'source'>,
  seed: string,
): Policy<C> {
  if (!polling) return { renewal, seed }
  const { renewAt } = polling
  return {
    renewal,
    seed,
    pollAfterMs: (serving) => polling.afterMs(serving),
    ...(renewAt && { advice: (serving) => renewAt(serving) }),
  }
}

/** The directory is another one now: what it lacks is delivered again from memory, and nothing is issued for it. */
function moved<C extends Content>(before: RotationState<C>, found: RotationState<C>): RotationState<C> {
  const { targetSeen, failures, failure } = before
  const inMemory = before.pending ?? before.serving
  const isThere = inMemory === undefined || inMemory.fingerprint === found.serving?.fingerprint
  return { ...found, pending: isThere ? found.pending : inMemory, targetSeen, failures, failure }
}

/** Opens the store, for as long as it takes: another certferry may hold the lock, the volume may be away. Nothing is asked of Vault meanwhile. */
async function openStore<C extends Content>(
  cert: Managed<C>,
  { clock, alarm, isStart }: LoopDeps<C>,
  reporter: Pick<ReturnType<typeof createReporter<C>>, 'unopened'>,
): Promise<Held<C>> {
  for (let failures = 1; ; failures++) {
    try {
      return await cert.store.open()
    } catch (thrown) {
      const error = toSidecarError(thrown)
      if (isStart && error.kind.exit === 78) throw error
      const nextAt =
        clock.now() +
        (error.code === 'LOCK_HELD' ? LOCK_RETRY_MS : delayMs({ retry: error.kind.retry, failures }, clock.random))
      reporter.unopened(error, failures, nextAt)
      await alarm.until(nextAt)
    }
  }
}

/** The lock frees itself when its holder dies; taking over should not take long. */
const LOCK_RETRY_MS = 1_000

/** Drops a bundle kept for a retry that is no longer what the config asks for. */
const worthKeeping = <C extends Content>(
  { current, pending }: Held<C>,
  mismatch: (bundle: C) => string | undefined,
): Held<C> => ({
  current,
  pending: pending && mismatch(pending) === undefined ? pending : undefined,
})

/** Failures of the check that time brings, not the config; the loop knows them by the clock. */
const BY_TIME: ReadonlySet<ErrorCode> = new Set([
  'CERTIFICATE_EXPIRED',
  'NOT_YET_VALID',
  'TTL_TOO_SHORT',
  'TRUST_PENDING',
  'OCSP_UNAVAILABLE',
])

/** Why this bundle is not what the config asks for now: another issuer, other names, another key, an untrusted chain. */
export function mismatchOf<C extends Content>(
  { source, assertUsable }: Pick<Managed<C>, 'source' | 'assertUsable'>,
  bundle: C,
): string | undefined {
  if (bundle.origin !== source.origin && !source.alternatives?.includes(bundle.origin))
    return source.otherwise ?? `issued by ${bundle.origin}, wanted ${source.origin}`
  try {
    assertUsable(bundle, bundle.receivedAt)
    return undefined
  } catch (thrown) {
    const error = toSidecarError(thrown)
    return BY_TIME.has(error.code) ? undefined : error.message
  }
}

/** Remembers the answer for the last bundle asked about: it cannot change while bundle and config stay. */
function rememberLast<C extends Content, T>(answer: (bundle: C) => T) {
  let last: { bundle: C; value: T } | undefined
  const know = (bundle: C, value: T) => {
    last = { bundle, value }
    return value
  }
  const remembered = (bundle: C): T => (last?.bundle === bundle ? last.value : know(bundle, answer(bundle)))
  return Object.assign(remembered, { know })
}

/** Stages at which nothing was issued for sure. */
const BEFORE_ISSUING: ReadonlySet<Stage> = new Set(['preflight', 'fetch'])

const assignmentOf = <C extends Content>(
  task: Exclude<Task<C>, { kind: 'wait' }>,
  { forced, wanted = '', pending }: { forced: boolean; wanted: string | undefined; pending: C | undefined },
): Assignment<C> => ({
  ...(task.kind === 'deliver' ? { bundle: task.bundle, askFirst: task.bundle === pending } : {}),
  ...(task.kind === 'poll' ? { polled: task.bundle } : {}),
  forced,
  oneWay: /^(?:compromised?|revoked)\b/i.test(wanted),
})
