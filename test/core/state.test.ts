import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { Bundle } from '../../src/core/bundle.ts'
import {
  decide,
  doubted,
  evolve,
  hurried,
  initialState,
  isHeldOff,
  noticed,
  type Outcome,
  type Policy,
  phase,
  type RotationState,
  type Stage,
} from '../../src/core/state.ts'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { createTestCa } from '../support/ca.ts'

const HOUR = 3_600_000
const T0 = Date.UTC(2026, 0, 1)
const ca = await createTestCa()
/** A real bundle whose times are moved to T0: an hour to live. */
const template = (await ca.issue()).bundle
const bundleAt = (receivedAt: number, id = 'a', life = HOUR): Bundle => ({
  ...template,
  fingerprint: id,
  serial: id,
  notBefore: receivedAt - 30_000,
  receivedAt,
  notAfter: receivedAt + life,
})

const policy: Policy = { renewal: { jitter: 0 }, seed: 'seed' }
const at = (ms: number) => ({ now: T0 + ms, elapsed: ms })
const step = (state: RotationState, outcome: Outcome, ms: number) =>
  evolve(state, outcome, policy, { ...at(ms), random: () => 0 })
const served = (bundle: Bundle, verified = true): Outcome => ({ kind: 'served', bundle, verified, targetUp: verified })
const failed = (
  code: ErrorCode,
  stage: Extract<Outcome, { kind: 'failed' }>['stage'],
  more: Partial<Extract<Outcome, { kind: 'failed' }>> = {},
): Outcome => ({
  kind: 'failed',
  error: new SidecarError(code, 'test'),
  stage,
  inHand: undefined,
  onDisk: undefined,
  targetUp: false,
  ...more,
})
const empty = () => initialState({ current: undefined, pending: undefined }, policy, at(0), 120_000)
const resumed = (bundle = bundleAt(T0)) => initialState({ current: bundle, pending: undefined }, policy, at(0), 120_000)
const active = () => step(resumed(), served(bundleAt(T0)), 0)

describe('what is polled and renewed by time as well', () => {
  /** When the source would have it renewed; a look may change that. */
  let advice: number | undefined
  const advised: Policy = { ...policy, pollAfterMs: () => 60_000, advice: () => advice }
  const next = (state: RotationState, outcome: Outcome, ms: number) =>
    evolve(state, outcome, advised, { ...at(ms), random: () => 0 })
  const unchanged: Outcome = { kind: 'unchanged', bundle: bundleAt(T0) }
  const look = (state: RotationState, ms: number) => decide(state, at(ms), undefined)
  const begin = (asked: number | undefined = undefined) => {
    advice = asked
    const first = initialState({ current: bundleAt(T0), pending: undefined }, advised, at(0), 0)
    return next(next(first, served(bundleAt(T0), false), 0), unchanged, 0)
  }
  /** After the last look at the source, so that only time counts. */
  const calm = (state: RotationState): RotationState => ({ ...state, pollAt: T0 + 2 * HOUR, pollElapsed: 2 * HOUR })

  it('is due by the config where the source does not say', () => {
    assert.equal(begin().renewAt, T0 + HOUR / 2)
    assert.equal(look(calm(begin()), HOUR / 2).kind, 'renew')
  })
  it('is due when the source says, be it earlier or later', () => {
    assert.equal(look(calm(begin(T0 + HOUR / 4)), HOUR / 4).kind, 'renew')
    assert.equal(look(calm(begin(T0 + 0.8 * HOUR)), 0.7 * HOUR).kind, 'wait')
    assert.equal(look(calm(begin(T0 + 0.8 * HOUR)), 0.8 * HOUR).kind, 'renew')
  })
  it('follows the source when a look finds that it has changed its mind', () => {
    const state = begin(T0 + 0.8 * HOUR)
    advice = T0 + 60_000
    const moved = next(state, unchanged, 60_000)
    assert.equal(moved.renewAt, T0 + 60_000)
    assert.equal(look(moved, 60_000).kind, 'renew')
  })
  it('is not put off into the last twentieth', () => {
    const state = calm(begin(T0 + HOUR))
    assert.equal(look(state, 0.94 * HOUR).kind, 'wait')
    assert.deepEqual(look(state, 0.96 * HOUR), { kind: 'renew', why: 'emergency' })
  })
  it('is renewed when it has ended, not looked at', () => {
    assert.equal(look(begin(), 2 * HOUR).kind, 'renew')
  })
  it('is looked at before it is renewed, such as after a restart, unless that has failed', () => {
    const state = begin()
    assert.equal(look(state, HOUR / 2).kind, 'poll')
    const after = next(state, failed('OCSP_UNAVAILABLE', 'fetch'), HOUR / 2)
    assert.equal(look({ ...after, nextAt: T0, nextElapsed: 0 }, HOUR / 2).kind, 'renew')
  })
})

