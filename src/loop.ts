import type { Clock } from './clock.ts'
import type { Bundle } from './core/bundle.ts'
import type { Content } from './core/content.ts'
import type { Snapshot } from './core/snapshot.ts'
import type { TrustSet } from './core/trust.ts'
import { SidecarError, toSidecarError } from './errors.ts'
import { keepFresh, type LoopRequest } from './keep-fresh.ts'
import type { Emit } from './observe/events.ts'
import type { Report } from './report.ts'
import type { Managed } from './rotation.ts'
import type { Scheduler } from './scheduler.ts'

/** A certificate or a secret being kept fresh by a loop of its own. */
export interface Loop<C extends Content = Bundle> {
  readonly cert: Managed<C>
  /** The last report; undefined until the store has been looked at. */
  readonly report: Report<C> | undefined
  ask(request: LoopRequest<C>): void
  /** Ends this loop alone; resolves when its files are no longer touched. */
  stop(): Promise<void>
  /** Resolves when the loop has ended, for whatever cause. */
  readonly ended: Promise<void>
}

/** Of any kind. */
export type AnyLoop = Loop | Loop<Snapshot> | Loop<TrustSet>

export interface LoopParts<C extends Content = Bundle> {
  readonly clock: Clock
  readonly emit: Emit
  readonly scheduler: Scheduler
  readonly signal: AbortSignal
  readonly changed: (loop: Loop<C>) => void
  /** False for certificates that a reload of the config added or changed. */
  readonly isStart: boolean
  /** False where what was issued stays in use after the end. */
  readonly endsUse?: boolean
  /** The loop cannot go on. */
  readonly fatal: (error: Error) => void
}

/** A defect may pass when the loop starts over with what is on disk; five in a row do not. After a calm hour the count starts again. */
const DEFECTS_TOLERATED = 5
const CALM_MS = 3_600_000
const PAUSE_MS = 5_000

export function startLoop<C extends Content>(makeCert: () => Managed<C>, parts: LoopParts<C>): Loop<C> {
  const own = new AbortController()
  const signal = AbortSignal.any([parts.signal, own.signal])
  const alarm = parts.scheduler.alarm(signal)
  const requests: LoopRequest<C>[] = []
  let report: Report<C> | undefined
  let cert = makeCert()

  const loop: Loop<C> = {
    get cert() {
      return cert
    },
    get report() {
      return report
    },
    ask: (request) => {
      requests.push(request)
      alarm.ring()
    },
    stop: () => {
      own.abort(new DOMException('this certificate is no longer run with this config', 'AbortError'))
      return ended
    },
    get ended() {
      return ended
    },
  }
  const publish = (next: Report<C>) => {
    report = next
    parts.changed(loop)
  }
  const ended = run().finally(dismiss)
  return loop

  /** Whoever still waits for a rotation is told that there will be none. */
  function dismiss(): void {
    const error = new SidecarError('STOPPED', `${cert.name} was stopped before it was rotated`)
    for (const request of requests.splice(0))
      if (request.kind === 'rotate')
        request.done({
          kind: 'failed',
          error,
          stage: 'preflight',
          inHand: undefined,
          onDisk: undefined,
          targetUp: false,
        })
  }

  async function run(): Promise<void> {
    const isEnd = () => parts.signal.aborted && parts.endsUse === true
    for (let defects = 1; ; defects++) {
      const startedAt = parts.clock.elapsed()
      try {
        return await keepFresh(
          cert,
          { clock: parts.clock, emit: parts.emit, alarm, requests, publish, isStart: parts.isStart, isEnd },
          signal,
        )
      } catch (thrown) {
        if (signal.aborted) return
        const error = toSidecarError(thrown)
        if (parts.clock.elapsed() - startedAt > CALM_MS) defects = 1
        if (error.code !== 'BUG' || defects >= DEFECTS_TOLERATED) return parts.fatal(error)
        const nextAt = parts.clock.now() + PAUSE_MS
        parts.emit('rotation.failed', {
          certificate: cert.name,
          stage: 'preflight',
          attempt: defects,
          nextAt,
          code: error.code,
          message: error.message,
          hint: error.kind.hint,
        })
        await parts.clock.sleep(PAUSE_MS, signal).catch(() => {})
        cert = makeCert()
      }
    }
  }
}
