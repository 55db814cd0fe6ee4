import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Secret } from '../../src/core/secret.ts'
import { SidecarError } from '../../src/errors.ts'
import { createSink, TokenSink } from '../../src/vault/sink.ts'
import { createFakeClock } from '../support/clock.ts'

const MINUTE = 60_000
const full = new SidecarError('DISK_FULL', 'cannot write /run/token: no space left on device (ENOSPC)')

/** A sink whose writes fail while `trouble` says so. */
function setUp({ wrapTtl }: { wrapTtl?: string } = {}) {
  const clock = createFakeClock(0)
  const written: string[] = []
  const warnings: string[] = []
  const state: { trouble: SidecarError | undefined; gate: Promise<void> } = {
    trouble: undefined,
    gate: Promise.resolve(),
  }
  const sink = createSink(TokenSink.parse({ file: '/run/token', ...(wrapTtl && { wrapTtl }) }), {
    clock,
    wrap: async (token, ttlMs) => new Secret(`wrapped ${token.reveal()} for ${ttlMs}`),
    write: async ({ file, mode }, token) => {
      await state.gate
      if (state.trouble) throw state.trouble
      written.push(`${token.reveal()} to ${file} ${mode.toString(8)}`)
    },
    warn: (message) => warnings.push(message),
  })
  return { clock, sink, state, written, warnings, offer: (token: string) => sink.offer(new Secret(token)) }
}

describe('the sink of the token', () => {
  test('holds each token that is another one', async () => {
    const { clock, offer, written } = setUp()
    for (const token of ['a', 'a', 'b', 'b', 'a']) {
      offer(token)
      await clock.advance(0)
    }
    assert.deepEqual(written, ['a to /run/token 600', 'b to /run/token 600', 'a to /run/token 600'])
  })

  test('gets it wrapped where that is wanted', async () => {
    const { clock, offer, written } = setUp({ wrapTtl: '5m' })
    offer('a')
    await clock.advance(0)
    assert.deepEqual(written, ['wrapped a for 300000 to /run/token 600'])
  })

  test('that cannot be written is told, and tried again in ever longer pauses', async () => {
    const { clock, offer, written, warnings, state } = setUp()
    state.trouble = full
    offer('a')
    await clock.advance(12 * MINUTE)
    // After 5, 10, 20, 40, 80, 160 and 300 s.
    assert.deepEqual(warnings, Array(8).fill(`the token was not written to /run/token: ${full.message}`))
    state.trouble = undefined
    await clock.advance(5 * MINUTE)
    assert.deepEqual(written, ['a to /run/token 600'])
    assert.equal(clock.sleeping, 0)
  })

  test('that cannot be written gets the token of the next login instead', async () => {
    const { clock, offer, written, state } = setUp()
    state.trouble = full
    offer('a')
    await clock.advance(0)
    state.trouble = undefined
    offer('b')
    await clock.advance(0)
    assert.deepEqual(written, ['b to /run/token 600'])
    assert.equal(clock.sleeping, 0)
  })

  test('ends with the latest token, however slow the disk is', async () => {
    const { clock, offer, written, state } = setUp()
    const { promise, resolve } = Promise.withResolvers<void>()
    state.gate = promise
    offer('a')
    offer('b')
    offer('c')
    await clock.advance(0)
    resolve()
    await clock.advance(0)
    assert.equal(written.at(-1), 'c to /run/token 600')
  })

  test('finishes what it has begun when it is closed, and begins nothing more', async () => {
    const { clock, sink, offer, written, warnings, state } = setUp()
    offer('a')
    await sink[Symbol.asyncDispose]()
    assert.deepEqual(written, ['a to /run/token 600'])
    state.trouble = full
    offer('b')
    await sink[Symbol.asyncDispose]()
    assert.equal(warnings.length, 1)
    assert.equal(clock.sleeping, 0)
  })
})
