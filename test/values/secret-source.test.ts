import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { NEVER } from '../../src/core/content.ts'
import { Secret } from '../../src/core/secret.ts'
import type { Reading, Snapshot } from '../../src/core/snapshot.ts'
import { SidecarError, toSidecarError } from '../../src/errors.ts'
import { mismatchOf } from '../../src/keep-fresh.ts'
import { createSecretSource } from '../../src/values/secret-source.ts'
import type { ValueSource } from '../../src/values/value.ts'

const forever = new AbortController().signal

/** A clock that stands until it is moved, and a value whose answers the test decides. */
function setup() {
  let elapsed = 0
  const clock = { now: () => 1_000_000 + elapsed, elapsed: () => elapsed }
  const reading = (text: string, more: Partial<Reading> = {}): Reading => ({
    fields: new Secret({ text }),
    version: '',
    made: false,
    receivedAt: clock.now(),
    notAfter: NEVER,
    ...more,
  })
  const value = (more: Partial<ValueSource> & { text?: () => string } = {}) => {
    const asked = { read: 0, look: 0, discarded: [] as string[] }
    const { text = () => 'one' } = more
    const source: ValueSource = {
      origin: 'test',
      issues: false,
      read: async () => {
        asked.read += 1
        return reading(text())
      },
      afterMs: () => 60_000,
      look: async () => {
        asked.look += 1
        return reading(text())
      },
      examine: async () => ({ ok: true, what: 'fine' }),
      discard: async ({ fields }) => void asked.discarded.push(String(fields.reveal().text)),
      ...more,
    }
    return { source, asked }
  }
  /** Of a lease that the test ends. */
  const leased = (more: Partial<ValueSource> = {}) => {
    let made = 0
    let isGone = false
    const lease = { id: 'x', renewable: true, fullTtlMs: 60_000 }
    const own = value({
      issues: true,
      read: async () => {
        made += 1
        own.asked.read += 1
        isGone = false
        return reading(`made ${made}`, { made: true, lease, notAfter: clock.now() + 600_000 })
      },
      look: async (before) => {
        own.asked.look += 1
        return isGone ? undefined : before
      },
      ...more,
    })
    return { ...own, end: () => (isGone = true) }
  }
  return { clock, pass: (ms: number) => (elapsed += ms), reading, value, leased }
}

const textOf = (snapshot: Snapshot | undefined, name: string) => snapshot?.readings[name]?.fields.reveal().text

