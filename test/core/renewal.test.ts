import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  emergencyAt,
  lifetimeOf,
  nextRun,
  type RenewalPolicy,
  renewAt,
  startOf,
  unit,
  type Validity,
} from '../../src/core/renewal.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const T0 = Date.UTC(2026, 0, 1)

const lasting = (lifetimeMs: number): Validity => ({
  notBefore: T0 - 30_000,
  receivedAt: T0,
  notAfter: T0 + lifetimeMs,
  serial: '0a',
})
const exactly: RenewalPolicy = { jitter: 0 }

describe('renewAt', () => {
  const rows: [string, number, RenewalPolicy, number][] = [
    ['two thirds of a long life', 90 * DAY, exactly, 60 * DAY],
    ['half of a life of ten days', 10 * DAY, exactly, 5 * DAY],
    ['half of a short life', HOUR, exactly, HOUR / 2],
    ['the fraction asked for', 10 * HOUR, { ...exactly, after: 0.9 }, 9 * HOUR],
    ['the time before the end asked for', 10 * HOUR, { ...exactly, beforeMs: 3 * HOUR }, 7 * HOUR],
    ['never after the emergency begins', 10 * HOUR, { ...exactly, after: 0.99 }, 9.5 * HOUR],
    [
      '1/2 when more time before the end is asked for than there is',
      HOUR,
      { ...exactly, beforeMs: 2 * HOUR },
      HOUR / 2,
    ],
    ['1/2 when all of the lifetime is asked for', HOUR, { ...exactly, beforeMs: HOUR }, HOUR / 2],
    ['the first cron run after the point', 10 * DAY, { ...exactly, after: 0.5, cron: '0 3 * * *' }, 5 * DAY + 3 * HOUR],
    ['each cron run when there is nothing but cron', 10 * DAY, { ...exactly, cron: '0 3 * * *' }, 3 * HOUR],
    ['the emergency when cron runs too late', HOUR, { ...exactly, cron: '0 3 * * *' }, 0.95 * HOUR],
  ]
  for (const [claim, lifetime, policy, expected] of rows) {
    it(`is ${claim}`, () => assert.equal(renewAt(lasting(lifetime), policy, 'seed') - T0, expected))
  }

  it('counts from the receipt, not from a backdated notBefore', () => {
    assert.equal(startOf(lasting(HOUR)), T0)
    assert.equal(lifetimeOf(lasting(HOUR)), HOUR)
  })

  it('is early by at most the jitter, the same at every call, and different for another serial or seed', () => {
    const policy = { jitter: 0.1 }
    const validity = lasting(100 * DAY)
    const at = renewAt(validity, policy, 'seed')
    assert.equal(renewAt(validity, policy, 'seed'), at)
    assert.notEqual(renewAt({ ...validity, serial: '0b' }, policy, 'seed'), at)
    assert.notEqual(renewAt(validity, policy, 'other'), at)
    assert.ok(at <= T0 + (2 / 3) * 100 * DAY && at >= T0 + (2 / 3 - 0.1) * 100 * DAY)
  })

  it('lies within the life of any certificate, whatever the policy', () => {
    const validities = fc.record({
      before: fc.integer({ min: 0, max: 1000 * DAY }),
      life: fc.integer({ min: 1, max: 10_000 * DAY }),
      late: fc.integer({ min: 0, max: 100 * DAY }),
    })
    const policies = fc.record({
      after: fc.option(fc.double({ min: 0.001, max: 0.999, noNaN: true }), { nil: undefined }),
      beforeMs: fc.option(fc.integer({ min: 1, max: 1000 * DAY }), { nil: undefined }),
      cron: fc.option(fc.constantFrom('0 3 * * *', '*/5 * * * *', '0 0 29 2 *'), { nil: undefined }),
      jitter: fc.double({ min: 0, max: 0.5, noNaN: true }),
    })
    fc.assert(
      fc.property(validities, policies, fc.string(), ({ before, life, late }, policy, seed) => {
        const validity = {
          notBefore: T0 - before,
          notAfter: T0 - before + life,
          receivedAt: T0 - before + late,
          serial: 'ff',
        }
        const at = renewAt(validity, policy, seed)
        assert.ok(Number.isSafeInteger(at))
        assert.ok(
          at >= Math.floor(startOf(validity)) && at <= emergencyAt(validity),
          `${at} not in ${startOf(validity)}…${emergencyAt(validity)}`,
        )
      }),
      { numRuns: 300 },
    )
  })

  it('spreads a fleet evenly over the jitter', () => {
    const tenths = new Array<number>(10).fill(0)
    for (let serial = 0; serial < 2000; serial++) {
      const at = renewAt({ ...lasting(100 * DAY), serial: String(serial) }, { jitter: 0.1, after: 0.5 }, 'seed')
      const tenth = Math.floor((T0 + 50 * DAY - at) / DAY)
      tenths[tenth] = (tenths[tenth] ?? 0) + 1
    }
    for (const count of tenths) assert.ok(count > 140 && count < 260, tenths.join(' '))
  })
})

describe('nextRun', () => {
  it('knows time zones', () => {
    assert.equal(nextRun('0 3 * * *', 'Europe/Berlin', T0), T0 + 2 * HOUR)
  })
  it('is undefined when the pattern never runs', () => {
    assert.equal(nextRun('0 0 30 2 *', 'UTC', T0), undefined)
  })
  it('throws on a pattern that is none', () => {
    assert.throws(() => nextRun('every day', 'UTC', T0), TypeError)
  })
})

it('unit is uniform on [0, 1) and depends on its text alone', () => {
  assert.equal(unit('a'), unit('a'))
  const values = Array.from({ length: 1000 }, (_, index) => unit(String(index)))
  assert.ok(values.every((value) => value >= 0 && value < 1))
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  assert.ok(Math.abs(mean - 0.5) < 0.05, String(mean))
})
