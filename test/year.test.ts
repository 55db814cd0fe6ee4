import assert from 'node:assert/strict'
import { test } from 'node:test'
import { randomFrom } from '../campaigns/kill-run.ts'
import { systemClock } from '../src/clock.ts'
import { phase } from '../src/core/state.ts'
import { createScheduler } from '../src/scheduler.ts'
import { createFakeClock } from './support/clock.ts'
import { bundleAt, createWorld, T0, type World, type WorldOptions } from './support/harness.ts'
import { DAY, HOUR, liveThrough, MINUTE } from './support/year.ts'

/** A loop that runs on a fake clock, until it is disposed. */
function running(options: WorldOptions, before: (world: World) => void = () => {}): World & AsyncDisposable {
  const world = createWorld(options)
  before(world)
  world.start()
  return Object.assign(world, { [Symbol.asyncDispose]: () => world.stop() })
}
const phaseOf = ({ report, clock }: World) => phase(report().state, clock.now())

test('C1 a clock set forward by two hours renews what became due at the next tick, and once', async () => {
  await using world = running({ lifeMs: 3 * HOUR })
  await world.clock.advance(MINUTE)
  world.clock.step(2 * HOUR)
  await world.clock.advance(31_000)
  assert.deepEqual([world.issued.length, world.target.serves, phaseOf(world)], [2, 'c2', 'ACTIVE'])
  assert.ok(world.events.some(({ name }) => name === 'clock.stepped'))
})

test('C2 a clock set back by two days puts no renewal off, and what came too early is in service once the clock is right', async () => {
  await using world = running({ lifeMs: DAY })
  await world.clock.advance(MINUTE)
  world.clock.step(-2 * DAY)
  await world.clock.advance(13 * HOUR)
  assert.deepEqual(
    [world.issued.length, world.target.serves],
    [2, 'c1'],
    'asked for in time, and held until it is valid',
  )
  assert.ok(world.asked === 2, 'no storm')
  world.clock.step(2 * DAY)
  await world.clock.advance(31_000)
  assert.deepEqual([world.issued.length, world.target.serves, phaseOf(world)], [2, 'c2', 'ACTIVE'])
})

test('C2 a restart while the clock is behind waits no longer than the life of what is on disk', async () => {
  await using world = running({ lifeMs: DAY })
  await world.clock.advance(MINUTE)
  await world.stop()
  world.clock.step(-2 * DAY)
  world.start()
  await world.clock.advance(13 * HOUR)
  assert.equal(world.issued.length, 2)
})

test('C3 a suspend past the renewal is noticed at the first tick after it', async () => {
  await using world = running({ lifeMs: DAY })
  await world.clock.advance(MINUTE)
  world.clock.suspend(13 * HOUR)
  await world.clock.advance(31_000)
  assert.deepEqual([world.issued.length, world.target.serves, phaseOf(world)], [2, 'c2', 'ACTIVE'])
})

test('C4 a clock five minutes off that of Vault costs no certificate and lets none expire', async () => {
  for (const skew of [5 * MINUTE, -5 * MINUTE]) {
    await using world = running({ lifeMs: HOUR }, ({ clock }) => clock.step(skew))
    await world.clock.advance(6 * MINUTE)
    assert.deepEqual([world.issued.length, phaseOf(world)], [1, 'ACTIVE'], `${skew}`)
    for (let hour = 0; hour < 24; hour++) {
      await world.clock.advance(HOUR)
      const served = world.issued.find(({ fingerprint }) => fingerprint === world.target.serves)
      assert.ok(served && served.notAfter > world.clock.truth(), `expired by the clock of Vault, ${skew}`)
    }
    // One that is not valid yet by our clock comes into service when it is, and half of its life is counted from there.
    assert.ok(world.issued.length >= 41 && world.issued.length <= 60, `${world.issued.length} issued`)
  }
})

