import type { Clock } from '../clock.ts'
import { type ChangeWindow, pauseFor } from './window.ts'

export interface WaitOptions {
  readonly splayMs: number
  readonly window?: ChangeWindow | undefined
}

export interface WaitDeps {
  readonly clock: Clock
  /** Told once, where there is something to wait for, how long that will take, in ms; undefined where the window never opens again. */
  readonly onWait: (pauseMs: number | undefined) => void
}

/** The machine may sleep meanwhile, and its clock may be set. */
const TICK_MS = 30_000

/** Resolves when the command may be told of a change that is there now. Throws the reason of the signal when that aborts, and as `pauseFor`. */
export async function untilItMayBeTold(
  { splayMs, window }: WaitOptions,
  { clock, onWait }: WaitDeps,
  signal: AbortSignal,
): Promise<void> {
  const random = clock.random()
  for (let isFirst = true; ; isFirst = false) {
    const pause = pauseFor({ splayMs, window, now: clock.now(), random })
    if (isFirst && pause !== 0) onWait(pause)
    await pass(pause ?? TICK_MS, clock, signal)
    // A clock that was set may have led past the end of the window, and the splay is over only once.
    if (!window || pauseFor({ splayMs: 0, window, now: clock.now(), random }) === 0) return
  }
}

/** By the wall clock or the monotonic one, whichever is first. */
async function pass(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const [due, dueElapsed] = [clock.now() + ms, clock.elapsed() + ms]
  const left = () => Math.min(due - clock.now(), dueElapsed - clock.elapsed())
  signal.throwIfAborted()
  while (left() > 0) await clock.sleep(Math.min(left(), TICK_MS), signal)
}
