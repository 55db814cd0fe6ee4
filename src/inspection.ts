import type { Clock, Instant } from './clock.ts'
import type { Bundle } from './core/bundle.ts'
import type { Content } from './core/content.ts'
import { lifetimeOf } from './core/renewal.ts'
import { doubted, type Outcome, type RotationState } from './core/state.ts'
import { toSidecarError } from './errors.ts'
import type { Emit } from './observe/events.ts'
import type { Managed } from './rotation.ts'
import type { Served } from './verifiers/verifier.ts'

/** What the target was last seen to serve, and when. */
export type Sighting = Served & { readonly at: Instant }

/** The look between rotations: are the files as we left them, does the target still serve them? */
export interface Inspection<C extends Content = Bundle> {
  served(): Sighting | undefined
  dueAt(state: RotationState<C>): Instant
  /** Repairs files and probes the target. Where either is not as it should be, the state says so, and the loop delivers again. */
  look(state: RotationState<C>): Promise<RotationState<C>>
  /** A rotation proved what is served: that was a look as well. */
  learn(outcome: Outcome<C>, state: RotationState<C>): void
}

const SHORTEST_MS = 5_000
const LONGEST_MS = 60_000

export function createInspection<C extends Content>(
  cert: Managed<C>,
  { clock, emit }: { clock: Clock; emit: Emit },
  signal: AbortSignal,
): Inspection<C> {
  let lookedAt = clock.elapsed()
  let sighting: Sighting | undefined
  return { served: () => sighting, dueAt, look, learn }

  /** Twenty looks in a lifetime, between 5 s and 60 s apart; counted on the monotonic clock. */
  function dueAt({ serving }: RotationState<C>): Instant {
    const interval = serving ? Math.min(Math.max(lifetimeOf(serving) / 20, SHORTEST_MS), LONGEST_MS) : LONGEST_MS
    return Math.ceil(clock.now() + (lookedAt + interval - clock.elapsed()))
  }

  async function look(state: RotationState<C>): Promise<RotationState<C>> {
    lookedAt = clock.elapsed()
    if (!state.serving) return state
    try {
      for (const repair of await cert.store.repair()) emit('tamper.repaired', { certificate: cert.name, ...repair })
      await lookAtCopies(state.serving)
    } catch {
      // The delivery that follows meets the same trouble, with its stage, its report and its backoff.
      return doubted(state, { now: clock.now(), elapsed: clock.elapsed() })
    }
    return probe(state)
  }

  async function lookAtCopies(serving: C): Promise<void> {
    for (const { place, publish } of cert.remotes) {
      try {
        const what = await publish(serving, signal)
        if (what) emit('tamper.repaired', { certificate: cert.name, path: place, what })
      } catch (thrown) {
        // Where nobody answers, nothing is known to be wrong.
        if (toSidecarError(thrown).kind.retry !== 'transient') throw thrown
      }
    }
  }

  /** A target that serves something else is told again. One that is down is given until the next look: it may be restarting. */
  async function probe(state: RotationState<C>): Promise<RotationState<C>> {
    const { serving } = state
    if (cert.verifiers.length === 0 || !serving) return state
    const wasDown = sighting?.up === false
    const seen = await Promise.all(cert.verifiers.map((verifier) => verifier.probe(signal, serving)))
    const isGood = (served: Served) => served.up && served.fingerprint === serving.fingerprint
    // Of several targets the one that is wrong is worth telling of.
    const worst = seen.find((served) => served.up && !isGood(served)) ?? seen.find((served) => !served.up) ?? seen[0]
    if (!worst) return state
    sighting = { ...worst, at: clock.now() }
    const matches = isGood(worst)
    emit('certificate.probed', { certificate: cert.name, notAfter: worst.up ? worst.notAfter : undefined, matches })
    const isFine = matches || (!worst.up && !wasDown)
    return isFine ? state : doubted(state, { now: clock.now(), elapsed: clock.elapsed() })
  }

  function learn(outcome: Outcome<C>, { serving }: RotationState<C>): void {
    if (outcome.kind === 'unchanged') return
    lookedAt = clock.elapsed()
    if (outcome.kind !== 'served' || !outcome.verified || !serving) return
    sighting = {
      up: true,
      fingerprint: serving.fingerprint,
      serial: serving.serial,
      notAfter: serving.notAfter,
      at: clock.now(),
    }
  }
}