describe('what is polled', () => {
  const polled: Policy = { ...policy, pollAfterMs: () => 60_000 }
  const look = (state: RotationState, ms: number) => decide(state, at(ms), undefined)
  const begin = () => initialState({ current: bundleAt(T0), pending: undefined }, polled, at(0), 0)
  const next = (state: RotationState, outcome: Outcome, ms: number) =>
    evolve(state, outcome, polled, { ...at(ms), random: () => 0 })
  const delivered = () => next(begin(), served(bundleAt(T0), false), 0)

  it('is delivered first after a start, and looked at then', () => {
    assert.equal(look(begin(), 0).kind, 'deliver')
    assert.equal(look(delivered(), 0).kind, 'poll')
  })
  it('is looked at again when its time has come, and not renewed by its age', () => {
    const state = next(delivered(), { kind: 'unchanged', bundle: bundleAt(T0) }, 0)
    assert.deepEqual(look(state, 0), { kind: 'wait', until: T0 + 60_000 })
    assert.equal(look(state, 60_000).kind, 'poll')
    assert.equal(look({ ...state, pollAt: T0 + HOUR, pollElapsed: HOUR }, HOUR * 0.96).kind, 'wait')
  })
  it('takes over what a look prolonged, without counting it as a rotation', () => {
    const longer = { ...bundleAt(T0), notAfter: T0 + 2 * HOUR }
    const state = next(delivered(), { kind: 'unchanged', bundle: longer }, 1000)
    assert.equal(state.serving?.notAfter, T0 + 2 * HOUR)
    assert.equal(state.rotatedAt, undefined)
  })
  it('is looked at with backoff while that fails, and is well again after a look that works', () => {
    const state = next(delivered(), failed('VAULT_UNREACHABLE', 'fetch'), 0)
    assert.equal(look(state, 0).kind, 'wait')
    assert.equal(look(state, 120_000).kind, 'poll')
    const again = next(state, { kind: 'unchanged', bundle: bundleAt(T0) }, 120_000)
    assert.deepEqual([again.failures, again.failure], [0, undefined])
  })
  it('is looked at at once when the source rings, though neither its time nor the end of a backoff has come', () => {
    const fine = next(delivered(), { kind: 'unchanged', bundle: bundleAt(T0) }, 0)
    assert.equal(look(noticed(fine, at(1000)), 1000).kind, 'poll')
    const failing = next(fine, failed('INPUT_INCOMPLETE', 'fetch'), 60_000)
    assert.equal(look(failing, 60_100).kind, 'wait')
    assert.equal(look(noticed(failing, at(60_100)), 60_100).kind, 'poll')
    const nothing = next(empty(), failed('INPUT_MISSING', 'fetch'), 0)
    assert.equal(look(noticed(nothing, at(10)), 10).kind, 'renew')
  })
  it('is not looked at all the time where it rings without end and is never good', () => {
    let state = next(delivered(), { kind: 'unchanged', bundle: bundleAt(T0) }, 0)
    let looks = 0
    for (let ms = 0; ms < 600_000; ms += 500) {
      state = noticed(state, at(ms))
      if (look(state, ms).kind !== 'poll') continue
      looks += 1
      state = evolve(state, failed('INPUT_INCOMPLETE', 'fetch'), polled, { ...at(ms), random: () => 0.9 })
    }
    assert.ok(looks > 20 && looks < 60, `${looks} looks in ten minutes`)
  })
  it('is looked at once it has expired, for a part of it may be good still', () => {
    const state = next(delivered(), { kind: 'unchanged', bundle: bundleAt(T0) }, 0)
    assert.equal(look({ ...state, pollAt: T0 + 9 * HOUR, pollElapsed: 9 * HOUR }, HOUR).kind, 'poll')
  })
})