describe('the values of a secret', () => {
  test('are read together, and a look that finds nothing new keeps what is there', async () => {
    const { clock, pass, value } = setup()
    const [a, b] = [value(), value()]
    const source = createSecretSource('app', { a: a.source, b: b.source }, clock)
    const first = await source.fetch(forever)
    assert.deepEqual([textOf(first, 'a'), textOf(first, 'b')], ['one', 'one'])
    pass(60_000)
    const second = await source.polling?.look(first, forever)
    assert.equal(second?.fingerprint, first.fingerprint)
    assert.deepEqual(
      [a.asked, b.asked].map(({ read, look }) => [read, look]),
      [
        [1, 1],
        [1, 1],
      ],
    )
  })

  test('are looked at each in its own time', async () => {
    const { clock, pass, value } = setup()
    const [often, seldom] = [value({ afterMs: () => 10_000 }), value({ afterMs: () => 60_000 })]
    const source = createSecretSource('app', { often: often.source, seldom: seldom.source }, clock)
    const first = await source.fetch(forever)
    assert.equal(source.polling?.afterMs(first), 10_000)
    pass(10_000)
    await source.polling?.look(first, forever)
    assert.deepEqual([often.asked.look, seldom.asked.look], [1, 0])
  })

  test('a value that changed makes another snapshot, with the others as they were', async () => {
    const { clock, pass, value } = setup()
    let text = 'one'
    const source = createSecretSource('app', { a: value({ text: () => text }).source, b: value().source }, clock)
    const first = await source.fetch(forever)
    text = 'two'
    pass(60_000)
    const second = await source.polling?.look(first, forever)
    assert.notEqual(second?.fingerprint, first.fingerprint)
    assert.deepEqual([textOf(second, 'a'), textOf(second, 'b')], ['two', 'one'])
  })

  test('a lease that ended is replaced, and the other one is not', async () => {
    const { clock, pass, leased } = setup()
    const [a, b] = [leased(), leased()]
    const source = createSecretSource('app', { a: a.source, b: b.source }, clock)
    const first = await source.fetch(forever)
    source.polling?.delivered?.(first, clock.now())
    a.end()
    pass(60_000)
    assert.equal(await source.polling?.look(first, forever), undefined, 'a new one must be asked for')
    const second = await source.fetch(forever)
    assert.deepEqual([textOf(second, 'a'), textOf(second, 'b')], ['made 2', 'made 1'])
  })

  test('what was made for a delivery that failed is not made again', async () => {
    const { clock, leased, value } = setup()
    const a = leased()
    let isDown = true
    const b = value({
      read: async () => {
        if (isDown) throw new SidecarError('VAULT_UNREACHABLE', 'GET b: gone')
        return value().source.read(forever)
      },
    })
    const source = createSecretSource('app', { a: a.source, b: b.source }, clock)
    await assert.rejects(source.fetch(forever), (error) => {
      const { code, message } = toSidecarError(error)
      assert.deepEqual([code, message], ['VAULT_UNREACHABLE', 'value "b": GET b: gone'])
      return true
    })
    isDown = false
    assert.equal(textOf(await source.fetch(forever), 'a'), 'made 1')
    assert.equal(a.asked.read, 1)
  })

  test('a lease of an earlier process is made anew, once', async () => {
    const { clock, leased, reading } = setup()
    const a = leased()
    const source = createSecretSource('app', { a: a.source }, clock)
    const lease = { id: 'old', renewable: true, fullTtlMs: 60_000 }
    const found = { ...(await source.fetch(forever)), readings: { a: reading('old', { made: true, lease }) } }
    const fresh = createSecretSource('app', { a: a.source }, clock)
    assert.equal(await fresh.polling?.look(found, forever), undefined)
    const next = await fresh.fetch(forever)
    fresh.polling?.delivered?.(next, clock.now())
    assert.equal((await fresh.polling?.look(next, forever))?.fingerprint, next.fingerprint)
  })

  test('what was replaced is given back once its successor has been in service for the overlap, and not before', async () => {
    const { clock, pass, leased } = setup()
    const a = leased({ overlapMs: 5_000 })
    const source = createSecretSource('app', { a: a.source }, clock)
    const first = await source.fetch(forever)
    source.polling?.delivered?.(first, clock.now())
    const second = await source.fetch(forever)
    source.polling?.delivered?.(second, clock.now())
    assert.equal(textOf(second, 'a'), 'made 2')
    pass(4_999)
    await source.polling?.look(second, forever)
    assert.deepEqual(a.asked.discarded, [])
    pass(1)
    assert.equal(source.polling?.afterMs(second), 0)
    await source.polling?.look(second, forever)
    assert.deepEqual(a.asked.discarded, ['made 1'])
  })

  test('a change is not missed because another value failed at the same look', async () => {
    const { clock, pass, value } = setup()
    let text = 'one'
    let isDown = false
    const b = value({
      look: async (reading) => {
        if (isDown) throw new SidecarError('VAULT_5XX', 'no')
        return reading
      },
    })
    const source = createSecretSource('app', { a: value({ text: () => text }).source, b: b.source }, clock)
    const first = await source.fetch(forever)
    pass(60_000)
    text = 'two'
    isDown = true
    await assert.rejects(source.polling?.look(first, forever) ?? Promise.resolve())
    isDown = false
    assert.equal(textOf(await source.polling?.look(first, forever), 'a'), 'two')
  })

  test('a lease that is renewed lives on while another value cannot be read', async () => {
    const { clock, pass, leased, value } = setup()
    const a = leased({ look: async (before) => ({ ...before, notAfter: clock.now() + 600_000 }) })
    const b = value({
      look: async () => {
        throw new SidecarError('PERMISSION_DENIED', 'no')
      },
    })
    const source = createSecretSource('app', { a: a.source, b: b.source }, clock)
    const first = await source.fetch(forever)
    source.polling?.delivered?.(first, clock.now())
    pass(60_000)
    await assert.rejects(source.polling?.look(first, forever) ?? Promise.resolve())
    const kept = source.polling?.prolonged?.(first)
    assert.deepEqual([kept?.fingerprint, kept?.notAfter], [first.fingerprint, clock.now() + 600_000])
  })

  test('what cannot be given back is told, and a change at the same time is not missed', async () => {
    const { clock, pass, leased, value } = setup()
    let text = 'one'
    const discard = async () => {
      throw new SidecarError('PERMISSION_DENIED', 'no')
    }
    const a = leased({ overlapMs: 60_000, discard })
    const source = createSecretSource('app', { a: a.source, b: value({ text: () => text }).source }, clock)
    source.polling?.delivered?.(await source.fetch(forever), clock.now())
    const second = await source.fetch(forever)
    source.polling?.delivered?.(second, clock.now())
    pass(60_000)
    text = 'two'
    await assert.rejects(source.polling?.look(second, forever) ?? Promise.resolve())
    assert.equal(textOf(await source.polling?.look(second, forever), 'b'), 'two')
  })

  test('the end of the secret is that of the lease that ends first', async () => {
    const { clock, leased, value } = setup()
    const source = createSecretSource('app', { a: leased().source, b: value().source }, clock)
    const { notAfter } = await source.fetch(forever)
    assert.equal(notAfter, clock.now() + 600_000)
  })

  test('what is sent to Vault for a value is not told when the config changes it', async () => {
    const { clock, value } = setup()
    const asking = (password: string) => createSecretSource('app', { a: value({ origin: password }).source }, clock)
    const before = await asking('hush 1').fetch(forever)
    const told = mismatchOf({ source: asking('hush 2'), assertUsable: () => {} }, before)
    assert.equal(told, 'its values are asked for in another way now')
  })

  test('no value is in what is printed of it', async () => {
    const { clock, value } = setup()
    const snapshot = await createSecretSource('app', { a: value({ text: () => 'hush' }).source }, clock).fetch(forever)
    assert.doesNotMatch(JSON.stringify(snapshot), /hush/)
  })
})
