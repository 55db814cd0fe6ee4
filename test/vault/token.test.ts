import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Secret } from '../../src/core/secret.ts'
import { SidecarError } from '../../src/errors.ts'
import type { AuthMethod, Login } from '../../src/vault/auth/auth.ts'
import { createTokens, type TokenDeps } from '../../src/vault/token.ts'
import { createFakeClock } from '../support/clock.ts'
import { failure, forever } from './support.ts'

const HOUR = 3_600_000
type Renewal = Login | undefined | Error

/** Tokens over an auth method and a Vault that do what the lists say, the last entry again and again. */
function setUp(plan: { logins?: (Partial<Login> | Error)[]; renewals?: Renewal[] } = {}) {
  const clock = createFakeClock(0)
  const did: string[] = []
  const told: string[] = []
  const held: string[] = []
  let fingerprint = 'one'
  const next = <T>(list: T[]): T | undefined => (list.length > 1 ? list.shift() : list[0])
  const { logins = [{}], renewals = [undefined] } = plan
  const at = () => `${clock.elapsed() / 1000} s`
  const auth: AuthMethod = {
    prepare: async () => ({
      fingerprint,
      login: async () => {
        did.push(`login at ${at()}`)
        const planned = next(logins)
        if (planned instanceof Error) throw planned
        return { token: new Secret(`token-${did.length}`), ttlMs: HOUR, renewable: true, ...planned }
      },
    }),
  }
  const deps: TokenDeps = {
    auth,
    clock,
    renew: async () => {
      did.push(`renew at ${at()}`)
      const planned = next(renewals)
      if (planned instanceof Error) throw planned
      return planned
    },
    onToken: ({ how, renewable, expiresAt }) =>
      told.push(
        `${how}${renewable ? '' : ' for the last time'} until ${expiresAt === undefined ? 'ever' : `${expiresAt / 1000} s`}`,
      ),
    onTokenFailed: ({ code, nextAt }) => told.push(`${code}, next at ${nextAt / 1000} s`),
    onHeld: (token) => held.push(token.reveal()),
  }
  const tokens = createTokens(deps)
  return {
    clock,
    did,
    told,
    held,
    tokens,
    get: async () => (await tokens.get(forever)).reveal(),
    newCredential: () => {
      fingerprint = 'two'
    },
  }
}

const renewed = (ttlMs = HOUR): Login => ({ token: new Secret('token-1'), ttlMs, renewable: true })
const unreachable = new SidecarError('VAULT_UNREACHABLE', 'no route')
const denied = new SidecarError('AUTH_FAILED', 'no')

