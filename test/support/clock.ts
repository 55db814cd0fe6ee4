import { setImmediate } from 'node:timers/promises'
import type { Clock } from '../../src/clock.ts'

/** A clock that stands still until told. */
export interface FakeClock extends Clock {
  /** Lets time pass, sleep by sleep, and whatever waits for it run in between. */
  advance(ms: number): Promise<void>
  /** Steps the wall clock alone. */
  step(ms: number): void
}

export function createFakeClock(start: number): FakeClock {
  let elapsed = 0
  let wall = start
  const sleepers = new Set<{ at: number; wake: () => void }>()
  const clock: FakeClock = {
    now: () => wall + elapsed,
    elapsed: () => elapsed,
    random: () => 0.5,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason)
        const sleeper = { at: elapsed + Math.max(ms, 0), wake: resolve }
        sleepers.add(sleeper)
        signal?.addEventListener('abort', () => sleepers.delete(sleeper) && reject(signal.reason), { once: true })
      }),
    step: (ms) => {
      wall += ms
    },
    advance: async (ms) => {
      const end = elapsed + ms
      for (;;) {
        await settle()
        const next = [...sleepers].sort((a, b) => a.at - b.at)[0]
        if (!next || next.at > end) break
        elapsed = Math.max(elapsed, next.at)
        sleepers.delete(next)
        next.wake()
      }
      elapsed = end
      await settle()
    },
  }
  return clock
}

/** Lets promises and real I/O that are under way come to rest. */
const settle = async () => {
  for (let turn = 0; turn < 3; turn++) await setImmediate()
}
