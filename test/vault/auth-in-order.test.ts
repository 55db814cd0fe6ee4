import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Secret } from '../../src/core/secret.ts'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { inOrder } from '../../src/vault/auth/in-order.ts'
import { createVault } from '../../src/vault/client.ts'
import { createTokens } from '../../src/vault/token.ts'
import { createFakeClock } from '../support/clock.ts'
import { answer, startFaultProxy } from '../support/fault-proxy.ts'
import { failure, forever, lookupSelf, openVault, recorder, vaultOptions } from './support.ts'

type Answer = 'ok' | ErrorCode

/** Two methods whose credentials and answers change as the test likes. */
function setUp(plan: { readonly a: Answer; readonly b: Answer }) {
  const clock = createFakeClock(0)
  const state = { answers: { ...plan }, credentials: { a: 1, b: 1 } }
  const did: string[] = []
  const warned: string[] = []
  const method = (name: 'a' | 'b') => ({
    name: `vault.auth[${name === 'a' ? 0 : 1}] ${name}`,
    method: {
      prepare: async () => {
        if (state.answers[name] === 'AUTH_SOURCE') throw new SidecarError('AUTH_SOURCE', `no file of ${name}`)
        return {
          fingerprint: `${name} ${state.credentials[name]}`,
          login: async () => {
            did.push(`${name} at ${clock.elapsed() / 1000} s`)
            const answered = state.answers[name]
            if (answered !== 'ok') throw new SidecarError(answered, `${name} is ${answered}`)
            return { token: new Secret(`token of ${name}`), ttlMs: 0, renewable: false }
          },
        }
      },
    },
  })
  const auth = inOrder([method('a'), method('b')], { clock, warn: (message) => warned.push(message) })
  const tokens = createTokens({
    auth,
    clock,
    renew: async () => undefined,
    onToken: () => undefined,
    onTokenFailed: () => undefined,
  })
  let token: Secret | undefined
  return {
    ...state,
    clock,
    did,
    warned,
    /** A login, also where there is a token: as after that one was revoked. */
    logIn: async () => {
      token = await (token ? tokens.replace(token, forever) : tokens.get(forever))
      return token.reveal()
    },
  }
}

describe('several ways to log in', () => {
  test('leave the second alone where the first works', async () => {
    const { logIn, did, warned } = setUp({ a: 'ok', b: 'ok' })
    assert.equal(await logIn(), 'token of a')
    assert.deepEqual([did, warned], [['a at 0 s'], []])
  })

  for (const code of ['AUTH_FAILED', 'AUTH_PERMANENT', 'AUTH_SOURCE', 'WRAP_REUSED'] as const)
    test(`go on to the second when the first fails for good: ${code}`, async () => {
      const { logIn, warned } = setUp({ a: code, b: 'ok' })
      assert.equal(await logIn(), 'token of b')
      const why = code === 'AUTH_SOURCE' ? 'no file of a' : `a is ${code}`
      assert.deepEqual(warned, [`logged in by vault.auth[1] b, since vault.auth[0] a failed: ${why}`])
    })

  for (const code of ['VAULT_UNREACHABLE', 'VAULT_TIMEOUT', 'VAULT_5XX', 'VAULT_SEALED', 'RATE_LIMITED'] as const)
    test(`do not go on when there is trouble on the way: ${code}`, async () => {
      const { logIn, did } = setUp({ a: code, b: 'ok' })
      assert.equal((await failure(logIn())).code, code)
      assert.deepEqual(did, ['a at 0 s'])
    })

  test('come back to the first as soon as it works', async () => {
    const { logIn, answers } = setUp({ a: 'AUTH_SOURCE', b: 'ok' })
    assert.equal(await logIn(), 'token of b')
    answers.a = 'ok'
    assert.equal(await logIn(), 'token of a')
  })

  test('spare what was refused, each by itself, and try at once what was replaced', async () => {
    const { logIn, did, clock, warned, answers, credentials } = setUp({ a: 'AUTH_FAILED', b: 'ok' })
    for (let n = 0; n < 5; n += 1) assert.equal(await logIn(), 'token of b')
    assert.deepEqual(did, ['a at 0 s', ...Array.from({ length: 5 }, () => 'b at 0 s')])
    assert.equal(warned.length, 1)
    await clock.advance(6000)
    await logIn()
    assert.deepEqual(did.slice(6), ['a at 6 s', 'b at 6 s'])
    await clock.advance(6000)
    await logIn()
    assert.deepEqual(did.slice(8), ['b at 12 s'])
    answers.a = 'ok'
    credentials.a = 2
    assert.equal(await logIn(), 'token of a')
  })

  test('that all fail are told with the reason of each, and are not tried again at once', async () => {
    const { logIn, did, clock } = setUp({ a: 'AUTH_FAILED', b: 'AUTH_PERMANENT' })
    const first = await failure(logIn())
    assert.equal(first.code, 'AUTH_FAILED')
    const [a, b] = ['vault.auth[0] a: a is AUTH_FAILED', 'vault.auth[1] b: b is AUTH_PERMANENT']
    assert.equal(first.message, `no login worked: ${a}; ${b}`)
    const second = await failure(logIn())
    const held = ' (the same credential is tried again in 5s)'
    assert.equal(second.message, `no login worked: ${a}${held}; ${b}${held}`)
    assert.equal(second.retryAfterMs, 5000)
    assert.equal(did.length, 2)
    await clock.advance(5000)
    await failure(logIn())
    assert.equal(did.length, 4)
  })

  test('that all fail the same way are told with that code', async () => {
    for (const code of ['AUTH_SOURCE', 'AUTH_PERMANENT', 'WRAP_REUSED'] as const) {
      const { logIn } = setUp({ a: code, b: code })
      assert.equal((await failure(logIn())).code, code)
    }
  })

  test('that are all refused, and one of them replaced, try that one alone', async () => {
    const { logIn, did, answers, credentials } = setUp({ a: 'AUTH_FAILED', b: 'AUTH_FAILED' })
    await failure(logIn())
    answers.b = 'ok'
    credentials.b = 2
    assert.equal(await logIn(), 'token of b')
    assert.deepEqual(did, ['a at 0 s', 'b at 0 s', 'b at 0 s'])
  })
})