describe('phase', () => {
  const rows: [string, RotationState, number, string][] = [
    ['PENDING with nothing on disk', empty(), 0, 'PENDING'],
    ['ACTIVE with a good set that nobody doubts', active(), 1000, 'ACTIVE'],
    ['ACTIVE before the target has answered for the first time', resumed(), 0, 'ACTIVE'],
    ['EXPIRED by the clock alone, without any event', active(), HOUR, 'EXPIRED'],
    [
      'ACTIVE while Vault fails for the first time',
      step(active(), failed('VAULT_UNREACHABLE', 'fetch'), HOUR / 2),
      HOUR / 2 + 1,
      'ACTIVE',
    ],
    [
      'DEGRADED a minute after the renewal was due',
      step(active(), failed('VAULT_UNREACHABLE', 'fetch'), HOUR / 2),
      HOUR / 2 + 60_001,
      'DEGRADED',
    ],
    ['DEGRADED at once when the reload failed', step(active(), failed('RELOAD_FAILED', 'reload'), 1), 2, 'DEGRADED'],
    [
      'ACTIVE while waiting for a certificate to become valid',
      step(active(), failed('NOT_YET_VALID', 'check'), 1),
      2,
      'ACTIVE',
    ],
  ]
  for (const [claim, state, ms, expected] of rows)
    it(`is ${claim}`, () => assert.equal(phase(state, T0 + ms), expected))

  it('is DEGRADED after three failures of Vault, however early', () => {
    let state = active()
    for (let count = 0; count < 3; count++) state = step(state, failed('VAULT_5XX', 'fetch'), 1000)
    assert.equal(phase(state, T0 + 2000), 'DEGRADED')
    assert.equal(phase(step(state, served(bundleAt(T0 + 3000, 'b')), 3000), T0 + 3000), 'ACTIVE')
  })
})

describe('decide', () => {
  const task = (state: RotationState, ms: number, mismatch?: string) => decide(state, at(ms), mismatch)

  it('asks for a certificate where there is none', () =>
    assert.deepEqual(task(empty(), 0), { kind: 'renew', why: 'missing' }))
  it('verifies what a restart finds on disk before anything is issued', () =>
    assert.deepEqual(task(resumed(), 0), { kind: 'deliver', bundle: bundleAt(T0), why: 'verify' }))
  it('waits until the renewal is due', () =>
    assert.deepEqual(task(active(), 1), { kind: 'wait', until: T0 + HOUR / 2 }))
  it('renews when due', () => assert.deepEqual(task(active(), HOUR / 2), { kind: 'renew', why: 'due' }))
  it('C2 renews when only the monotonic clock says so: the wall clock was set back', () => {
    const setBack = { now: T0 - 48 * HOUR, elapsed: HOUR / 2 }
    assert.deepEqual(decide(active(), setBack, undefined), { kind: 'renew', why: 'due' })
  })
  it('renews what no longer matches the config', () =>
    assert.deepEqual(task(active(), 1, 'dns lacks b.test'), { kind: 'renew', why: 'config: dns lacks b.test' }))
  it('renews what has expired', () => assert.deepEqual(task(active(), HOUR), { kind: 'renew', why: 'expired' }))

  it('holds to its backoff', () => {
    const state = step(active(), failed('VAULT_5XX', 'fetch'), HOUR / 2)
    assert.deepEqual(task(state, HOUR / 2 + 1), { kind: 'wait', until: T0 + HOUR / 2 + 500 })
    assert.equal(task(hurried(state, at(HOUR / 2 + 1)), HOUR / 2 + 1).kind, 'renew')
  })

  it('delivers what was not yet valid as soon as a clock that was a day behind is set right', () => {
    const fresh = bundleAt(T0 + HOUR / 2, 'b')
    const behind = { now: T0 - 24 * HOUR, elapsed: HOUR / 2, random: () => 0 }
    const state = evolve(active(), failed('NOT_YET_VALID', 'check', { inHand: fresh }), policy, behind)
    assert.equal(decide(state, { ...behind, elapsed: HOUR / 2 + 60_000 }, undefined).kind, 'wait')
    assert.deepEqual(task(state, HOUR / 2 + 1_000), { kind: 'deliver', bundle: fresh, why: 'retry' })
  })
  it('C2 holds to its backoff, and no longer, when the clock is set back in the meantime', () => {
    const state = step(active(), failed('VAULT_5XX', 'fetch'), HOUR / 2)
    const back = (elapsed: number) => decide(state, { now: T0 - 24 * HOUR, elapsed }, undefined).kind
    assert.deepEqual([back(HOUR / 2 + 499), back(HOUR / 2 + 500)], ['wait', 'renew'])
  })

  it('delivers again what was fetched but not served, without issuing', () => {
    const fresh = bundleAt(T0 + HOUR / 2, 'b')
    const state = step(
      active(),
      failed('RELOAD_NOT_EFFECTIVE', 'verify', { inHand: fresh, onDisk: bundleAt(T0), targetUp: true }),
      HOUR / 2,
    )
    assert.equal(state.serving?.fingerprint, 'a')
    assert.deepEqual(task(state, HOUR / 2 + 60_000), { kind: 'deliver', bundle: fresh, why: 'retry' })
  })

  it('gives up on material in hand when a third of its life is left', () => {
    const fresh = bundleAt(T0, 'b', HOUR / 2)
    const state = step(active(), failed('WRITE_FAILED', 'write', { inHand: fresh }), 0)
    assert.equal(task(state, HOUR / 3 - 1).kind, 'deliver')
    assert.deepEqual(task(state, HOUR / 2 + 1), { kind: 'renew', why: 'due' })
  })

  it('tells a target without verifier again when its reload failed', () => {
    const state = step(
      active(),
      failed('RELOAD_FAILED', 'reload', { inHand: bundleAt(T0, 'b'), onDisk: bundleAt(T0, 'b') }),
      0,
    )
    assert.deepEqual(task(state, 60_000), { kind: 'deliver', bundle: bundleAt(T0, 'b'), why: 'retry' })
  })
})

