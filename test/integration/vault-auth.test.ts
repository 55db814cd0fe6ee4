import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Vault } from '../../src/vault/client.ts'
import { createSource } from '../sources/contract.ts'
import { skipReason } from '../support/components.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { signOnly, startVault, type TestApprole, type TestVault } from '../support/vault.ts'
import { failure, forever, openVault } from '../vault/support.ts'

const skip = await skipReason('vault')
const POLICY = signOnly('pki', 'web')

describe('logging in to a real Vault', { skip }, () => {
  let server: TestVault
  let directory: string
  let opened: Vault[]
  before(async () => {
    server = await startVault()
    await server.setupPki()
    directory = await mkdtemp(join(tmpdir(), 'certferry-auth-'))
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(directory, { recursive: true })
  })
  beforeEach(() => {
    opened = []
  })
  afterEach(async () => {
    for (const vault of opened) await vault[Symbol.asyncDispose]()
  })

  const save = async (name: string, content: string) => {
    await writeFile(join(directory, name), content)
    return join(directory, name)
  }
  const open = (auth: object, more: object = {}, address = server.address) => {
    const made = openVault(address, { auth, ...more })
    opened.push(made.vault)
    return made
  }
  const approle = async (role: TestApprole, more: object = {}) => ({
    kind: 'approle',
    roleIdFile: await save(`${role.name}-id`, `${role.roleId}\n`),
    secretIdFile: await save(`${role.name}-secret`, `${await role.secretId()}\n`),
    ...more,
  })
  const issueWith = (vault: Vault, role = 'web') =>
    createSource({ kind: 'vault-pki', role, commonName: 'a.example.com' }, { vault: () => vault }).fetch(forever)
  /** How often each path was asked for since the mark. */
  const mark = async () => {
    const { length } = await server.audited()
    return async (path: string) =>
      (await server.audited()).slice(length).filter((request) => request.path === path).length
  }
  /** All approle tokens are gone, as after a revocation by an operator. */
  const revokeTokens = () => server.api('POST', 'sys/leases/revoke-prefix/auth/approle/login')

  test('approle issues with a policy that allows one verb on one role', async () => {
    const { vault, told } = open(await approle(await server.setupApprole({ policy: POLICY })))
    const count = await mark()
    await issueWith(vault)
    await issueWith(vault)
    assert.deepEqual([await count('auth/approle/login'), await count('pki/sign/web')], [1, 2])
    assert.deepEqual(
      told.onToken.map(({ how }) => how),
      ['login'],
    )
  })

  test('V12 a token revoked in between costs one more login and one more try', async () => {
    const { vault } = open(await approle(await server.setupApprole({ policy: POLICY })))
    await issueWith(vault)
    await revokeTokens()
    const count = await mark()
    await issueWith(vault)
    assert.deepEqual([await count('auth/approle/login'), await count('pki/sign/web')], [1, 2])
  })

  test('V12 one login is enough for many whose token was revoked', async () => {
    const { vault } = open(await approle(await server.setupApprole({ policy: POLICY })))
    await issueWith(vault)
    await revokeTokens()
    const count = await mark()
    await Promise.all(Array.from({ length: 20 }, () => issueWith(vault)))
    assert.equal(await count('auth/approle/login'), 1)
  })

  test('V16 what the policy does not allow is denied after exactly one new login', async () => {
    const { vault } = open(await approle(await server.setupApprole({ policy: POLICY })))
    await issueWith(vault)
    const count = await mark()
    const error = await failure(issueWith(vault, 'other'))
    assert.equal(error.code, 'PERMISSION_DENIED')
    assert.deepEqual([await count('auth/approle/login'), await count('pki/sign/other')], [1, 2])
  })

  test('a wrong secret_id, role_id or mount is a failed login', async () => {
    const role = await server.setupApprole({ policy: POLICY })
    const wrong = [{ secretId: 'wrong' }, { roleId: 'wrong' }, { mount: 'nosuch' }, { secretId: undefined }]
    for (const more of wrong) {
      const auth = { kind: 'approle', roleId: role.roleId, secretId: await role.secretId(), ...more }
      assert.equal((await failure(issueWith(open(auth).vault))).code, 'AUTH_FAILED', JSON.stringify(more))
    }
  })

  test('a role that binds no secret_id needs none', async () => {
    const policy = {
      policy: POLICY,
      role: { bind_secret_id: false, token_bound_cidrs: ['127.0.0.0/8'], secret_id_bound_cidrs: [] },
    }
    const role = await server.setupApprole(policy)
    await issueWith(open({ kind: 'approle', roleId: role.roleId }).vault)
  })

  test('V14 a secret_id for one login is used up after it', async () => {
    const role = await server.setupApprole({ policy: POLICY, role: { secret_id_num_uses: 1 } })
    const { vault } = open(await approle(role))
    await issueWith(vault)
    await revokeTokens()
    assert.equal((await failure(issueWith(vault))).code, 'AUTH_PERMANENT')
    await save(`${role.name}-secret`, await role.secretId())
    await issueWith(vault)
  })

  describe('with a secret_id that was chosen elsewhere (push)', () => {
    const push = async (role: TestApprole, secretId: string, more: object = {}) =>
      server.api('POST', `auth/approle/role/${role.name}/custom-secret-id`, { secret_id: secretId }, more)

    test('logs in with it, and with the next one once that is in the file', async () => {
      const role = await server.setupApprole({ policy: POLICY })
      const secretIdFile = await save('pushed', 'chosen-elsewhere-1')
      const { vault } = open(await approle(role, { secretIdFile }))
      assert.equal((await failure(issueWith(vault))).code, 'AUTH_FAILED')
      await push(role, 'chosen-elsewhere-2')
      await save('pushed', 'chosen-elsewhere-2')
      await issueWith(vault)
    })

    test('takes it wrapped as well', async () => {
      const role = await server.setupApprole({ policy: POLICY })
      const { wrap_info: wrapped } = await push(role, 'chosen-elsewhere-3', { headers: { 'X-Vault-Wrap-TTL': '300' } })
      const secretIdFile = await save('pushed-wrapped', wrapped?.token ?? '')
      const { vault, told } = open(await approle(role, { secretIdFile, secretIdWrapped: true }))
      await issueWith(vault)
      assert.deepEqual(told.onWrapReused, [])
    })
  })

  describe('with a secret_id that is bound to addresses', () => {
    const HERE = '127.0.0.1/32'
    const ELSEWHERE = '127.0.0.2/32'

    test('logs in from one of them, be it the role or the secret_id that is bound', async () => {
      const role = await server.setupApprole({ policy: POLICY, role: { secret_id_bound_cidrs: ['127.0.0.0/8'] } })
      const secretIdFile = await save('bound', await role.secretId({ cidr_list: [HERE], token_bound_cidrs: [HERE] }))
      await issueWith(open(await approle(role, { secretIdFile })).vault)
    })

    test('is told from where Vault saw it come when that is another one', async () => {
      const role = await server.setupApprole({ policy: POLICY })
      const secretIdFile = await save('bound', await role.secretId({ cidr_list: [ELSEWHERE] }))
      const { code, message } = await failure(issueWith(open(await approle(role, { secretIdFile })).vault))
      assert.equal(code, 'AUTH_FAILED')
      assert.match(message, /source address "127\.0\.0\.1" unauthorized through CIDR restrictions on the secret ID$/)
    })

    test('is not taken for used up when its role is bound to others later, and works once that is undone', async () => {
      const role = await server.setupApprole({ policy: POLICY })
      const auth = await approle(role)
      const { vault } = open(auth)
      await issueWith(vault)
      await revokeTokens()
      await server.api('POST', `auth/approle/role/${role.name}`, { secret_id_bound_cidrs: [ELSEWHERE] })
      const { code, message } = await failure(issueWith(vault))
      assert.equal(code, 'AUTH_FAILED')
      assert.match(message, /source address "127\.0\.0\.1" unauthorized by CIDR restrictions on the role/)
      await server.api('POST', `auth/approle/role/${role.name}`, { secret_id_bound_cidrs: [HERE] })
      await issueWith(open(auth).vault)
    })

    test('whose token is bound to another one is denied after exactly one new login', async () => {
      const role = await server.setupApprole({ policy: POLICY })
      const secretIdFile = await save('bound', await role.secretId({ token_bound_cidrs: [ELSEWHERE] }))
      const { vault } = open(await approle(role, { secretIdFile }))
      const count = await mark()
      assert.equal((await failure(issueWith(vault))).code, 'PERMISSION_DENIED')
      assert.equal(await count('auth/approle/login'), 2)
    })
  })

  test('a wrapped secret_id is unwrapped once and serves later logins too', async () => {
    const role = await server.setupApprole({ policy: POLICY })
    const secretIdFile = await save('wrapped', await role.wrappedSecretId())
    const { vault, told } = open(await approle(role, { secretIdFile, secretIdWrapped: true }))
    const count = await mark()
    await issueWith(vault)
    await revokeTokens()
    await issueWith(vault)
    assert.deepEqual([await count('sys/wrapping/unwrap'), await count('auth/approle/login')], [1, 2])
    assert.deepEqual(told.onWrapReused, [])
  })

  test('V14 a wrapping token that somebody else used raises the alarm, and a new one works', async () => {
    const role = await server.setupApprole({ policy: POLICY })
    const stolen = await role.wrappedSecretId()
    await server.api('POST', 'sys/wrapping/unwrap', undefined, { token: stolen })
    const secretIdFile = await save('stolen', stolen)
    const { vault, told } = open(await approle(role, { secretIdFile, secretIdWrapped: true }))
    const error = await failure(issueWith(vault))
    assert.equal(error.code, 'WRAP_REUSED')
    assert.ok(!error.message.includes(stolen))
    assert.deepEqual(told.onWrapReused, [{ file: secretIdFile }])
    await save('stolen', await role.wrappedSecretId())
    await issueWith(vault)
  })

  test('V14 a wrapping token around something else raises the alarm', async () => {
    const role = await server.setupApprole({ policy: POLICY })
    const { wrap_info: forged } = await server.api(
      'POST',
      'sys/wrapping/wrap',
      { secret_id: await role.secretId() },
      { headers: { 'X-Vault-Wrap-TTL': '300' } },
    )
    const secretIdFile = await save('forged', forged?.token ?? '')
    const { vault, told } = open(await approle(role, { secretIdFile, secretIdWrapped: true }))
    assert.equal((await failure(issueWith(vault))).code, 'WRAP_REUSED')
    assert.equal(told.onWrapReused.length, 1)
  })

  test('a token file is read again when its token was revoked', async () => {
    const first = await server.createToken({ policy: POLICY })
    const tokenFile = await save('token', `${first}\n`)
    const { vault } = open({ kind: 'token', tokenFile })
    await issueWith(vault)
    await server.api('POST', 'auth/token/revoke-self', {}, { token: first })
    await save('token', await server.createToken({ policy: POLICY }))
    await issueWith(vault)
  })

  describe('with a wrapped token', () => {
    const wrap = async (path: string, body: object) => {
      const { wrap_info: wrapped } = await server.api('POST', path, body, { headers: { 'X-Vault-Wrap-TTL': '300' } })
      return wrapped?.token ?? ''
    }
    const wrappedToken = async (path = 'auth/token/create') =>
      wrap(path, { policies: [await server.createPolicy(POLICY)] })

    test('unwraps it once, and goes on with the token in it', async () => {
      await server.api('POST', 'auth/token/roles/app', { allowed_policies_glob: ['*'] })
      for (const path of ['auth/token/create', 'auth/token/create-orphan', 'auth/token/create/app']) {
        const tokenFile = await save('wrapped-token', `${await wrappedToken(path)}\n`)
        const { vault, told } = open({ kind: 'token', tokenFile, wrapped: true })
        const count = await mark()
        await issueWith(vault)
        // A 403 takes the token to be looked up again.
        assert.equal((await failure(issueWith(vault, 'other'))).code, 'PERMISSION_DENIED')
        assert.deepEqual([await count('sys/wrapping/unwrap'), await count('auth/token/lookup-self')], [1, 2])
        assert.deepEqual(told.onWrapReused, [])
      }
    })

    test('V14 that somebody else unwrapped raises the alarm, and a new one works', async () => {
      const stolen = await wrappedToken()
      await server.api('POST', 'sys/wrapping/unwrap', undefined, { token: stolen })
      const tokenFile = await save('stolen-token', stolen)
      const { vault, told } = open({ kind: 'token', tokenFile, wrapped: true })
      const { code, message } = await failure(issueWith(vault))
      assert.equal(code, 'WRAP_REUSED')
      assert.ok(!message.includes(stolen))
      assert.deepEqual(told.onWrapReused, [{ file: tokenFile }])
      await save('stolen-token', await wrappedToken())
      await issueWith(vault)
    })

    test('V14 that serves a second process raises the alarm there', async () => {
      const tokenFile = await save('shared-token', await wrappedToken())
      await issueWith(open({ kind: 'token', tokenFile, wrapped: true }).vault)
      const { vault, told } = open({ kind: 'token', tokenFile, wrapped: true })
      assert.equal((await failure(issueWith(vault))).code, 'WRAP_REUSED')
      assert.equal(told.onWrapReused.length, 1)
    })

    test('V14 that wraps something else raises the alarm, and is left as it is', async () => {
      const forged = await wrap('sys/wrapping/wrap', { client_token: await server.createToken({ policy: POLICY }) })
      const tokenFile = await save('forged-token', forged)
      const { vault, told } = open({ kind: 'token', tokenFile, wrapped: true })
      const { code, message } = await failure(issueWith(vault))
      assert.equal(code, 'WRAP_REUSED')
      assert.match(message, /it was made by sys\/wrapping\/wrap, not by auth\/token\/create$/)
      assert.equal(told.onWrapReused.length, 1)
      await server.api('POST', 'sys/wrapping/unwrap', undefined, { token: forged })
    })

    test('V14 whose token has ended asks for a new one, and takes it', async () => {
      const tokenFile = await save('ended-token', await wrap('auth/token/create', { ttl: '300s', num_uses: 1 }))
      const { vault } = open({ kind: 'token', tokenFile, wrapped: true })
      assert.equal((await failure(issueWith(vault))).code, 'AUTH_PERMANENT')
      await save('ended-token', await wrappedToken())
      await issueWith(vault)
    })
  })

  test('a batch token, which cannot be renewed, does as well', async () => {
    const token = await server.createToken({ policy: POLICY, body: { type: 'batch', ttl: '60s' } })
    const { vault, told } = open({ kind: 'token', token })
    await issueWith(vault)
    assert.deepEqual(
      told.onToken.map(({ renewable }) => renewable),
      [false],
    )
  })

  test('of several methods the next one is tried when one fails for good, and none while Vault is sealed', async () => {
    const role = await server.setupApprole({ policy: POLICY })
    const used = await role.wrappedSecretId()
    await server.api('POST', 'sys/wrapping/unwrap', undefined, { token: used })
    const usedFile = await save('used', used)
    const good = await approle(role)
    const auth = [
      { kind: 'kubernetes', role: 'web', tokenFile: join(directory, 'missing') },
      { kind: 'jwt', role: 'web', token: 'e30.e30.e30' },
      { ...good, secretIdFile: usedFile, secretIdWrapped: true },
      good,
    ]
    const { vault, told } = open(auth)
    await server.seal()
    try {
      assert.equal((await failure(issueWith(vault))).code, 'VAULT_SEALED')
    } finally {
      await server.unseal()
    }
    await until(async () => (await vault.health(forever)).usable)
    const count = await mark()
    await issueWith(vault)
    await revokeTokens()
    await issueWith(vault)
    assert.deepEqual([await count('auth/jwt/login'), await count('auth/approle/login')], [1, 2])
    assert.deepEqual(told.onWrapReused, [{ file: usedFile }])
    const { vault: hopeless } = open(auth.slice(0, 3))
    const { code, message } = await failure(issueWith(hopeless))
    assert.equal(code, 'AUTH_FAILED')
    const reasons = [
      /vault\.auth\[0\] kubernetes: cannot read \S+missing \(ENOENT\)/,
      /; vault\.auth\[1\] jwt: Vault refused POST auth\/jwt\/login \(403\)/,
      /; vault\.auth\[2\] approle: wrapping token in \S+used: Vault refused/,
    ]
    for (const reason of reasons) assert.match(message, reason)
  })

  test('V13 a token is renewed until its max TTL is near, then replaced', async () => {
    const role = await server.setupApprole({ policy: POLICY, role: { token_ttl: '3s', token_max_ttl: '6s' } })
    const { vault, told } = open(await approle(role))
    const count = await mark()
    await issueWith(vault)
    await until(() => told.onToken.filter(({ how }) => how === 'login').length === 2)
    const renewals = await count('auth/token/renew-self')
    assert.ok(renewals >= 1 && renewals <= 3, `${renewals}`)
    assert.deepEqual(told.onTokenFailed, [])
    await issueWith(vault)
    assert.equal(await count('auth/approle/login'), 2)
  })

  test('V13 a token that may not renew itself is replaced, without hammering', async () => {
    const role = await server.setupApprole({ policy: POLICY, role: { token_ttl: '3s', token_no_default_policy: true } })
    const { vault, told } = open(await approle(role))
    const count = await mark()
    await issueWith(vault)
    await until(() => told.onToken.length === 3)
    assert.deepEqual(
      told.onToken.map(({ how }) => how),
      ['login', 'login', 'login'],
    )
    assert.deepEqual([await count('auth/token/renew-self'), await count('auth/approle/login')], [2, 3])
  })

  test('V1 a sealed Vault is not asked for a new login, and works with the old token once unsealed', async () => {
    const { vault } = open(await approle(await server.setupApprole({ policy: POLICY })))
    await issueWith(vault)
    const count = await mark()
    await server.seal()
    try {
      for (let n = 0; n < 3; n += 1) assert.equal((await failure(issueWith(vault))).code, 'VAULT_SEALED')
      assert.deepEqual((({ sealed, usable }) => ({ sealed, usable }))(await vault.health(forever)), {
        sealed: true,
        usable: false,
      })
    } finally {
      await server.unseal()
    }
    await until(async () => (await vault.health(forever)).usable)
    await issueWith(vault)
    assert.equal(await count('auth/approle/login'), 0)
  })

  test('V4 a rate-limit quota is told with how long to wait', async () => {
    const { vault } = open(await approle(await server.setupApprole({ policy: POLICY })))
    await server.api('POST', 'sys/quotas/config', { enable_rate_limit_response_headers: true })
    await server.api('POST', 'sys/quotas/rate-limit/few', { path: 'pki/', rate: 1, interval: '30s' })
    try {
      await issueWith(vault)
      const error = await failure(issueWith(vault))
      assert.equal(error.code, 'RATE_LIMITED')
      assert.ok(error.retryAfterMs !== undefined && error.retryAfterMs > 0 && error.retryAfterMs <= 30_000)
    } finally {
      await server.api('DELETE', 'sys/quotas/rate-limit/few')
    }
  })

  test('a hundred certificates share one login, eight requests at a time and as few connections', async () => {
    await using proxy = await startFaultProxy(undefined, { target: server.address })
    const auth = await approle(await server.setupApprole({ policy: POLICY }))
    const { vault } = open(auth, {}, proxy.address)
    const count = await mark()
    // The first ones are held until eight are there, so that a slow machine does not have them one after the other.
    let signing = 0
    proxy.onRequest = async ({ url }) => {
      if (!url.includes('/sign/')) return undefined
      signing += 1
      await until(() => signing >= 8)
      return undefined
    }
    const bundles = await Promise.all(Array.from({ length: 100 }, () => issueWith(vault)))
    assert.equal(new Set(bundles.map(({ serial }) => serial)).size, 100)
    assert.deepEqual([await count('auth/approle/login'), await count('pki/sign/web')], [1, 100])
    assert.equal(proxy.busiest(), 8)
    assert.ok(proxy.connections() <= 10, `${proxy.connections()}`)
  })
})

/** Waits for a condition, a minute at most. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const started = Date.now(); !(await condition()); await sleep(20))
    assert.ok(Date.now() - started < 60_000, `still waiting for ${condition}`)
}
