import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Clock, systemClock } from '../../src/clock.ts'
import { Secret } from '../../src/core/secret.ts'
import { coalesce, targetKey } from '../../src/reloaders/coalesce.ts'
import type { ReloadContext, Reloader } from '../../src/reloaders/reloader.ts'
import { context, never } from './support.ts'

/** Time stands still until `pass` moves it. */
function createTime() {
  let now = 0
  const sleepers = new Set<{ at: number; wake: () => void }>()
  const clock: Clock = {
    ...systemClock,
    elapsed: () => now,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        const sleeper = { at: now + ms, wake: resolve }
        sleepers.add(sleeper)
        signal?.addEventListener('abort', () => reject(signal.reason))
      }),
  }
  const pass = async (ms: number) => {
    now += ms
    for (const sleeper of sleepers) if (sleeper.at <= now && sleepers.delete(sleeper)) sleeper.wake()
    await settle()
  }
  return { clock, pass }
}

const settle = () => new Promise((resolve) => setImmediate(resolve))

/** A reloader whose reloads end when `ends[n]` is called. */
function createTarget() {
  const calls: ReloadContext[] = []
  const ends: ((error?: Error) => void)[] = []
  const reloader: Reloader = {
    kind: 'fake',
    description: 'a target',
    testCommand: undefined,
    inspect: async () => 'look',
    test: async () => {},
    reload: (batch, signal) =>
      new Promise((resolve, reject) => {
        calls.push(batch)
        ends.push((error) => (error ? reject(error) : resolve()))
        signal.addEventListener('abort', () => reject(signal.reason))
      }),
  }
  return { reloader, calls, ends }
}

const named = (name: string): ReloadContext => ({
  ...context,
  certificates: [name],
  directories: ['/tls', `/tls/${name}`],
  serial: name,
})

/** What became of a promise. */
function track(promise: Promise<void>) {
  const result = { state: 'pending' }
  promise.then(
    () => {
      result.state = 'done'
    },
    (error: Error) => {
      result.state = error.message
    },
  )
  return result
}

test('R22 twenty certificates with one target cause one reload, which knows them all', async () => {
  const { clock, pass } = createTime()
  const { reloader, calls, ends } = createTarget()
  const shared = coalesce(reloader, clock)
  const names = Array.from({ length: 20 }, (_, index) => `c${index}`)
  const results = names.map((name) => track(shared.reload(named(name), never)))
  await pass(499)
  assert.equal(calls.length, 0)
  await pass(1)
  assert.equal(calls.length, 1)
  assert.deepEqual(calls[0]?.certificates, names)
  assert.deepEqual(calls[0]?.directories, ['/tls', ...names.map((name) => `/tls/${name}`)])
  assert.equal(calls[0]?.serial, 'c19')
  assert.ok(results.every(({ state }) => state === 'pending'))
  ends[0]?.()
  await settle()
  assert.ok(results.every(({ state }) => state === 'done'))
})

test('R22 waits for quiet, but no longer than the maximum', async () => {
  const { clock, pass } = createTime()
  const { reloader, calls } = createTarget()
  const shared = coalesce(reloader, clock)
  for (let at = 0; at < 5_000; at += 400) {
    track(shared.reload(context, never))
    await pass(at === 4_800 ? 199 : 400)
    assert.equal(calls.length, 0, `after ${at} ms`)
  }
  await pass(1)
  assert.equal(calls.length, 1)
})

test('calls that arrive while a reload runs are served by one more, after it, and each gets its own result', async () => {
  const { clock, pass } = createTime()
  const { reloader, calls, ends } = createTarget()
  const shared = coalesce(reloader, clock)
  const first = track(shared.reload(named('a'), never))
  await pass(500)
  const second = track(shared.reload(named('b'), never))
  await pass(3_000)
  const third = track(shared.reload(named('c'), never))
  await pass(10_000)
  assert.equal(calls.length, 1, 'one runs, one waits')
  ends[0]?.(new Error('refused'))
  await settle()
  assert.deepEqual(calls[1]?.certificates, ['b', 'c'])
  ends[1]?.()
  await settle()
  assert.deepEqual([first.state, second.state, third.state], ['refused', 'done', 'done'])
})

test('a caller that aborts leaves alone', async () => {
  const { clock, pass } = createTime()
  const { reloader, calls, ends } = createTarget()
  const shared = coalesce(reloader, clock)
  const stop = new AbortController()
  const leaver = track(shared.reload(named('a'), stop.signal))
  const stayer = track(shared.reload(named('b'), never))
  await pass(500)
  stop.abort(new Error('left'))
  await settle()
  assert.deepEqual([leaver.state, stayer.state], ['left', 'pending'])
  ends[0]?.()
  await settle()
  assert.equal(stayer.state, 'done')
  assert.equal(calls.length, 1)
  await assert.rejects(shared.reload(context, stop.signal), /left/)
})

test('when the last caller leaves, a waiting reload is dropped and a running one aborted', async () => {
  const { clock, pass } = createTime()
  const { reloader, calls, ends } = createTarget()
  const shared = coalesce(reloader, clock)
  const stop = new AbortController()
  const running = track(shared.reload(named('a'), stop.signal))
  await pass(500)
  const waiting = track(shared.reload(named('b'), stop.signal))
  stop.abort(new Error('left'))
  const late = track(shared.reload(named('c'), never))
  await settle()
  assert.deepEqual([running.state, waiting.state, late.state], ['left', 'left', 'pending'])
  await pass(500)
  assert.deepEqual(
    calls.map(({ certificates }) => certificates),
    [['a'], ['c']],
  )
  ends[1]?.()
  await settle()
  assert.equal(late.state, 'done')
})

test('the key of a target depends on its options, secrets included, and on nothing else', () => {
  const options = { kind: 'http', url: 'http://a/', headers: { A: new Secret('1'), B: new Secret('2') }, list: [1, 2] }
  const key = targetKey(options)
  assert.match(key, /^[0-9a-f]{64}$/)
  const same = { list: [1, 2], headers: { B: new Secret('2'), A: new Secret('1') }, url: 'http://a/', kind: 'http' }
  assert.equal(targetKey(same), key)
  assert.notEqual(targetKey({ ...options, headers: { A: new Secret('1'), B: new Secret('3') } }), key)
  assert.notEqual(targetKey({ ...options, list: [2, 1] }), key)
})
