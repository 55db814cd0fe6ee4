import type { Clock } from '../clock.ts'
import { formatDuration } from '../core/units.ts'
import { SidecarError } from '../errors.ts'

const FAILURES_TO_OPEN = 5
/** Doubling from so little, the circuit is open for no longer than Vault was away before: a restart costs seconds, not a lifetime of a certificate. */
const FIRST_OPEN_MS = 1_000
const LONGEST_OPEN_MS = 300_000

export interface Breaker {
  /**
   * Runs `action` unless the circuit is open: after five failures in a row nobody asks for 1 s, twice as long after each probe that
   * fails too, up to 5 min. One request at a time is the probe. Throws VAULT_CIRCUIT_OPEN at once instead of waiting.
   */
  run<T>(action: () => Promise<T>): Promise<T>
}

/**
 * A circuit breaker on the monotonic clock; one per Vault, shared by all certificates. `isFailure` tells what counts: an answer of Vault,
 * whatever it says, closes the circuit; an abort of ours does neither.
 */
export function createBreaker(
  clock: Pick<Clock, 'elapsed'>,
  isFailure: (error: unknown) => 'failure' | 'answer' | 'neither',
): Breaker {
  let failures = 0
  let openings = 0
  let openUntil = Number.NEGATIVE_INFINITY
  let probing = false

  const settle = (outcome: ReturnType<typeof isFailure>) => {
    if (outcome === 'neither') return
    if (outcome === 'answer') {
      failures = 0
      openings = 0
      return
    }
    failures += 1
    // Requests that were under way when the circuit opened fail as well; they are not a probe.
    if (failures < FAILURES_TO_OPEN || clock.elapsed() < openUntil) return
    openUntil = clock.elapsed() + Math.min(FIRST_OPEN_MS * 2 ** openings, LONGEST_OPEN_MS)
    openings += 1
  }

  return {
    run: async (action) => {
      const isOpen = failures >= FAILURES_TO_OPEN
      const waitMs = openUntil - clock.elapsed()
      if (isOpen && (waitMs > 0 || probing)) throw circuitOpen(failures, waitMs)
      if (isOpen) probing = true
      try {
        const result = await action()
        settle('answer')
        return result
      } catch (error) {
        settle(isFailure(error))
        throw error
      } finally {
        if (isOpen) probing = false
      }
    },
  }
}

const circuitOpen = (failures: number, waitMs: number) =>
  waitMs > 0
    ? new SidecarError(
        'VAULT_CIRCUIT_OPEN',
        `Vault failed ${failures} times in a row; it is asked again in ${formatDuration(waitMs)}`,
        { retryAfterMs: waitMs },
      )
    : new SidecarError(
        'VAULT_CIRCUIT_OPEN',
        `Vault failed ${failures} times in a row; one request is under way to see whether it is back`,
      )
