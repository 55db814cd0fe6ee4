import { setImmediate } from 'node:timers/promises'
import type { Clock, Instant } from '../../src/clock.ts'

/** A clock that stands still until told. */
export interface FakeClock extends Clock {
  /** Lets time pass, sleep by sleep, and whatever waits for it run in between. */
  advance(ms: number): Promise<void>
  /** Steps the wall clock alone. */
  step(ms: number): void
  /** The machine sleeps: the wall clock goes on, the monotonic one stands still. */
  suspend(ms: number): void
  /** The time by a clock that nobody steps: that of everybody else. */
  truth(): Instant
  /** Sleeps begun up to now, and those that have not ended. */
  readonly sleeps: number
  readonly sleeping: number
}

export interface FakeClockOptions {
  readonly random?: () => number
  /** Lets what was woken come to rest. */
  readonly settle?: () => Promise<void>
  /** A busy machine: every sleep ends this much late. */
  readonly lateMs?: number
}

export function createFakeClock(
  start: number,
  { random = () => 0.5, settle = ioSettled, lateMs = 0 }: FakeClockOptions = {},
): FakeClock {
  let elapsed = 0
  let suspended = 0
  let stepped = 0
  let sleeps = 0
  const sleepers = new Set<Sleeper>()
  const truth = () => start + elapsed + suspended
  return {
    now: () => truth() + stepped,
    elapsed: () => elapsed,
    random,
    truth,
    get sleeps() {
      return sleeps
    },
    get sleeping() {
      return sleepers.size
    },
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason)
        sleeps += 1
        const abort = () => sleepers.delete(sleeper) && reject(signal?.reason)
        const wake = () => {
          signal?.removeEventListener('abort', abort)
          resolve()
        }
        const sleeper = { at: elapsed + (ms > 0 ? ms + lateMs : 0), wake }
        sleepers.add(sleeper)
        signal?.addEventListener('abort', abort, { once: true })
      }),
    step: (ms) => {
      stepped += ms
    },
    suspend: (ms) => {
      suspended += ms
    },
    advance: async (ms) => {
      const end = elapsed + ms
      for (;;) {
        await settle()
        const next = earliest(sleepers)
        if (!next || next.at > end) break
        elapsed = Math.max(elapsed, next.at)
        sleepers.delete(next)
        next.wake()
      }
      elapsed = end
      await settle()
    },
  }
}

interface Sleeper {
  readonly at: number
  readonly wake: () => void
}

function earliest(sleepers: ReadonlySet<Sleeper>): Sleeper | undefined {
  let first: Sleeper | undefined
  for (const sleeper of sleepers) if (!first || sleeper.at < first.at) first = sleeper
  return first
}

/** Promises and real I/O that are under way come to rest. */
const ioSettled = async () => {
  for (let turn = 0; turn < 3; turn++) await setImmediate()
}

/** Promises alone come to rest, many times quicker: the queue of `nextTick` is looked at when no promise is left to go on. */
export const promisesSettled = () => new Promise<void>((resolve) => process.nextTick(resolve))