describe('the token', () => {
  test('is asked for when first needed, once for all who ask', async () => {
    const { get, did } = setUp()
    assert.deepEqual(did, [])
    assert.deepEqual(await Promise.all([get(), get(), get()]), ['token-1', 'token-1', 'token-1'])
    assert.equal(await get(), 'token-1')
    assert.deepEqual(did, ['login at 0 s'])
  })

  test('is shown to others with each login and renewal', async () => {
    const { get, clock, held } = setUp({ renewals: [renewed(), undefined] })
    await get()
    await clock.advance(1.5 * HOUR)
    assert.deepEqual(held, ['token-1', 'token-1', 'token-4'])
  })

  test('is surrendered once, and then neither renewed nor used', async () => {
    const { get, clock, did, tokens } = setUp({ renewals: [renewed()] })
    assert.equal(tokens.surrender(), undefined)
    await get()
    assert.equal(tokens.surrender()?.reveal(), 'token-1')
    assert.equal(tokens.surrender(), undefined)
    await clock.advance(HOUR)
    assert.deepEqual(did, ['login at 0 s'])
    assert.equal(await get(), 'token-2')
  })

  test('that has run out is not surrendered', async () => {
    const { get, clock, tokens } = setUp({ logins: [{}, unreachable], renewals: [unreachable] })
    await get()
    await clock.advance(HOUR)
    assert.equal(tokens.surrender(), undefined)
  })

  test('that somebody else obtained is not surrendered, not after a renewal either', async () => {
    const { get, clock, did, tokens } = setUp({ logins: [{ isGiven: true }], renewals: [renewed()] })
    await get()
    await clock.advance(HOUR)
    assert.equal(did.length, 2)
    assert.equal(tokens.surrender(), undefined)
  })

  test('is renewed at two thirds of its life, for ever when it is periodic', async () => {
    const { get, clock, did } = setUp({ renewals: [renewed()] })
    await get()
    await clock.advance(3 * HOUR)
    assert.deepEqual(did, ['login at 0 s', 'renew at 2400 s', 'renew at 4800 s', 'renew at 7200 s', 'renew at 9600 s'])
  })

  test('with a life of 768 hours, more than a timer of Node can hold, is renewed after 512 hours', async () => {
    const { get, clock, did } = setUp({ logins: [{ ttlMs: 768 * HOUR }], renewals: [renewed(768 * HOUR)] })
    await get()
    await clock.advance(511 * HOUR)
    assert.deepEqual(did, ['login at 0 s'])
    await clock.advance(2 * HOUR)
    assert.deepEqual(did, ['login at 0 s', `renew at ${512 * 3600} s`])
  })

  test('that cannot be renewed is replaced at two thirds of its life', async () => {
    const { get, clock, did } = setUp({ logins: [{ renewable: false }] })
    await get()
    await clock.advance(HOUR)
    assert.deepEqual(did, ['login at 0 s', 'login at 2400 s'])
    assert.equal(await get(), 'token-2')
  })

  test('is replaced when Vault refuses to renew it', async () => {
    const { get, clock, did } = setUp({ renewals: [undefined] })
    await get()
    await clock.advance(HOUR)
    assert.deepEqual(did, ['login at 0 s', 'renew at 2400 s', 'login at 2400 s'])
  })

  test('near its max TTL is not renewed in ever smaller steps, but replaced', async () => {
    const { get, clock, did, told } = setUp({ renewals: [renewed(), renewed(1_200_000)] })
    await get()
    await clock.advance(6000 * 1000)
    assert.deepEqual(did, ['login at 0 s', 'renew at 2400 s', 'renew at 4800 s', 'login at 5600 s'])
    assert.deepEqual(told, [
      'login until 3600 s',
      'renewed until 6000 s',
      'renewed for the last time until 6000 s',
      'login until 9200 s',
    ])
  })

  test('with a life of seconds is replaced near its max TTL too', async () => {
    const { get, clock, did } = setUp({ logins: [{ ttlMs: 3000 }], renewals: [renewed(3000), renewed(2000)] })
    await get()
    await clock.advance(5400)
    assert.deepEqual(
      did.map((what) => what.split(' ')[0]),
      ['login', 'renew', 'renew', 'login'],
    )
  })

  test('that is renewed for 0 s, as in its last second, is replaced and not kept for ever', async () => {
    const { get, clock, did, told } = setUp({ renewals: [renewed(0)] })
    await get()
    await clock.advance(2400 * 1000)
    assert.deepEqual(did, ['login at 0 s', 'renew at 2400 s', 'login at 2400 s'])
    assert.equal(told.at(-1), 'login until 6000 s')
  })

  test('with only a moment to live is used, and not asked about again and again', async () => {
    const { get, clock, did } = setUp({ logins: [{ ttlMs: 1 }] })
    await get()
    await clock.advance(HOUR)
    assert.deepEqual(did, ['login at 0 s'])
  })

  test('is renewed again after 30 s at the earliest when that failed, then more slowly', async () => {
    const { get, clock, did, told } = setUp({ renewals: [unreachable, unreachable, renewed()] })
    await get()
    await clock.advance(2600 * 1000)
    assert.deepEqual(did, ['login at 0 s', 'renew at 2400 s', 'renew at 2433.75 s', 'renew at 2501.25 s'])
    assert.deepEqual(told.slice(1, 3), ['VAULT_UNREACHABLE, next at 2433.75 s', 'VAULT_UNREACHABLE, next at 2501.25 s'])
  })

  test('that ran out while Vault was away is replaced when next needed, not before', async () => {
    const { get, clock, did } = setUp({ renewals: [unreachable] })
    await get()
    await clock.advance(2 * HOUR)
    assert.ok(
      did.every((what) => !what.startsWith('login') || what === 'login at 0 s'),
      did.join(),
    )
    const asked = did.length
    await clock.advance(HOUR)
    assert.equal(did.length, asked)
    await get()
    assert.equal(did.at(-1), 'login at 10800 s')
  })

  test('that never expires is left alone', async () => {
    const { get, clock, did, told } = setUp({ logins: [{ ttlMs: 0, renewable: false }] })
    await get()
    await clock.advance(10_000 * HOUR)
    await get()
    assert.deepEqual(did, ['login at 0 s'])
    assert.deepEqual(told, ['login for the last time until ever'])
  })

  test('is replaced once for all whom Vault refused', async () => {
    const { tokens, did } = setUp()
    const old = await tokens.get(forever)
    const all = await Promise.all([tokens.replace(old, forever), tokens.replace(old, forever), tokens.get(forever)])
    const late = await tokens.replace(old, forever)
    assert.deepEqual(new Set([...all, late].map((token) => token.reveal())), new Set(['token-2']))
    assert.equal(did.length, 2)
  })

  test('that was replaced is no longer renewed', async () => {
    const { tokens, clock, did } = setUp({ renewals: [renewed()] })
    const old = await tokens.get(forever)
    await clock.advance(1000 * 1000)
    await tokens.replace(old, forever)
    await clock.advance(1500 * 1000)
    assert.deepEqual(did, ['login at 0 s', 'login at 1000 s'])
  })
})