describe('a target that is not there at start', () => {
  const waiting = step(resumed(), failed('TARGET_DOWN', 'verify', { inHand: bundleAt(T0), onDisk: bundleAt(T0) }), 0)
  it('is waited for, which is no failure', () => {
    assert.equal(waiting.failures, 0)
    assert.equal(waiting.verification, 'pending')
    assert.equal(waiting.awaited?.code, 'TARGET_DOWN', 'and the state says what for')
    assert.equal(phase(waiting, T0 + 1), 'ACTIVE')
    assert.ok(waiting.nextAt <= T0 + 5_000)
  })
  it('is all that is waited for once what had failed before is written', () => {
    const [first, next] = [bundleAt(T0), bundleAt(T0 + 1000, 'b')]
    const down = (bundle: Bundle) => failed('TARGET_DOWN', 'verify', { inHand: bundle, onDisk: bundle })
    const late = step(step(empty(), failed('TRUST_PENDING', 'check', { inHand: first }), 0), down(first), 1000)
    assert.equal(late.failures, 0)
    assert.equal(late.failure, undefined)
    const failing = step(late, failed('VAULT_UNREACHABLE', 'fetch'), 2000)
    assert.equal(step(failing, down(first), 3000).failure?.code, 'VAULT_UNREACHABLE', 'nothing came of the source yet')
    assert.equal(step(failing, down(next), 3000).failure, undefined)
  })
  it('is trouble after the grace', () => {
    const late = step(waiting, failed('TARGET_DOWN', 'verify', { inHand: bundleAt(T0), onDisk: bundleAt(T0) }), 120_001)
    assert.equal(phase(late, T0 + 120_002), 'DEGRADED')
  })
  it('is trouble at once when it had answered before', () => {
    const lost = step(active(), failed('TARGET_DOWN', 'verify', { inHand: bundleAt(T0), onDisk: bundleAt(T0) }), 1000)
    assert.equal(phase(lost, T0 + 1001), 'DEGRADED')
  })
})

it('a look that finds something wrong leads to a delivery, but does not cut a known backoff short', () => {
  assert.equal(decide(doubted(active(), at(5000)), at(5000), undefined).kind, 'deliver')
  const failing = step(
    active(),
    failed('PROBE_MISMATCH', 'verify', { inHand: bundleAt(T0), onDisk: bundleAt(T0), targetUp: true }),
    5000,
  )
  assert.equal(doubted(failing, at(5001)), failing)
})

it('keeps the due times of a set that stays, and draws new ones for a new set', () => {
  const state = active()
  assert.equal(step(state, served(bundleAt(T0)), 1000).renewElapsed, state.renewElapsed)
  assert.equal(step(state, served(bundleAt(T0 + 1000, 'b')), 1000).renewAt, T0 + 1000 + HOUR / 2)
})

