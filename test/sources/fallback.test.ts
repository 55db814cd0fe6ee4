import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { assertUsable, type Bundle } from '../../src/core/bundle.ts'
import { emergencyAt } from '../../src/core/renewal.ts'
import { SidecarError } from '../../src/errors.ts'
import { withFallback } from '../../src/sources/fallback.ts'
import type { Source } from '../../src/sources/source.ts'
import { createTestCa } from '../support/ca.ts'
import { failure, forever } from '../vault/support.ts'

const ca = await createTestCa()
const HOUR = 3_600_000
const down = new SidecarError('VAULT_UNREACHABLE', 'connection refused')

/** A source that gives a certificate of an hour, or fails as it is told. */
function fake(origin: string, more: Partial<Source> = {}) {
  const state = { error: undefined as SidecarError | undefined, asked: 0, next: undefined as Bundle | undefined }
  const source: Source = {
    origin,
    issues: true,
    ttlMs: HOUR,
    names: undefined,
    algorithm: undefined,
    fetch: async () => {
      state.asked += 1
      if (state.error) throw state.error
      return state.next ?? (await ca.issue({ origin })).bundle
    },
    examine: async () => [{ ok: true, what: 'fine' }],
    ...more,
  }
  return { source, state }
}

function begin(more: Partial<Source> = {}) {
  const [first, second, third] = [fake('first', more), fake('second'), fake('third')]
  const told: { origin: string; why: string }[] = []
  let now = Date.now()
  const source = withFallback([first.source, second.source, third.source], {
    now: () => now,
    assertUsable: (bundle, at) => assertUsable(bundle, { minTtlMs: 0, chain: 'complete' }, at),
    tell: ({ origin }, { message }) => void told.push({ origin, why: message }),
  })
  return { source, first: first.state, second: second.state, third: third.state, told, set: (at: number) => (now = at) }
}
const issued = async (origin: string) => (await ca.issue({ origin })).bundle
/** Received an hour ago, with so many ms left. */
const ending = async (origin: string, leftMs: number): Promise<Bundle> => {
  const then = Date.now() - HOUR
  return { ...(await issued(origin)), notBefore: then, receivedAt: then, notAfter: Date.now() + leftMs }
}

describe('a source with fallbacks', () => {
  it('is the first one, for which those of the others are as good', async () => {
    const { source, second } = begin()
    assert.equal(source.origin, 'first')
    assert.deepEqual(source.alternatives, ['second', 'third'])
    assert.equal((await source.fetch(forever)).origin, 'first')
    assert.equal(second.asked, 0)
    assert.equal(source.polling, undefined)
  })

  it('S3 asks the next at once where there is no certificate, and tells why', async () => {
    const { source, first, told } = begin()
    first.error = down
    assert.equal((await source.fetch(forever)).origin, 'second')
    assert.deepEqual(told, [{ origin: 'second', why: 'connection refused' }])
  })

  it('asks the first alone before the emergency window, and says from when on the next is asked', async () => {
    const { source, first, second, set } = begin()
    const current = await issued('first')
    first.error = down
    set(emergencyAt(current) - 1)
    const error = await failure(source.fetch(forever, current))
    assert.equal(error.code, 'VAULT_UNREACHABLE')
    assert.equal(
      error.message,
      `connection refused; second is asked from ${new Date(emergencyAt(current)).toISOString()} on`,
    )
    assert.equal(second.asked, 0)
  })

  it('S3 asks one after the other within it, and names every failure', async () => {
    const { source, first, second, third } = begin()
    const current = await ending('first', 60_000)
    first.error = new SidecarError('PERMISSION_DENIED', 'denied', { mayHaveIssued: true })
    second.error = down
    assert.equal((await source.fetch(forever, current)).origin, 'third')
    third.error = new SidecarError('ROLE_MISSING', 'no role')
    const error = await failure(source.fetch(forever, current))
    assert.equal(error.message, 'first: denied; and second: connection refused; and third: no role')
    // Tried again as soon as the network may be back, and charged to the budget for the first.
    assert.equal(error.code, 'VAULT_UNREACHABLE')
    assert.equal(error.mayHaveIssued, true)
  })

  it('S3 goes back to the first once that works', async () => {
    const { source, first, set } = begin()
    first.error = down
    const current = await source.fetch(forever)
    first.error = undefined
    set(Date.now() + HOUR / 2)
    assert.equal((await source.fetch(forever, current)).origin, 'first')
  })

  it('takes nothing for a delivery that is refused, is in service already, or about to end', async () => {
    const { source, first, told } = begin()
    const current = await ending('first', 60_000)
    const nearlyOver = { ...(await ending('first', 100_000)), fingerprint: 'another' }
    const foreign = (await (await createTestCa()).issue()).bundle
    for (const next of [current, nearlyOver, { ...foreign, origin: 'first', roots: [] }]) {
      first.next = next
      assert.equal((await source.fetch(forever, current)).origin, 'second')
    }
    assert.match(told[0]?.why ?? '', /nothing newer than certificate \w+, which is in service already$/)
    assert.match(told[1]?.why ?? '', /nothing newer than certificate \w+, which ends at/)
    assert.match(told[2]?.why ?? '', /no trusted root/)
  })

  it('looks at a source that somebody else fills while its certificate is in service, and renews it in its emergency window', async () => {
    const looked: string[] = []
    const polling = {
      afterMs: () => 1234,
      look: async (serving: Bundle) => {
        looked.push(serving.origin)
        return serving
      },
    }
    const { source } = begin({ issues: false, ttlMs: undefined, polling })
    const [own, other] = [await issued('first'), await issued('second')]
    const found = source.polling ?? assert.fail()
    assert.equal(found.afterMs(own), 1234)
    assert.ok(found.afterMs(other) > 300 * 24 * HOUR)
    assert.equal(await found.look(own, forever), own)
    assert.equal(await found.look(other, forever), other)
    assert.deepEqual(looked, ['first'])
    assert.equal(found.renewAt?.(own), emergencyAt(own))
    assert.equal(found.renewAt?.(other), undefined)
    assert.deepEqual([source.issues, source.isIssued?.(own), source.isIssued?.(other)], [true, false, true])
  })

  it('examines every source by its name', async () => {
    const { source } = begin({ examine: () => Promise.reject(down) })
    const found = await source.examine(forever)
    assert.deepEqual(
      found.map(({ ok, what }) => [ok, what]),
      [
        [false, 'first: connection refused'],
        [true, 'second: fine'],
        [true, 'third: fine'],
      ],
    )
  })

  it('refuses the same origin twice', () => {
    const deps = { now: Date.now, assertUsable: () => {}, tell: () => {} }
    const refused = () => withFallback([fake('a').source, fake('b').source, fake('a').source], deps)
    assert.throws(refused, (error) => error instanceof SidecarError && error.code === 'CONFIG_INVALID')
  })

  it('stops between two sources when asked to', async () => {
    const stop = new AbortController()
    const reason = new Error('stop')
    const { source, second } = begin({
      fetch: async () => {
        stop.abort(reason)
        throw down
      },
    })
    await assert.rejects(source.fetch(stop.signal), reason)
    assert.equal(second.asked, 0)
  })
})
