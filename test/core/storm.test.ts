import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { randomFrom } from '../../campaigns/kill-run.ts'
import { delayMs } from '../../src/core/backoff.ts'

const SIDECARS = 500
const OUTAGE_MS = 2 * 3_600_000
const CAP_MS = 300_000
/** From here on every pause is drawn below the cap. */
const STEADY_MS = 1_200_000
/** Pauses are 150 s long on average then. */
const RATE = SIDECARS / 150

describe('V34 five hundred sidecars that meet an outage at the same moment', () => {
  for (const seed of [1, 2, 3, 4, 5])
    test(`ask spread out, N/150 a second, and are back within the cap, spread out too (seed ${seed})`, () => {
      const random = randomFrom(seed)
      const tries = Array.from({ length: SIDECARS }, () => triesOfOne(random))
      const steady = tries.flat().filter((at) => at >= STEADY_MS && at < OUTAGE_MS)
      const rate = steady.length / ((OUTAGE_MS - STEADY_MS) / 1000)
      assert.ok(rate <= RATE * 1.03, `${rate} a second`)
      assert.ok(busiest(steady, 60_000) <= RATE * 60 * 1.4, `${busiest(steady, 60_000)} in one minute`)
      assert.ok(busiest(steady, 1_000) <= RATE * 6, `${busiest(steady, 1_000)} in one second`)
      const back = tries.map((one) => one.at(-1) ?? Number.NaN)
      assert.ok(back.every((at) => at >= OUTAGE_MS && at <= OUTAGE_MS + CAP_MS + 500))
      // The pause that the end of the outage falls into is longer than most: they come back a little faster than they asked.
      assert.ok(busiest(back, 1_000) <= RATE * 6, `${busiest(back, 1_000)} back in one second`)
      assert.ok(busiest(back, 60_000) <= RATE * 60 * 2, `${busiest(back, 60_000)} back in one minute`)
    })
})

/** When one sidecar asks, ms since the begin of the outage; the last time it is answered. */
function triesOfOne(random: () => number): number[] {
  const tries = [0]
  for (let at = 0; at < OUTAGE_MS; tries.push(at)) at += delayMs({ retry: 'transient', failures: tries.length }, random)
  return tries
}

/** The most of these moments that fall into one span of this length, of spans that begin at its multiples. */
function busiest(moments: readonly number[], spanMs: number): number {
  const counts = new Map<number, number>()
  for (const at of moments) counts.set(Math.floor(at / spanMs), (counts.get(Math.floor(at / spanMs)) ?? 0) + 1)
  return Math.max(...counts.values())
}
