import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { limiter } from '../../src/vault/limit.ts'
import { forever } from './support.ts'

/** Actions that run until they are let go. */
function setUp(max: number) {
  const limit = limiter(max)
  const running: { name: string; end: (error?: Error) => void }[] = []
  const run = (name: string, signal: AbortSignal = forever) =>
    limit(
      () =>
        new Promise<string>((resolve, reject) => {
          running.push({ name, end: (error) => (error ? reject(error) : resolve(name)) })
        }),
      signal,
    )
  const names = async () => {
    await setImmediate()
    return running.map(({ name }) => name).join('')
  }
  return { run, running, names }
}

describe('a limit of two', () => {
  test('lets two run, and the next in the order they came', async () => {
    const { run, running, names } = setUp(2)
    const all = Promise.all(['a', 'b', 'c', 'd'].map((name) => run(name)))
    assert.equal(await names(), 'ab')
    running.shift()?.end()
    assert.equal(await names(), 'bc')
    running.pop()?.end()
    assert.equal(await names(), 'bd')
    for (const { end } of running) end()
    assert.deepEqual(await all, ['a', 'b', 'c', 'd'])
  })

  test('gives the place of one that failed to the next', async () => {
    const { run, running, names } = setUp(1)
    const first = run('a')
    const second = run('b')
    assert.equal(await names(), 'a')
    running.shift()?.end(new Error('x'))
    await assert.rejects(first, /^Error: x$/)
    assert.equal(await names(), 'b')
    running.shift()?.end()
    await second
  })

  test('forgets one that was aborted while waiting, at once and without losing a place', async () => {
    const { run, running, names } = setUp(1)
    const stop = new AbortController()
    const reason = new Error('stop')
    const first = run('a')
    const second = run('b', stop.signal)
    const third = run('c')
    stop.abort(reason)
    await assert.rejects(second, reason)
    assert.equal(await names(), 'a')
    running.shift()?.end()
    await first
    assert.equal(await names(), 'c')
    running.shift()?.end()
    await third
  })

  test('loses no place when the turn and the abort come together, in whatever order', async () => {
    for (let ticks = 0; ticks < 20; ticks += 1) {
      const limit = limiter(1)
      const stop = new AbortController()
      const { promise, resolve } = Promise.withResolvers<void>()
      const all = [limit(() => promise, forever), limit(async () => undefined, stop.signal)]
      resolve()
      for (let tick = 0; tick < ticks; tick += 1) await undefined
      stop.abort(new Error('stop'))
      await Promise.allSettled(all)
      const next = limit(async () => 'ran', forever)
      assert.equal(await Promise.race([next, setImmediate('waits for ever')]), 'ran', `after ${ticks} ticks`)
    }
  })

  test('refuses one that is aborted already', async () => {
    const { run, names } = setUp(1)
    await assert.rejects(run('a', AbortSignal.abort(new Error('stop'))), /stop/)
    assert.equal(await names(), '')
  })
})
