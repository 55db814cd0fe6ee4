import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { delayMs } from '../../src/core/backoff.ts'
import { budgetFreeAt, budgetLeft, countedLifetime, mayIssueAt, recentIssues } from '../../src/core/budget.ts'

const least = () => 0
const most = () => 1 - Number.EPSILON

describe('delayMs', () => {
  it('doubles from the base of its class up to its cap', () => {
    const upper = (failures: number) => Math.round(delayMs({ retry: 'transient', failures }, most))
    assert.deepEqual([1, 2, 3, 4].map(upper), [1500, 2500, 4500, 8500])
    assert.equal(upper(50), 300_500)
  })
  it('never is shorter than half a second', () => {
    assert.equal(delayMs({ retry: 'local', failures: 1 }, least), 500)
  })
  it('leaves room for twenty tries in what is left of a life', () => {
    assert.equal(Math.round(delayMs({ retry: 'transient', failures: 30, remainingMs: 1_200_000 }, most)), 60_500)
    assert.equal(Math.round(delayMs({ retry: 'config', failures: 30, remainingMs: 1000 }, most)), 10_500)
  })
  it('takes Retry-After as a lower bound, itself bounded by a tenth of the life left and by five minutes', () => {
    assert.ok(delayMs({ retry: 'transient', failures: 1, retryAfterMs: 60_000 }, least) >= 60_000)
    assert.ok(delayMs({ retry: 'transient', failures: 1, retryAfterMs: 86_400_000 }, most) <= 301_000)
    assert.ok(delayMs({ retry: 'transient', failures: 1, retryAfterMs: 60_000, remainingMs: 100_000 }, most) <= 11_000)
  })
  it('is finite, positive and never beyond its cap for any input', () => {
    const input = fc.record({
      retry: fc.constantFrom('transient', 'auth', 'config', 'local', 'never'),
      failures: fc.integer({ min: 1, max: 100_000 }),
      remainingMs: fc.option(fc.double({ min: 0, max: 1e13, noNaN: true }), { nil: undefined }),
      retryAfterMs: fc.option(fc.double({ min: 0, max: 1e13, noNaN: true }), { nil: undefined }),
    })
    fc.assert(
      fc.property(input, fc.double({ min: 0, max: 0.999999, noNaN: true }), (backoff, random) => {
        const delay = delayMs(backoff, () => random)
        assert.ok(delay >= 500 && delay <= 1_800_500, String(delay))
      }),
    )
  })
})

describe('the issue budget', () => {
  const HOUR = 3_600_000
  const DAY = 24 * HOUR
  const now = Date.UTC(2026, 0, 1)
  const ago = (...hours: number[]) => hours.map((hour) => now - hour * HOUR).sort()

  const unknown = countedLifetime(undefined, undefined)
  const rows: [string, number[], number, number][] = [
    ['is 5 for a certificate of days with no history', [], 3 * DAY, 5],
    ['is spent by 5 issues within a third of the life', ago(1, 5, 10, 15, 20), 3 * DAY, 0],
    ['forgets what is older than a third of the life', ago(25, 26, 27, 28, 29), 3 * DAY, 5],
    ['is never more than 5 an hour before any life is known', ago(0.1, 0.2), unknown, 3],
    [
      'lets a certificate of a minute be renewed every half minute',
      ago(...Array.from({ length: 100 }, (_, index) => (index + 1) / 120)),
      60_000,
      5,
    ],
    [
      'stops a hot loop of minute certificates',
      [now - 1000, now - 2000, now - 3000, now - 4000, now - 5000],
      60_000,
      0,
    ],
    ['does not count issues from the future (a clock set back)', [now + HOUR, now + 2 * HOUR], 3 * DAY, 5],
  ]
  for (const [claim, issuedAt, lifetime, left] of rows)
    it(claim, () => assert.equal(budgetLeft(issuedAt, now, lifetime), left))

  it('says when there is room again', () => {
    const issuedAt = ago(0.1, 0.2, 0.3, 0.4, 0.5)
    const at = budgetFreeAt(issuedAt, now, unknown)
    assert.equal(budgetLeft(issuedAt, at - 1, unknown), 0)
    assert.ok(budgetLeft(issuedAt, at, unknown) > 0)
  })
  it('goes by an hour with nothing on disk, and by the life asked for under a clock that is ahead', () => {
    const received = (notBefore: number, notAfter: number) => ({ notBefore, notAfter, receivedAt: now, serial: '1' })
    assert.equal(countedLifetime(undefined, 72 * HOUR), 3 * HOUR)
    assert.equal(countedLifetime(undefined, HOUR), HOUR)
    assert.equal(countedLifetime(received(now, now + DAY), undefined), DAY)
    assert.equal(countedLifetime(received(now - HOUR, now + 20_000), HOUR), HOUR)
    assert.equal(countedLifetime(received(now - 30_000, now + 60_000), 72 * HOUR), 90_000, 'a role that cuts it short')
  })
  const life = (lifetimeMs: number) => ({
    asked: (moments: number[], at: number, isInService = true) =>
      mayIssueAt(
        moments.map((moment) => now + moment),
        now + at,
        { lifetimeMs, isInService },
      ) - now,
  })
  it('spreads its last two while a certificate is in service: lost answers must not use it up in a minute', () => {
    const { asked } = life(DAY)
    assert.equal(asked([0, 1000], 2000), 2000)
    assert.equal(asked([0, 1000, 2000], 3000), 2000 + DAY / 150)
    assert.equal(asked([0, 1000, 2000, 3000], 4000), 3000 + DAY / 15)
    assert.equal(asked([0, 1000, 2000], 3 * HOUR), 3 * HOUR)
    assert.equal(asked([0, 1000, 2000], 3000, false), 3000, 'where there is none, nothing is held back')
  })
  it('is never exceeded, and never holds a renewal back for more than four fifteenths of the life', () => {
    const lifetimes = fc.integer({ min: 60_000, max: 72 * HOUR })
    const pauses = fc.array(fc.double({ min: 0, max: 0.2, noNaN: true }), { maxLength: 40 })
    fc.assert(
      fc.property(lifetimes, pauses, (lifetimeMs, shares) => {
        const issuedAt: number[] = []
        let at = now
        for (const share of shares) {
          at += Math.floor(share * lifetimeMs)
          const next = mayIssueAt(recentIssues(issuedAt, at), at, { lifetimeMs, isInService: true })
          assert.ok(next >= at && next - at <= Math.max((lifetimeMs * 4) / 15, lifetimeMs / 3 < HOUR ? 0 : HOUR) + 1)
          at = Math.ceil(next)
          issuedAt.push(at)
        }
        for (const end of issuedAt)
          assert.ok(issuedAt.filter((moment) => moment > end - lifetimeMs / 3 && moment <= end).length <= 5)
      }),
    )
  })
  it('keeps a day of history', () => {
    assert.deepEqual(recentIssues([now - 2 * DAY, now - HOUR, now + HOUR], now), [now - HOUR])
  })
})
