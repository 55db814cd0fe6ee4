import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createScheduler } from '../src/scheduler.ts'
import { createFakeClock } from './support/clock.ts'

const T0 = Date.UTC(2026, 0, 1)

function start() {
  const clock = createFakeClock(T0)
  const stop = new AbortController()
  const steps: number[] = []
  const scheduler = createScheduler(clock, (byMs) => steps.push(byMs))
  const ran = scheduler.run(stop.signal)
  return { clock, stop, steps, scheduler, ran }
}

describe('the scheduler', () => {
  it('wakes each alarm when it is due, in order, whatever the order they were set in', async () => {
    const { clock, stop, scheduler, ran } = start()
    const woken: number[] = []
    const minutes = [50, 3, 17, 3, 40, 1, 29, 8, 33, 21]
    const all = minutes.map((minute) =>
      scheduler
        .alarm(stop.signal)
        .until(T0 + minute * 60_000)
        .then(() => woken.push(minute)),
    )
    await clock.advance(49 * 60_000)
    assert.deepEqual(
      woken,
      minutes.filter((minute) => minute < 50).sort((a, b) => a - b),
    )
    await clock.advance(60_000)
    await Promise.all(all)
    stop.abort()
    await ran
  })

  it('wakes an alarm set earlier than all others while it sleeps', async () => {
    const { clock, stop, scheduler, ran } = start()
    const late = scheduler.alarm(stop.signal).until(T0 + 4_000)
    await clock.advance(100)
    let woken = false
    const early = scheduler
      .alarm(stop.signal)
      .until(T0 + 1_000)
      .then(() => {
        woken = true
      })
    await clock.advance(950)
    assert.equal(woken, true)
    await clock.advance(4_000)
    await Promise.all([late, early])
    stop.abort()
    await ran
  })

  it('C3 lets nothing due be missed by a suspend: the wall clock jumps, the monotonic clock stood still', async () => {
    const { clock, stop, steps, scheduler, ran } = start()
    const due = scheduler.alarm(stop.signal).until(T0 + 86_400_000)
    clock.step(2 * 86_400_000)
    await clock.advance(30_000)
    await due
    assert.deepEqual(steps, [2 * 86_400_000])
    stop.abort()
    await ran
  })

  it('C2 wakes by the monotonic clock when the wall clock was set back', async () => {
    const { clock, stop, scheduler, ran } = start()
    const alarm = scheduler.alarm(stop.signal)
    const due = alarm.until(T0 + 3_600_000)
    await clock.advance(10_000)
    clock.step(-86_400_000)
    await clock.advance(30_000)
    await due // woken by the step, to look again
    let woken = false
    const again = alarm.until(clock.now() + 60_000).then(() => {
      woken = true
    })
    await clock.advance(75_000)
    assert.equal(woken, true)
    await again
    stop.abort()
    await ran
  })

  it('ticks every 30 s, and sooner for the sake of certificates that do not live long', async () => {
    const { clock, stop, scheduler, ran } = start()
    const sleepsIn = async (ms: number) => {
      const before = clock.sleeps
      await clock.advance(ms)
      return clock.sleeps - before
    }
    assert.equal(await sleepsIn(300_000), 10)
    const [day, hour, minute] = [86_400_000, 3_600_000, 60_000].map((lifetimeMs) => {
      const own = new AbortController()
      const alarm = scheduler.alarm(AbortSignal.any([own.signal, stop.signal]))
      return { own, mind: (ms = lifetimeMs) => alarm.mind(ms) }
    })
    day?.mind()
    assert.equal(await sleepsIn(300_000), 10)
    hour?.mind()
    await clock.advance(0)
    assert.equal(await sleepsIn(180_000), 10)
    minute?.mind()
    minute?.mind()
    await clock.advance(0)
    assert.equal(await sleepsIn(60_000), 60)
    minute?.mind(600_000)
    await clock.advance(10_000)
    assert.equal(await sleepsIn(60_000), 20)
    minute?.own.abort()
    await clock.advance(10_000)
    assert.equal(await sleepsIn(180_000), 10)
    hour?.own.abort()
    await clock.advance(30_000)
    assert.equal(await sleepsIn(300_000), 10)
    stop.abort()
    await ran
  })

  it('takes a time that is none for past, and lets it hold up nobody', async () => {
    const { clock, stop, scheduler, ran } = start()
    const woken: string[] = []
    const { signal } = stop
    void scheduler
      .alarm(signal)
      .until(Number.NaN)
      .then(() => woken.push('none'))
    void scheduler
      .alarm(signal)
      .until(T0 + 1_000)
      .then(() => woken.push('soon'))
    await clock.advance(2_000)
    assert.deepEqual(woken, ['none', 'soon'])
    stop.abort()
    await ran
  })

  it('rings at once, also for who is not waiting yet', async () => {
    const { stop, scheduler, ran } = start()
    const alarm = scheduler.alarm(stop.signal)
    alarm.ring()
    await alarm.until(T0 + 1e9)
    const waiting = alarm.until(T0 + 1e9)
    alarm.ring()
    await waiting
    stop.abort()
    await ran
  })

  it('rejects when aborted, and a stale entry does not disturb the alarm that was set again', async () => {
    const { clock, stop, scheduler, ran } = start()
    const alarm = scheduler.alarm(stop.signal)
    const first = alarm.until(T0 + 2_000)
    alarm.ring()
    await first
    const second = alarm.until(T0 + 10_000)
    await clock.advance(3_000)
    stop.abort(new Error('stop'))
    await assert.rejects(second, /stop/)
    await assert.rejects(alarm.until(T0 + 20_000), /stop/)
    await ran
  })
})
