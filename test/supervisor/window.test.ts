import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { pauseFor } from '../../src/supervisor/window.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const at = (text: string) => Date.parse(text)
const night = { cron: '0 3 * * *', timezone: 'Europe/Stockholm', durationMs: HOUR }

describe('a change is told', () => {
  const rows: [title: string, options: Parameters<typeof pauseFor>[0], pause: number | undefined][] = [
    ['at once, where nothing else is asked', { splayMs: 0, now: 0, random: 0.9 }, 0],
    ['within the splay', { splayMs: 10_000, now: 5, random: 0.5 }, 5_000],
    [
      'when the window opens, in its own time zone',
      { splayMs: 0, window: night, now: at('2026-01-10T01:00:00Z'), random: 0.5 },
      HOUR,
    ],
    [
      'when the window opens, in summer an hour earlier by UTC',
      { splayMs: 0, window: night, now: at('2026-07-10T00:00:00Z'), random: 0.5 },
      HOUR,
    ],
    ['at once while it is open', { splayMs: 0, window: night, now: at('2026-01-10T02:59:59.999Z'), random: 0.5 }, 0],
    ['at once in its first moment', { splayMs: 0, window: night, now: at('2026-01-10T02:00:00Z'), random: 0.5 }, 0],
    [
      'the next day once it has shut',
      { splayMs: 0, window: night, now: at('2026-01-10T03:00:00Z'), random: 0.5 },
      23 * HOUR,
    ],
    [
      'within the splay after the window opens',
      { splayMs: 20 * MINUTE, window: night, now: at('2026-01-10T01:00:00Z'), random: 0.5 },
      HOUR + 10 * MINUTE,
    ],
    [
      'before the window shuts, whatever the splay',
      { splayMs: 5 * HOUR, window: night, now: at('2026-01-10T02:40:00Z'), random: 0.5 },
      10 * MINUTE,
    ],
    [
      'within the splay where windows follow one another',
      {
        splayMs: 3 * HOUR,
        window: { cron: '0 * * * *', timezone: 'UTC', durationMs: HOUR },
        now: at('2026-01-10T02:40:00Z'),
        random: 0.5,
      },
      90 * MINUTE,
    ],
    [
      'on the day that has no such hour, just after the gap',
      { splayMs: 0, window: { ...night, cron: '30 2 * * *' }, now: at('2026-03-29T00:00:00Z'), random: 0 },
      HOUR,
    ],
    [
      'never where the window never opens again',
      {
        splayMs: 0,
        window: { cron: '0 0 3 1 1 * 2020', durationMs: HOUR },
        now: at('2026-01-10T00:00:00Z'),
        random: 0,
      },
      undefined,
    ],
  ]
  for (const [title, options, pause] of rows) test(title, () => assert.equal(pauseFor(options), pause))

  test('always while the window is open, and within the splay of its opening', () => {
    const window = fc.record({
      cron: fc.constantFrom('0 3 * * *', '*/7 * * * *', '30 2 * * 0', '0 0 1 * *'),
      timezone: fc.constantFrom('UTC', 'Europe/Stockholm', 'America/New_York'),
      durationMs: fc.integer({ min: 1_000, max: 4 * HOUR }),
    })
    const options = fc.record({
      splayMs: fc.integer({ min: 0, max: 6 * HOUR }),
      window,
      now: fc.integer({ min: at('2026-01-01T00:00:00Z'), max: at('2027-01-01T00:00:00Z') }),
      random: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
    })
    fc.assert(
      fc.property(options, ({ splayMs, window, now, random }) => {
        const pause = pauseFor({ splayMs, window, now, random })
        assert.ok(pause !== undefined && pause >= 0)
        // Open: asked at that moment without a splay, there is nothing to wait for.
        assert.equal(pauseFor({ splayMs: 0, window, now: now + pause, random }), 0)
        const earliest = pauseFor({ splayMs: 0, window, now, random }) ?? 0
        assert.ok(pause >= earliest && pause <= earliest + splayMs)
      }),
      { numRuns: 300 },
    )
  })
})

test('a pattern that is none is refused', () => {
  const window = { cron: 'whenever', durationMs: HOUR }
  assert.throws(() => pauseFor({ splayMs: 0, window, now: 0, random: 0 }), TypeError)
})
