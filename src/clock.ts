/** Milliseconds since 1970, by the wall clock. */
export type Instant = number

/** Time and chance, passed in so that tests can hold both. */
export interface Clock {
  /** Wall clock, ms since 1970. */
  now(): Instant
  /** Monotonic clock in ms; never steps, stands still in suspend. */
  elapsed(): number
  /** Uniform in [0, 1). */
  random(): number
  /** Resolves after `ms`; rejects with the reason of the signal when aborted. `ms` is clamped to [0, 1 h], so that no timer overflows. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
}

/** A delay that Node's 32-bit timers keep: NaN, negative and huge values would fire at once (nodejs/node: TIMEOUT_MAX). */
const safeDelay = (ms: number) => (Number.isNaN(ms) ? 0 : Math.min(Math.max(ms, 0), 3_600_000))

export const systemClock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  random: () => Math.random(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const stop = () => {
        clearTimeout(timer)
        reject(signal?.reason)
      }
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', stop)
        resolve()
      }, safeDelay(ms))
      signal?.addEventListener('abort', stop, { once: true })
    }),
}
