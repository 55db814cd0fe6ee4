import type { Clock, Instant } from './clock.ts'
import type { Bundle } from './core/bundle.ts'
import type { Content } from './core/content.ts'
import {
  failureOf,
  initialState,
  type Outcome,
  type Phase,
  phase,
  type RotationState,
  reasonFor,
  type Task,
} from './core/state.ts'
import type { SidecarError } from './errors.ts'
import type { Sighting } from './inspection.ts'
import type { Emit } from './observe/events.ts'

/** What the loop knows, published after every change. */
export interface Report<C extends Content = Bundle> {
  readonly state: RotationState<C>
  /** What the target was last seen to serve; undefined before the first look, and without a verifier. */
  readonly served: Sighting | undefined
  /** What the loop is about to do. */
  readonly next: Task<C>
}

export type Publish<C extends Content = Bundle> = (report: Report<C>) => void

interface ReporterDeps<C extends Content> {
  readonly clock: Clock
  readonly emit: Emit
  readonly publish: Publish<C>
  /** Made for us, not read where others keep it. */
  readonly isIssued: (content: C) => boolean
}

/** Tells the story of one certificate: states to whoever shows them, events to the observers. Decides nothing. */
export function createReporter<C extends Content>(
  certificate: string,
  { clock, emit, publish, isIssued }: ReporterDeps<C>,
) {
  let told: Phase = 'PENDING'
  let last: Report<C> | undefined

  const show = (state: RotationState<C>, served: Sighting | undefined, next: Task<C>) => {
    const now = phase(state, clock.now())
    last = { state, served, next }
    publish(last)
    if (now !== told) emit('certificate.phase', { certificate, from: told, to: now, reason: reasonFor(state) })
    told = now
  }

  return {
    publish: show,
    /** The store could not be opened, yet or again. What was in service before is so still: a target holds it in memory. */
    unopened(error: SidecarError, attempt: number, nextAt: Instant) {
      const failure = failureOf(error, 'preflight', clock.now())
      const blank = initialState<C>(
        { current: undefined, pending: undefined },
        { renewal: { jitter: 0 }, seed: '' },
        { now: clock.now(), elapsed: 0 },
        0,
      )
      const before = last?.state ?? blank
      show({ ...before, failures: attempt, failure, nextAt }, last?.served, { kind: 'wait', until: nextAt })
      if (attempt === 1)
        emit('rotation.failed', {
          certificate,
          stage: 'preflight',
          attempt,
          nextAt,
          code: error.code,
          message: error.message,
          hint: failure.hint,
        })
    },
    started(task: Exclude<Task<C>, { kind: 'wait' }>, before: RotationState<C>) {
      const startedAt = clock.elapsed()
      // A look at the source is no rotation before it finds something.
      if (task.kind !== 'poll') emit('rotation.started', { certificate, why: task.why })
      return {
        finished(outcome: Outcome<C>, after: RotationState<C>) {
          const durationMs = clock.elapsed() - startedAt
          if (outcome.kind === 'failed') return failed(outcome, before, after)
          if (before.failures > 0) emit('rotation.recovered', { certificate, failures: before.failures })
          if (outcome.kind === 'unchanged') return
          const { serial, notAfter } = outcome.bundle
          const renewAt = after.renewAt ?? notAfter
          if (task.why === 'verify' && !before.rotatedAt)
            emit('certificate.resumed', { certificate, serial, notAfter, renewAt })
          else
            emit('rotation.finished', {
              certificate,
              serial,
              notAfter,
              renewAt,
              verified: outcome.verified,
              issued: task.kind !== 'deliver' && isIssued(outcome.bundle),
              durationMs,
            })
        },
      }
    },
  }

  function failed(
    { error, stage }: Extract<Outcome<C>, { kind: 'failed' }>,
    before: RotationState<C>,
    after: RotationState<C>,
  ) {
    const failure = {
      certificate,
      stage,
      nextAt: after.nextAt,
      code: error.code,
      message: error.message,
    }
    if (after.failures < before.failures) emit('rotation.recovered', { certificate, failures: before.failures })
    if (after.failures <= before.failures) emit('rotation.waiting', failure)
    else emit('rotation.failed', { ...failure, attempt: after.failures, hint: error.kind.hint })
  }
}