describe('several ways to log in, in the config', () => {
  const jwt = { kind: 'jwt', token: 'e30.e30.e30' }

  test('are tried in its order', async () => {
    await using server = await startFaultProxy(({ url, headers }) => {
      if (url === '/v1/auth/jwt/login') return answer(400, { errors: ['no role'] })
      return headers['x-vault-token'] === 'hvs.second' ? lookupSelf : answer(403, { errors: ['permission denied'] })
    })
    const { vault, told } = openVault(server.address, { auth: [jwt, { kind: 'token', token: 'hvs.second' }] })
    await using _ = vault
    await vault.lookupSelf(forever)
    assert.deepEqual(
      server.requests.map(({ method, url }) => `${method} ${url}`),
      ['POST /v1/auth/jwt/login', 'GET /v1/auth/token/lookup-self', 'GET /v1/auth/token/lookup-self'],
    )
    const warnings = told.onWarning.map(({ message }) => message).filter((message) => message.startsWith('logged in'))
    assert.equal(warnings.length, 1)
    assert.match(
      warnings[0] ?? '',
      /^logged in by vault\.auth\[1\] token, since vault\.auth\[0\] jwt failed: Vault refused POST/,
    )
  })

  test('are named in messages by their places in it, one alone by its own', async () => {
    await using server = await startFaultProxy(() => answer(400, { errors: ['no role'] }))
    for (const [auth, place, more] of [
      [jwt, 'vault.auth.token', {}],
      [jwt, 'vaults.reports.auth.token', { place: 'vaults.reports' }],
      [[{ kind: 'token', tokenFile: '/nowhere' }, jwt], 'vault.auth[1].token', {}],
    ] as const) {
      await using vault = createVault(vaultOptions(server.address, { auth }), { ...recorder().deps, ...more })
      const { code, message } = await failure(vault.lookupSelf(forever))
      assert.equal(code, 'AUTH_FAILED')
      assert.ok(
        message.endsWith(`: no role; ${place} holds a JWT of nobody, issued by nobody, for no audience, without end`),
        message,
      )
      if (Array.isArray(auth))
        assert.ok(message.includes('vault.auth[0] token: cannot read /nowhere (ENOENT); vault.auth[1] jwt: '))
    }
  })
})