test('C4 a clock ahead by nearly a whole life takes certificates of an hour for such of seconds, and issues no more for that', async () => {
  await using world = running({ lifeMs: HOUR }, ({ clock }) => clock.step(HOUR - 20_000))
  await world.clock.advance(DAY / 2)
  // Five in a third of an hour.
  assert.ok(world.issued.length <= 36 * 5 + 5, `${world.issued.length} issued`)
})

test('C5 no due time makes a timer fire at once: far away, past or without end', async () => {
  const stop = new AbortController()
  const asked: number[] = []
  const clock = createFakeClock(T0)
  const recording = { ...clock, sleep: (ms: number, signal?: AbortSignal) => clock.sleep(asked.push(ms) && ms, signal) }
  const scheduler = createScheduler(recording, () => {})
  const ran = scheduler.run(stop.signal)
  const far = scheduler.alarm(stop.signal).until(Date.UTC(9999, 11, 31))
  const never = scheduler.alarm(stop.signal).until(Number.POSITIVE_INFINITY)
  const past = scheduler.alarm(stop.signal).until(T0 - DAY)
  await clock.advance(HOUR)
  await past
  assert.ok(asked.length < 1_000 && asked.every((ms) => ms <= 30_000), `${asked.length} sleeps in an hour`)
  stop.abort()
  await Promise.allSettled([far, never])
  await ran

  let woke = 0
  const sleeps = [2 ** 31, 1e300, Number.POSITIVE_INFINITY].map((ms) =>
    systemClock.sleep(ms, stop.signal).then(
      () => (woke += 1),
      () => {},
    ),
  )
  await Promise.all([systemClock.sleep(20), systemClock.sleep(-1), ...sleeps])
  assert.equal(woke, 0)
})

test('C6 lives without end, of ten seconds, or over already, are neither overflow nor storm', async () => {
  const end = Date.UTC(9999, 11, 31, 23, 59, 59)
  await using endless = running({ lifeMs: end - T0 })
  await endless.clock.advance(DAY)
  assert.deepEqual([endless.asked, phaseOf(endless)], [1, 'ACTIVE'])
  assert.ok(Number.isSafeInteger(endless.report().state.renewAt))

  await using short = running({ lifeMs: 10_000 })
  await short.clock.advance(10 * MINUTE)
  assert.ok(short.asked >= 119 && short.asked <= 122, `${short.asked} asked for in ten minutes`)
  assert.equal(phaseOf(short), 'ACTIVE')

  await using late = running({ lifeMs: HOUR }, (world) => {
    world.disk.current = {
      ...bundleAt(world.clock, 'old', HOUR),
      notBefore: T0 - DAY,
      receivedAt: T0 - DAY,
      notAfter: T0,
    }
  })
  await late.clock.advance(MINUTE)
  assert.deepEqual([late.asked, late.target.serves, phaseOf(late)], [1, 'c1', 'ACTIVE'])
})

const YEARS = [
  { what: 'a year with certificates of a day', lifeMs: DAY, days: 365, lateMs: 5 * MINUTE, seed: 20_260_101 },
  { what: 'two weeks with certificates of an hour', lifeMs: HOUR, days: 14, lateMs: 20_000, seed: 7 },
] as const
for (const { what, seed, ...options } of YEARS) {
  test(`${what}, with stepped clocks, suspends, outages and restarts, keeps every promise`, async (t) => {
    const { complaints, ...year } = await liveThrough({ ...options, random: randomFrom(seed) })
    t.diagnostic(JSON.stringify({ seed, ...year }))
    assert.deepEqual(complaints, [])
    assert.ok(year.issued <= year.mostIssued, 'more was issued than the rule and the clocks explain')
    const { count, least, most } = year.intervals
    // Late by no more than the clock is, on the whole and to the last: nothing drifts.
    const slack = (options.lateMs + 10_000) / (options.lifeMs / 2)
    assert.ok(count > 20 && least >= 1 && most <= 1 + slack, 'renewals drift')
    // Sleeps are 20 s late: no more rounds than those.
    assert.ok(year.turns < 4_300 && year.sleeps < 30_000, 'a busy loop')
    assert.deepEqual(year.sleeping, [1, 0], 'timers are left')
  })
}