describe('whatever happens, in any order, under any clock', () => {
  const STAGES: readonly Stage[] = ['preflight', 'fetch', 'check', 'write', 'reload', 'verify', 'rollback']
  const CODES: readonly ErrorCode[] = [
    'VAULT_UNREACHABLE',
    'PERMISSION_DENIED',
    'BUDGET_SPENT',
    'DISK_FULL',
    'TARGET_DOWN',
    'RELOAD_TARGET_MISSING',
    'PROBE_MISMATCH',
    'NOT_YET_VALID',
    'BUG',
  ]
  const events = fc.array(
    fc.record({
      kind: fc.constantFrom('served', 'failed', 'doubted', 'hurried'),
      code: fc.constantFrom(...CODES),
      stage: fc.constantFrom(...STAGES),
      hasFetched: fc.boolean(),
      hasWritten: fc.boolean(),
      isUp: fc.boolean(),
      passes: fc.oneof(fc.nat(1_000), fc.nat(2 * HOUR)),
      steps: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: -72 * HOUR, max: 72 * HOUR })),
      random: fc.double({ min: 0, max: 0.999, noNaN: true }),
    }),
    { maxLength: 30 },
  )

  /** Every state that a run of events leads to, with the times it was reached at. */
  function* run(happens: typeof events extends fc.Arbitrary<infer T> ? T : never) {
    let state = empty()
    let times = { now: T0, elapsed: 0 }
    for (const [index, event] of happens.entries()) {
      times = { now: times.now + event.passes + event.steps, elapsed: times.elapsed + event.passes }
      const fetched = bundleAt(times.now, String(index))
      if (event.kind === 'doubted') state = doubted(state, times)
      else if (event.kind === 'hurried') state = hurried(state, times)
      else {
        const bundle = event.hasFetched ? fetched : state.serving
        const outcome =
          event.kind === 'served'
            ? served(bundle ?? fetched, event.isUp)
            : failed(event.code, event.stage, {
                inHand: event.hasFetched ? fetched : state.pending,
                onDisk: event.hasWritten ? bundle : undefined,
                targetUp: event.isUp,
              })
        state = evolve(state, outcome, policy, { ...times, random: () => event.random })
      }
      yield { state, times }
    }
  }
  const always = (holds: (state: RotationState, times: { now: number; elapsed: number }) => void) =>
    fc.assert(
      fc.property(events, (happens) => {
        for (const { state, times } of run(happens)) holds(state, times)
      }),
      { numRuns: 300 },
    )

  it('the phase is a matter of what is on disk and the time alone, but for DEGRADED', () =>
    always((state, { now }) => {
      const { serving, failure, failures } = state
      for (const moment of [now, now + HOUR, now - HOUR]) {
        const found = phase(state, moment)
        assert.equal(found === 'PENDING', serving === undefined)
        assert.equal(found === 'EXPIRED', serving !== undefined && moment >= serving.notAfter)
        if (found === 'DEGRADED') assert.ok(failure)
      }
      assert.equal(failure === undefined, failures === 0)
    }))

  it('a wait ends later than now, by the end of the life, and after a failure within half an hour', () =>
    always((state, times) => {
      const task = decide(state, times, undefined)
      if (task.kind !== 'wait' || state.failure?.code === 'NOT_YET_VALID') return
      assert.ok(Number.isSafeInteger(task.until) && task.until > times.now, `${task.until - times.now} ms`)
      const latest = isHeldOff(state, times) ? times.now + 1_800_501 : (state.serving?.notAfter ?? 0)
      assert.ok(task.until <= latest, `${task.until - latest} ms too late`)
    }))

  it('a wall clock set back, however far, puts nothing off', () =>
    always((state, { now }) => {
      const elapsed = Math.max(state.nextElapsed, state.renewElapsed ?? 0)
      for (const back of [0, HOUR, 1000 * HOUR])
        assert.notEqual(decide(state, { now: now - back, elapsed }, undefined).kind, 'wait')
    }))

  it('nothing is issued while there is one in hand with a third of its life left, and what has ended is never delivered', () =>
    always((state, times) => {
      const { pending } = state
      const task = decide(hurried(state, times), times, undefined)
      if (pending && pending.notAfter - times.now >= HOUR / 3) assert.equal(task.kind, 'deliver')
      if (task.kind === 'deliver') assert.ok(task.bundle.notAfter > times.now)
      if (state.serving && times.now >= state.serving.notAfter && !pending) assert.equal(task.kind, 'renew')
    }))
})
