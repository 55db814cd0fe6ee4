import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Bundle } from '../../src/core/bundle.ts'
import { initialState, type RotationState } from '../../src/core/state.ts'
import { inForce, nextAnchors, type TrustSet, toTrustSet } from '../../src/core/trust.ts'
import { assertTrusted } from '../../src/core/trusted.ts'
import { SidecarError } from '../../src/errors.ts'
import { createTestCa } from '../support/ca.ts'

const MINUTE = 60_000
const [old, next] = [await createTestCa({ commonName: 'Old' }), await createTestCa({ commonName: 'New' })]
const [current, moved] = [(await old.issue()).bundle, (await next.issue({ withIntermediate: true })).bundle]
const T0 = Date.now()
const [known, added] = [old, next].map(({ root }, index) =>
  nextAnchors([root], [], { now: T0 + index * MINUTE, keepMs: 0, isUsed: () => false }),
)
assert.ok(known && added)

const setOf = (anchors: TrustSet['anchors']) =>
  toTrustSet({ anchors, lists: [], origin: 'trust peers', receivedAt: T0 })
const blank = initialState<TrustSet>(
  { current: undefined, pending: undefined },
  { renewal: { jitter: 0 }, seed: '' },
  { now: T0, elapsed: 0 },
  0,
)
/** Old and new CA, of which the new one was named after a minute and proven after ten. */
const both: RotationState<TrustSet> = {
  ...blank,
  serving: inForce(setOf([...inForce(setOf(known), T0).anchors, ...added]), T0 + 10 * MINUTE),
  verification: 'verified',
}

interface Case {
  readonly bundle?: Bundle
  readonly current?: Bundle | undefined
  readonly state?: RotationState<TrustSet> | undefined
  readonly spreadMs?: number
  readonly now?: number
}

/** What it waits for, and until when; undefined where it does not wait. */
function waitOf(given: Case): { readonly why: string; readonly ms: number | undefined } | undefined {
  const { bundle = moved, spreadMs = 0, now = T0 + 10 * MINUTE } = given
  const trust = { name: 'peers', state: 'state' in given ? given.state : both, spreadMs }
  try {
    assertTrusted(bundle, { current: 'current' in given ? given.current : current, trust, now })
    return undefined
  } catch (error) {
    assert.ok(error instanceof SidecarError && error.code === 'TRUST_PENDING', String(error))
    return { why: error.message.replace(/^certificate \S+ waits: /, ''), ms: error.retryAfterMs }
  }
}

describe('K7 a certificate with a trust', () => {
  it('waits until the trust names its CA, and is proven to be in force', () => {
    const unnamed = 'its CA is not in trust "peers" yet'
    assert.equal(waitOf({ state: undefined })?.why, unnamed)
    assert.equal(waitOf({ state: { ...both, serving: setOf(known) } })?.why, unnamed)
    for (const verification of ['pending', 'failed'] as const)
      assert.equal(waitOf({ state: { ...both, verification } })?.why, 'trust "peers" is not proven to be in force')
    for (const verification of ['verified', 'none'] as const)
      assert.equal(waitOf({ state: { ...both, verification } }), undefined)
  })

  it('waits for the spread from when its CA was proven, not from when it was named', () => {
    const at = (minutes: number) => waitOf({ spreadMs: 5 * MINUTE, now: T0 + minutes * MINUTE })
    assert.deepEqual(at(10), { why: 'its CA is in trust "peers" for a moment only', ms: 5 * MINUTE })
    assert.equal(at(14)?.ms, MINUTE)
    assert.equal(at(15), undefined)
  })

  it('begins with what is on disk where the target was never there: the spread counts from when its CA was named', () => {
    const state = { ...both, serving: setOf([...known, ...added]), verification: 'pending' as const, waits: 1 }
    const at = (minutes: number) => waitOf({ state, spreadMs: 5 * MINUTE, now: T0 + minutes * MINUTE })
    assert.deepEqual([at(5)?.ms, at(6)], [MINUTE, undefined])
    assert.ok(waitOf({ state: { ...state, targetSeen: true } }), 'a target that was there has to prove it')
  })

  it('is taken out of service by nothing, and waits for nothing once the one in service has ended', () => {
    const trouble = { state: undefined, spreadMs: 5 * MINUTE }
    assert.equal(waitOf({ ...trouble, current: moved }), undefined)
    assert.ok(waitOf({ ...trouble, now: current.notAfter - 1 }))
    assert.equal(waitOf({ ...trouble, now: current.notAfter }), undefined)
    assert.ok(waitOf({ ...trouble, current: undefined }), 'the first one waits')
    assert.equal(waitOf({ current: undefined, spreadMs: 60 * MINUTE }), undefined, 'but not for the spread')
  })

  it('waits for nothing where the one in service is of the same CA', async () => {
    const { bundle } = await old.issue()
    assert.equal(waitOf({ bundle, spreadMs: 60 * MINUTE, state: { ...both, verification: 'failed' } }), undefined)
    assert.ok(waitOf({ bundle: moved, spreadMs: 60 * MINUTE }))
    assert.ok(
      waitOf({ bundle, state: { ...both, serving: setOf(added) } }),
      'its CA has to be in the trust all the same',
    )
  })
})

describe('the anchors of a trust in force', () => {
  it('are so since each was first proven, whatever comes later', () => {
    const since = (set: TrustSet) => set.anchors.map(({ inForceSince }) => inForceSince)
    assert.deepEqual(since(setOf(known)), [undefined])
    const first = inForce(setOf(known), T0 + 5)
    const renewal = { now: T0 + 10, keepMs: 1e9, isUsed: () => false }
    const second = setOf(nextAnchors([old.root, next.root], first.anchors, renewal))
    assert.deepEqual(since(second), [T0 + 5, undefined], 'what is new is not in force by being named')
    assert.deepEqual(since(inForce(second, T0 + 20)), [T0 + 5, T0 + 20])
    const retiring = setOf(nextAnchors([next.root], inForce(second, T0 + 20).anchors, renewal))
    assert.deepEqual(since(inForce(retiring, T0 + 30)), [T0 + 20, T0 + 5])
  })
})
