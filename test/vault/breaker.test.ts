import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createBreaker } from '../../src/vault/breaker.ts'
import { createFakeClock } from '../support/clock.ts'
import { failure } from './support.ts'

const down = new Error('down')
const refused = new Error('refused')
const aborted = new Error('aborted')

function setUp() {
  const clock = createFakeClock(0)
  const breaker = createBreaker(clock, (error) =>
    error === down ? 'failure' : error === refused ? 'answer' : 'neither',
  )
  let asked = 0
  const run = (outcome?: Error) =>
    breaker.run(async () => {
      asked += 1
      if (outcome) throw outcome
    })
  const fail = async (times: number, error = down) => {
    for (let n = 0; n < times; n += 1) await assert.rejects(run(error), error)
  }
  return { clock, breaker, run, fail, asked: () => asked }
}

const isOpen = async (run: () => Promise<void>) => (await failure(run())).code === 'VAULT_CIRCUIT_OPEN'

describe('the circuit', () => {
  test('opens after five failures in a row, and then nobody is asked', async () => {
    const { run, fail, asked } = setUp()
    await fail(5)
    const error = await failure(run())
    assert.deepEqual([error.code, error.retryAfterMs, asked()], ['VAULT_CIRCUIT_OPEN', 1_000, 5])
  })

  test('stays closed while any answer comes in between, a refusal too', async () => {
    const { run, fail } = setUp()
    await fail(4)
    await fail(1, refused)
    await fail(4)
    await run()
    await fail(4)
    await run()
  })

  test('lets one probe through after a second, and the others fail meanwhile instead of waiting', async () => {
    const { clock, breaker, run, fail, asked } = setUp()
    await fail(5)
    await clock.advance(999)
    assert.ok(await isOpen(run))
    await clock.advance(1)
    const { promise, resolve } = Promise.withResolvers<void>()
    const probe = breaker.run(() => promise)
    assert.ok(await isOpen(run))
    assert.equal(asked(), 5)
    resolve()
    await probe
    await fail(4)
    await run()
  })

  test('stays open twice as long after each failed probe, 5 min at most', async () => {
    const { clock, run, fail } = setUp()
    await fail(5)
    for (const seconds of [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]) {
      await clock.advance(seconds * 1000 - 1)
      assert.ok(await isOpen(run), `${seconds} s`)
      await clock.advance(1)
      await fail(1)
    }
  })

  test('is closed by an answer that was still under way when it opened', async () => {
    const { breaker, run, fail } = setUp()
    const { promise, resolve } = Promise.withResolvers<void>()
    const slow = breaker.run(() => promise)
    await fail(5)
    resolve()
    await slow
    await run()
  })

  test('does not take an abort for a failure or an answer, and lets the next one be the probe', async () => {
    const { clock, run, fail } = setUp()
    await fail(4)
    await fail(3, aborted)
    await run(down).catch(() => undefined)
    assert.ok(await isOpen(run))
    await clock.advance(1_000)
    await fail(1, aborted)
    await run()
  })

  test('keeps to its time when the wall clock is set back', async () => {
    const { clock, run, fail } = setUp()
    await fail(5)
    clock.step(-86_400_000)
    await clock.advance(1_000)
    await run()
  })
})
