import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { chainsTo, inForce, nextAnchors, storedTrust, toTrustSet, trustFrom } from '../../src/core/trust.ts'
import { createTestCa } from '../support/ca.ts'

const [old, next, brief] = [
  await createTestCa({ commonName: 'Old' }),
  await createTestCa({ commonName: 'New' }),
  await createTestCa({ commonName: 'Brief', notAfter: new Date(Date.now() + 60_000) }),
]
const now = Date.now()
const unused = { now, keepMs: 1000, isUsed: () => false }
const first = nextAnchors([old.root], [], unused)

describe('the anchors of a trust', () => {
  it('take in what is new at once, beside what is old', () => {
    const both = nextAnchors([old.root, next.root], first, { ...unused, now: now + 5 })
    assert.deepEqual(
      both.map(({ since, retiredAt }) => [since, retiredAt]),
      [
        [now, undefined],
        [now + 5, undefined],
      ],
    )
  })
  it('keep what no source names any more while it is used, and for a while after that', () => {
    const at = (ms: number, before: typeof first, isUsed: boolean) =>
      nextAnchors([next.root], before, { now: now + ms, keepMs: 1000, isUsed: () => isUsed })
    const used = at(10_000, first, true)
    assert.deepEqual([used.length, used[1]?.retiredAt], [2, now + 10_000])
    const left = at(20_000, used, false)
    assert.equal(left.length, 1, 'its time ran from when it was of use last')
    const early = at(10_500, used, false)
    assert.deepEqual([early.length, early[1]?.retiredAt], [2, now + 10_000])
  })
  it('take one back that is named again', () => {
    const retiring = nextAnchors([next.root], first, { ...unused, keepMs: 60_000 })
    const back = nextAnchors([old.root, next.root], retiring, { ...unused, now: now + 9 })
    assert.deepEqual(
      back.map(({ since, retiredAt }) => [since, retiredAt]),
      [
        [now, undefined],
        [now, undefined],
      ],
    )
  })
  it('let go of one that has ended, used or not', () => {
    const all = nextAnchors([brief.root], [], unused)
    const later = nextAnchors([next.root], all, { now: now + 120_000, keepMs: 1e9, isUsed: () => true })
    assert.equal(later.length, 1)
  })
})

describe('a trust', () => {
  const set = toTrustSet({ anchors: first, lists: [], origin: 'trust peers', receivedAt: now })
  it('is told from another by what is in it, whatever the order', () => {
    const both = nextAnchors([old.root, next.root], first, unused)
    const other = nextAnchors([next.root, old.root], first, unused)
    const of = (anchors: typeof both) => toTrustSet({ ...set, anchors }).fingerprint
    assert.equal(of(both), of(other))
    assert.notEqual(of(both), set.fingerprint)
  })
  it('comes back from what was stored', () => {
    const stored = JSON.parse(JSON.stringify(storedTrust(inForce(set, now + 7))))
    assert.equal(trustFrom(stored).anchors[0]?.inForceSince, now + 7)
  })
  it('comes back as it was, where nothing of it was proven yet', () => {
    const stored = JSON.parse(JSON.stringify(storedTrust(set)))
    const back = toTrustSet({ ...trustFrom(stored), origin: set.origin, receivedAt: now })
    assert.deepEqual(storedTrust(back), storedTrust(set))
    assert.deepEqual([back.fingerprint, back.serial, back.notAfter], [set.fingerprint, set.serial, set.notAfter])
  })
  it('knows which certificates are of it', async () => {
    const { bundle } = await old.issue({ withIntermediate: true })
    assert.deepEqual([chainsTo(bundle, old.root), chainsTo(bundle, next.root)], [true, false])
    const both = { ...bundle, roots: [old.root, next.root] }
    assert.equal(chainsTo(both, next.root), false, 'it came along, as in a bundle while a root rolls over')
    const [intermediate] = bundle.intermediates
    assert.ok(intermediate && chainsTo(bundle, intermediate))
    assert.ok(chainsTo({ ...bundle, intermediates: [] }, old.root), 'an intermediate is missing')
  })
})