describe('a login', () => {
  test('that failed is told to all who wait, and tried again by the next', async () => {
    const { get, did } = setUp({ logins: [unreachable, {}] })
    const outcomes = await Promise.allSettled([get(), get()])
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['rejected', 'rejected'],
    )
    assert.equal(await get(), 'token-2')
    assert.equal(did.length, 2)
  })

  test('that Vault refused is not tried again at once with the same credential, for that locks a role out', async () => {
    const { get, did, clock } = setUp({ logins: [denied] })
    assert.equal((await failure(get())).code, 'AUTH_FAILED')
    const held = await failure(get())
    assert.deepEqual([held.code, held.retryAfterMs], ['AUTH_FAILED', 5000])
    assert.match(held.message, /^no \(the same credential is tried again in 5s\)$/)
    await clock.advance(5000)
    await failure(get())
    await clock.advance(5000)
    await failure(get())
    await clock.advance(5000)
    await failure(get())
    assert.deepEqual(did, ['login at 0 s', 'login at 5 s', 'login at 15 s'])
  })

  test('with a new credential is tried at once', async () => {
    const { get, did, newCredential } = setUp({ logins: [denied, {}] })
    await failure(get())
    newCredential()
    await get()
    assert.equal(did.length, 2)
  })

  test('outlives the caller who asked first and went away', async () => {
    const { tokens, get, did } = setUp()
    const stop = new AbortController()
    const reason = new Error('gone')
    const first = tokens.get(stop.signal)
    const second = get()
    stop.abort(reason)
    await assert.rejects(first, reason)
    assert.equal(await second, 'token-1')
    assert.equal(did.length, 1)
  })
})

test('closing ends the watch', async () => {
  const { get, tokens, clock, did } = setUp({ renewals: [renewed()] })
  await get()
  await tokens[Symbol.asyncDispose]()
  await clock.advance(10 * HOUR)
  assert.deepEqual(did, ['login at 0 s'])
})
