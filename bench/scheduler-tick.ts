import { createScheduler } from '../src/scheduler.ts'
import { createFakeClock, promisesSettled } from '../test/support/clock.ts'

const START = Date.UTC(2026, 0, 1)
const TICK_MS = 5_000
const TICKS = 2_000
const FAR_MS = 10 * 365 * 86_400_000

/** How many are due at each tick. */
export const DUE = 10

/** Microseconds of one tick of the real scheduler, on a fake clock, at which ten of so many certificates are due. */
export async function timeOfTick(waiting: number): Promise<number> {
  const clock = createFakeClock(START, { settle: promisesSettled })
  const stop = new AbortController()
  const scheduler = createScheduler(clock, () => {})
  const ran = scheduler.run(stop.signal)
  // A signal of its own for each, as loops have: one that many listen to is slow by itself.
  const alarms = Array.from({ length: waiting }, () => scheduler.alarm(new AbortController().signal))
  for (const alarm of alarms.slice(DUE)) void alarm.until(START + FAR_MS)
  for (const alarm of alarms.slice(0, DUE)) void everyTick(() => alarm.until(clock.now() + TICK_MS), stop.signal)
  await clock.advance(TICKS * TICK_MS)
  const started = performance.now()
  await clock.advance(TICKS * TICK_MS)
  const took = performance.now() - started
  stop.abort()
  await clock.advance(TICK_MS)
  await ran
  return (1000 * took) / TICKS
}

async function everyTick(wait: () => Promise<void>, signal: AbortSignal) {
  while (!signal.aborted) await wait()
}
