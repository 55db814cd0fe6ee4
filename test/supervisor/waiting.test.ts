import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { untilItMayBeTold, type WaitOptions } from '../../src/supervisor/waiting.ts'
import { createFakeClock } from '../support/clock.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const window = { cron: '0 3 * * *', timezone: 'UTC', durationMs: HOUR }

/** What happens to a change at this time of 10 January. */
function changeAt(time: string, options: WaitOptions) {
  const start = Date.parse(`2026-01-10T${time}Z`)
  const clock = createFakeClock(start)
  const stop = new AbortController()
  const waits: (number | undefined)[] = []
  const seen: { toldAt: string | undefined; error: unknown } = { toldAt: undefined, error: undefined }
  void untilItMayBeTold(options, { clock, onWait: (pause) => waits.push(pause) }, stop.signal).then(
    () => {
      seen.toldAt = new Date(clock.now()).toISOString().slice(5, -5)
    },
    (error: unknown) => {
      seen.error = error
    },
  )
  return { clock, stop, waits, seen }
}

describe('the command is told of a change', () => {
  const rows: [title: string, time: string, options: WaitOptions, toldAt: string, waits: number[]][] = [
    ['at once, where nothing else is asked', '12:00:00', { splayMs: 0 }, '01-10T12:00:00', []],
    ['once, after a splay of seconds', '12:00:00', { splayMs: 20_000 }, '01-10T12:00:10', [10_000]],
    ['once, after a splay of hours', '12:00:00', { splayMs: 4 * HOUR }, '01-10T14:00:00', [2 * HOUR]],
    ['when the window opens', '12:00:00', { splayMs: 0, window }, '01-11T03:00:00', [15 * HOUR]],
    [
      'after the splay once it is open',
      '12:00:00',
      { splayMs: 20 * MINUTE, window },
      '01-11T03:10:00',
      [15 * HOUR + 10 * MINUTE],
    ],
    [
      'after the splay while it is open, not at its end',
      '03:05:00',
      { splayMs: 20 * MINUTE, window },
      '01-10T03:15:00',
      [10 * MINUTE],
    ],
  ]
  for (const [title, time, options, toldAt, waits] of rows)
    test(title, async () => {
      const change = changeAt(time, options)
      await change.clock.advance(48 * HOUR)
      assert.deepEqual([change.seen.toldAt, change.waits], [toldAt, waits])
    })

  test('when the machine wakes up after its moment, where the window is still open', async () => {
    const { clock, seen } = changeAt('12:00:00', { splayMs: 0, window })
    await clock.advance(MINUTE)
    clock.suspend(15 * HOUR + 10 * MINUTE)
    await clock.advance(MINUTE)
    assert.match(seen.toldAt ?? '', /^01-11T03:1[12]:/)
  })

  test('in the next window, where the machine slept through one', async () => {
    const { clock, seen } = changeAt('12:00:00', { splayMs: 0, window })
    await clock.advance(MINUTE)
    clock.suspend(18 * HOUR)
    await clock.advance(MINUTE)
    assert.equal(seen.toldAt, undefined)
    await clock.advance(24 * HOUR)
    assert.equal(seen.toldAt, '01-12T03:00:00')
  })

  test('after its splay, also where the clock is set back', async () => {
    const { clock, seen } = changeAt('12:00:00', { splayMs: 2 * MINUTE })
    clock.step(-5 * HOUR)
    await clock.advance(MINUTE)
    assert.equal(seen.toldAt, '01-10T07:01:00')
  })

  test('never, where the window never opens again; that is said once', async () => {
    const past = { ...window, cron: '0 0 3 1 1 * 2020' }
    const { clock, seen, waits } = changeAt('12:00:00', { splayMs: 0, window: past })
    await clock.advance(HOUR)
    assert.deepEqual([seen.toldAt, waits], [undefined, [undefined]])
  })

  test('not after a stop, whose reason is thrown', async () => {
    const { clock, stop, seen } = changeAt('12:00:00', { splayMs: 0, window })
    await clock.advance(MINUTE)
    const reason = new Error('stopped')
    stop.abort(reason)
    await clock.advance(24 * HOUR)
    assert.deepEqual(seen, { toldAt: undefined, error: reason })
    assert.equal(clock.sleeping, 0)
  })
})
