import type { Clock, Instant } from './clock.ts'

/**
 * Longest sleep in s: a hundredth of what a certificate has left when it is renewed, within 1 and 30 s (RELIABILITY §5). A suspend or a
 * stepped clock is noticed in time then, and an idle process is rarely woken: that costs it some milliseconds each time, since by then
 * nothing of it is in any cache (docs/performance.md).
 */
const tickFor = (lifetimeMs: number) => Math.min(Math.max(Math.floor(lifetimeMs / 200_000), 1), LONGEST_TICK_S)
const LONGEST_TICK_S = 30
/** Wall and monotonic clock drifting apart by more than this in one tick is a step. */
const STEP_MS = 1_000

/** The wake-up call of one certificate. */
export interface Alarm {
  /** Resolves when the wall clock reaches `at`, when the clock stepped, or on `ring`, but never before other work had a turn; rejects when its signal aborts. One call at a time. */
  until(at: Instant): Promise<void>
  /** Wakes at once whoever waits, or the next to wait. */
  ring(): void
  /** For the sake of a certificate that is valid for so many ms: the shortest of all sets the tick. */
  mind(lifetimeMs: number): void
}

/** Holds the due times of all certificates; one timer, work per tick is what is due, not what exists. */
export interface Scheduler {
  alarm(signal: AbortSignal): Alarm
  /** Runs until aborted. */
  run(signal: AbortSignal): Promise<void>
  /** Monotonic ms since the last tick: large when the event loop is stuck. */
  sinceTick(): number
}

interface Entry {
  /** Monotonic due time: keeps its order when the wall clock steps, and makes due what a clock set back would hold off. */
  readonly due: number
  readonly wake: () => void
  gone: boolean
}

export function createScheduler(clock: Clock, onStep: (byMs: number) => void): Scheduler {
  const heap = createHeap()
  /** How many certificates want a tick of so many seconds. */
  const wanted = new Map<number, number>()
  let nudge = new AbortController()
  let tickedAt = clock.elapsed()

  return { alarm, run, sinceTick: () => clock.elapsed() - tickedAt }

  async function run(signal: AbortSignal): Promise<void> {
    let wall = clock.now()
    signal.addEventListener('abort', () => nudge.abort(), { once: true })
    while (!signal.aborted) {
      const elapsed = clock.elapsed()
      const step = clock.now() - wall - (elapsed - tickedAt)
      wall = clock.now()
      tickedAt = elapsed
      if (Math.abs(step) > STEP_MS) {
        onStep(Math.round(step))
        for (const entry of heap.drain()) entry.wake()
      }
      for (let entry = heap.peek(); entry && (entry.gone || entry.due <= elapsed); entry = heap.peek())
        heap.pop()?.wake()
      nudge = new AbortController()
      const pause = Math.min((heap.peek()?.due ?? Number.POSITIVE_INFINITY) - elapsed, tickMs())
      if (!signal.aborted) await clock.sleep(pause, nudge.signal).catch(() => breathe(signal))
    }
  }

  /** A nudge comes from work that just ran; everything else gets its turn before the next look. */
  function breathe(signal: AbortSignal): Promise<void> {
    return clock.sleep(0, signal).catch(() => undefined)
  }

  /** Of at most 30 lengths. */
  function tickMs(): number {
    return 1_000 * Math.min(LONGEST_TICK_S, ...wanted.keys())
  }

  function want(tick: number, change: 1 | -1): void {
    const count = (wanted.get(tick) ?? 0) + change
    if (count > 0) wanted.set(tick, count)
    else wanted.delete(tick)
  }

  function alarm(signal: AbortSignal): Alarm {
    let rung = false
    let minded: number | undefined
    let wake = () => {
      rung = true
    }
    return {
      ring: () => wake(),
      mind(lifetimeMs) {
        if (signal.aborted) return
        if (minded === undefined) signal.addEventListener('abort', () => want(minded ?? 0, -1), { once: true })
        else want(minded, -1)
        const before = tickMs()
        minded = tickFor(lifetimeMs)
        want(minded, 1)
        if (tickMs() < before) nudge.abort()
      },
      until: (at) =>
        new Promise((resolve, reject) => {
          if (signal.aborted) return reject(signal.reason)
          if (rung) {
            rung = false
            return resolve()
          }
          const wait = at - clock.now()
          // One that cannot be compared would hold up all others.
          const entry: Entry = {
            due: clock.elapsed() + (Number.isNaN(wait) ? 0 : wait),
            wake: () => finish(resolve),
            gone: false,
          }
          const abort = () => finish(() => reject(signal.reason))
          const finish = (settle: () => void) => {
            if (entry.gone) return
            entry.gone = true
            signal.removeEventListener('abort', abort)
            wake = () => {
              rung = true
            }
            settle()
          }
          wake = entry.wake
          signal.addEventListener('abort', abort, { once: true })
          const first = heap.peek()
          heap.push(entry)
          if (!first || entry.due < first.due) nudge.abort()
        }),
    }
  }
}

/** A binary heap by due time. Entries that are gone stay until they reach the top. */
function createHeap() {
  let items: Entry[] = []
  const due = (index: number) => items[index]?.due ?? Number.POSITIVE_INFINITY
  const swap = (a: number, b: number) => {
    const [first, second] = [items[a], items[b]]
    if (first && second) [items[a], items[b]] = [second, first]
  }
  return {
    peek: () => items[0],
    push(entry: Entry) {
      items.push(entry)
      for (
        let index = items.length - 1, parent = (index - 1) >> 1;
        index > 0 && due(index) < due(parent);
        index = parent, parent = (index - 1) >> 1
      )
        swap(index, parent)
    },
    pop(): Entry | undefined {
      const top = items[0]
      const last = items.pop()
      if (last && items.length > 0) {
        items[0] = last
        for (let index = 0; ; ) {
          const left = 2 * index + 1
          const least = due(left + 1) < due(left) ? left + 1 : left
          if (due(least) >= due(index)) break
          swap(index, least)
          index = least
        }
      }
      return top
    },
    drain(): Entry[] {
      const all = items
      items = []
      return all
    },
  }
}
