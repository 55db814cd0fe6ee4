import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { answer, type FaultProxy, type SeenRequest, startFaultProxy } from '../support/fault-proxy.ts'
import { failure, forever, openVault } from './support.ts'

let directory: string
const path = (name: string) => join(directory, name)
const save = async (name: string, text: string) => {
  await writeFile(path(name), text)
  return path(name)
}
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'certferry-auth-'))
})
after(() => rm(directory, { recursive: true }))

const refused = answer(400, { errors: ['invalid role or secret ID'] })
const usedUp = answer(400, { errors: ['wrapping token is not valid or does not exist'] })
const gone = answer(403, { errors: ['permission denied'] })

/** A Vault with an approle mount that accepts these secret_ids, and one response-wrapping token. */
function approleVault({
  secrets = ['secret'],
  wrapping = 'wrap-1',
  creationPath = 'auth/approle/role/app/secret-id',
} = {}) {
  let wrapped = true
  const tokens = new Set<string>()
  return ({ url, body, headers }: SeenRequest) => {
    const sent: unknown = body === '' ? {} : JSON.parse(body)
    const field = (name: string) =>
      typeof sent === 'object' && sent !== null ? Object.entries(sent).find(([key]) => key === name)?.[1] : undefined
    switch (url) {
      case '/v1/auth/approle/login': {
        if (field('role_id') !== 'role-1' || !secrets.includes(String(field('secret_id') ?? 'none'))) return refused
        tokens.add(`hvs.${tokens.size}`)
        return answer(200, { auth: { client_token: `hvs.${tokens.size - 1}`, lease_duration: 3600, renewable: true } })
      }
      case '/v1/sys/wrapping/lookup':
        return wrapped && field('token') === wrapping ? answer(200, { data: { creation_path: creationPath } }) : usedUp
      case '/v1/sys/wrapping/unwrap': {
        if (!wrapped || headers['x-vault-token'] !== wrapping) return usedUp
        wrapped = false
        return answer(200, { data: { secret_id: secrets[0] } })
      }
      case '/v1/auth/token/lookup-self':
        return tokens.has(String(headers['x-vault-token']))
          ? answer(200, { data: { ttl: 3600, renewable: true, policies: [], display_name: '' } })
          : gone
      default:
        return gone
    }
  }
}

const logins = ({ requests }: FaultProxy) => requests.filter(({ url }) => url.endsWith('/login')).length

describe('auth approle', () => {
  test('logs in with what the files hold, without the line break at the end', async () => {
    await using server = await startFaultProxy(approleVault())
    const auth = {
      kind: 'approle',
      roleIdFile: await save('role-1', 'role-1\n'),
      secretIdFile: await save('secret', ' secret\n'),
    }
    const { vault, told } = openVault(server.address, { auth })
    await using _ = vault
    await vault.lookupSelf(forever)
    assert.equal(server.requests[0]?.body, '{"role_id":"role-1","secret_id":"secret"}')
    assert.equal(server.requests[0]?.headers['x-vault-token'], undefined)
    assert.equal(server.requests[1]?.headers['x-vault-token'], 'hvs.0')
    assert.deepEqual(
      told.onToken.map(({ how, renewable }) => [how, renewable]),
      [['login', true]],
    )
  })

  test('needs no secret_id where the role binds none', async () => {
    await using server = await startFaultProxy(approleVault({ secrets: ['none'] }))
    const { vault } = openVault(server.address, { auth: { kind: 'approle', roleId: 'role-1' } })
    await using _ = vault
    await vault.lookupSelf(forever)
    assert.equal(server.requests[0]?.body, '{"role_id":"role-1"}')
  })

  test('V15 says which file is missing or empty, asks nothing, and goes on once it is there', async () => {
    await using server = await startFaultProxy(approleVault())
    const secretIdFile = path('late')
    const { vault } = openVault(server.address, { auth: { kind: 'approle', roleId: 'role-1', secretIdFile } })
    await using _ = vault
    for (const content of [undefined, '\n']) {
      if (content !== undefined) await save('late', content)
      const error = await failure(vault.lookupSelf(forever))
      assert.equal(error.code, 'AUTH_SOURCE')
      assert.ok(error.message.includes(secretIdFile))
    }
    assert.equal(server.requests.length, 0)
    await save('late', 'secret')
    await vault.lookupSelf(forever)
  })

  test('V15 a secret_id that was replaced is used at once, though the old one was just refused', async () => {
    await using server = await startFaultProxy(approleVault())
    const secretIdFile = await save('wrong', 'wrong')
    const { vault } = openVault(server.address, { auth: { kind: 'approle', roleId: 'role-1', secretIdFile } })
    await using _ = vault
    const error = await failure(vault.lookupSelf(forever))
    assert.equal(error.code, 'AUTH_FAILED')
    assert.equal(error.message, 'Vault refused POST auth/approle/login (400): invalid role or secret ID')
    await save('wrong', 'secret')
    await vault.lookupSelf(forever)
    assert.equal(logins(server), 2)
  })

  test('V14 a secret_id that worked before and is refused now is used up', async () => {
    const secrets = ['secret']
    await using server = await startFaultProxy(approleVault({ secrets }))
    const { vault } = openVault(server.address, { auth: { kind: 'approle', roleId: 'role-1', secretId: 'secret' } })
    await using _ = vault
    await vault.lookupSelf(forever)
    secrets.length = 0
    const error = await failure(vault.sign({ mount: 'pki', role: 'web', body: {} }, forever))
    assert.equal(error.code, 'AUTH_PERMANENT')
  })

  test('a role that is locked out after the failed logins of others is not taken for a used-up secret_id', async () => {
    await using server = await startFaultProxy(approleVault())
    const { vault } = openVault(server.address, { auth: { kind: 'approle', roleId: 'role-1', secretId: 'secret' } })
    await using _ = vault
    await vault.lookupSelf(forever)
    server.onRequest = () => gone
    assert.equal((await failure(vault.lookupSelf(forever))).code, 'AUTH_FAILED')
  })

  describe('with a wrapped secret_id', () => {
    const wrappedAuth = async (token = 'wrap-1') => ({
      kind: 'approle',
      roleId: 'role-1',
      secretIdFile: await save('wrapped', `${token}\n`),
      secretIdWrapped: true,
    })

    test('unwraps it once, and logs in with it again and again', async () => {
      await using server = await startFaultProxy(approleVault())
      const { vault, told } = openVault(server.address, { auth: await wrappedAuth() })
      await using _ = vault
      await vault.lookupSelf(forever)
      assert.equal(
        (await failure(vault.sign({ mount: 'pki', role: 'web', body: {} }, forever))).code,
        'PERMISSION_DENIED',
      )
      assert.equal(logins(server), 2)
      assert.equal(server.requests.filter(({ url }) => url.endsWith('/unwrap')).length, 1)
      assert.deepEqual(told.onWrapReused, [])
    })

    test('V14 that somebody else unwrapped raises the alarm', async () => {
      await using server = await startFaultProxy(approleVault({ wrapping: 'another' }))
      const { vault, told } = openVault(server.address, { auth: await wrappedAuth() })
      await using _ = vault
      const error = await failure(vault.lookupSelf(forever))
      assert.equal(error.code, 'WRAP_REUSED')
      assert.doesNotMatch(error.message, /wrap-1/)
      assert.deepEqual(told.onWrapReused, [{ file: path('wrapped') }])
      assert.equal(logins(server), 0)
    })

    test('of another path raises the alarm before it is unwrapped', async () => {
      for (const creationPath of ['cubbyhole/x', 'auth/other/role/app/secret-id', 'sys/wrapping/wrap']) {
        await using server = await startFaultProxy(approleVault({ creationPath }))
        const { vault, told } = openVault(server.address, { auth: await wrappedAuth() })
        await using _ = vault
        assert.equal((await failure(vault.lookupSelf(forever))).code, 'WRAP_REUSED')
        assert.equal(told.onWrapReused.length, 1)
        assert.ok(server.requests.every(({ url }) => url === '/v1/sys/wrapping/lookup'))
      }
    })

    test('is no alarm while Vault is sealed, or lets nobody in', async () => {
      const rows = [
        [answer(503, { errors: ['Vault is sealed'] }), 'VAULT_SEALED'],
        [gone, 'AUTH_FAILED'],
      ] as const
      for (const [reply, code] of rows) {
        await using server = await startFaultProxy(() => reply)
        const { vault, told } = openVault(server.address, { auth: await wrappedAuth() })
        await using _ = vault
        assert.equal((await failure(vault.lookupSelf(forever))).code, code)
        assert.deepEqual(told.onWrapReused, [])
      }
    })
  })
})

describe('auth token', () => {
  const knows = (...tokens: string[]) =>
    startFaultProxy(({ headers }) =>
      tokens.includes(String(headers['x-vault-token']))
        ? answer(200, { data: { ttl: 0, renewable: false, policies: ['root'], display_name: 'root' } })
        : gone,
    )

  test('looks the token up, to learn how long it lives', async () => {
    await using server = await knows('hvs.fixed')
    const { vault, told } = openVault(server.address, { auth: { kind: 'token', token: 'hvs.fixed' } })
    await using _ = vault
    await vault.lookupSelf(forever)
    assert.deepEqual(told.onToken, [{ expiresAt: undefined, renewable: false, how: 'login' }])
  })

  test('does not take a token in its last second for one that never expires', async () => {
    const expiring = { ttl: 0, expire_time: '2030-01-01T00:00:00Z', renewable: false, policies: [], display_name: '' }
    await using server = await startFaultProxy(() => answer(200, { data: expiring }))
    const { vault, told } = openVault(server.address, { auth: { kind: 'token', token: 'hvs.last' } })
    await using _ = vault
    await vault.lookupSelf(forever)
    assert.notEqual(told.onToken[0]?.expiresAt, undefined)
  })

  test('V12 reads the file again when the old token is refused', async () => {
    await using server = await knows('hvs.new')
    const tokenFile = await save('token', 'hvs.old')
    const { vault } = openVault(server.address, { auth: { kind: 'token', tokenFile } })
    await using _ = vault
    const error = await failure(vault.lookupSelf(forever))
    assert.equal(error.code, 'AUTH_FAILED')
    assert.equal(error.message, 'Vault refused GET auth/token/lookup-self (403): permission denied')
    await save('token', 'hvs.new\n')
    await vault.lookupSelf(forever)
  })

  test('refuses a file that no token comes from', async () => {
    await using server = await knows()
    const files = [
      await save('long', 'x'.repeat(70_000)),
      await save('two', 'hvs.a\nhvs.b'),
      await save('binary', 'ÿ\0'),
    ]
    for (const tokenFile of [directory, path('missing'), ...files]) {
      const { vault } = openVault(server.address, { auth: { kind: 'token', tokenFile } })
      await using _ = vault
      assert.equal((await failure(vault.lookupSelf(forever))).code, 'AUTH_SOURCE')
    }
    assert.equal(server.requests.length, 0)
  })
})

/** A JWT as an API server makes it, but for its signature. */
const jwtOf = (claims: object) =>
  [{ alg: 'RS256' }, claims, 'signature']
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.')

const serviceAccount = (name = 'web', more: object = {}) =>
  jwtOf({
    iss: 'https://kubernetes.default.svc',
    sub: `system:serviceaccount:shop:${name}`,
    aud: ['vault'],
    exp: Date.UTC(2030, 0, 1) / 1000,
    ...more,
  })

/** A Vault with one login path that takes these JWTs, and what it answers to others. */
const jwtVault =
  (path: string, known: readonly string[], refusal = gone) =>
  ({ url, body }: SeenRequest) => {
    if (url === '/v1/auth/token/lookup-self')
      return answer(200, { data: { ttl: 3600, renewable: true, policies: [], display_name: '' } })
    if (url !== path) return answer(404, { errors: ['no handler for route'] })
    if (!known.some((jwt) => body.includes(`"${jwt}"`))) return refusal
    return answer(200, { auth: { client_token: 'hvs.jwt', lease_duration: 3600, renewable: true } })
  }

for (const kind of ['kubernetes', 'jwt']) {
  describe(`auth ${kind}`, () => {
    test('sends role and token as the file holds them, to the mount', async () => {
      for (const mount of [kind, 'clusters/east']) {
        await using server = await startFaultProxy(jwtVault(`/v1/auth/${mount}/login`, [serviceAccount()]))
        const tokenFile = await save('jwt', `${serviceAccount()}\n`)
        const auth = { kind, role: 'web', tokenFile, ...(mount === kind ? {} : { mount }) }
        const { vault } = openVault(server.address, { auth })
        await using _ = vault
        await vault.lookupSelf(forever)
        assert.deepEqual(JSON.parse(server.requests[0]?.body ?? ''), { role: 'web', jwt: serviceAccount() })
        assert.equal(server.requests[0]?.headers['x-vault-token'], undefined)
        assert.equal(server.requests[1]?.headers['x-vault-token'], 'hvs.jwt')
      }
    })

    test('V15 logs in with the token that is in the file by then, though the old one was just refused', async () => {
      await using server = await startFaultProxy(jwtVault(`/v1/auth/${kind}/login`, [serviceAccount('next')]))
      const tokenFile = await save('rotated', serviceAccount())
      const { vault } = openVault(server.address, { auth: { kind, role: 'web', tokenFile } })
      await using _ = vault
      assert.equal((await failure(vault.lookupSelf(forever))).code, 'AUTH_FAILED')
      await save('rotated', serviceAccount('next'))
      await vault.lookupSelf(forever)
      assert.equal(logins(server), 2)
    })

    test('V15 says which file is missing, asks nothing, and goes on once it is there', async () => {
      await using server = await startFaultProxy(jwtVault(`/v1/auth/${kind}/login`, [serviceAccount()]))
      const tokenFile = path(`late-${kind}`)
      const { vault } = openVault(server.address, { auth: { kind, role: 'web', tokenFile } })
      await using _ = vault
      const error = await failure(vault.lookupSelf(forever))
      assert.equal(error.code, 'AUTH_SOURCE')
      assert.equal(error.message, `cannot read ${tokenFile} (ENOENT)`)
      assert.match(error.kind.hint, /projected volume with a serviceAccountToken/)
      assert.equal(server.requests.length, 0)
      await save(`late-${kind}`, serviceAccount())
      await vault.lookupSelf(forever)
    })

    const refusals: [title: string, token: string, told: string][] = [
      [
        'of another service account',
        serviceAccount('other'),
        'holds a JWT of system:serviceaccount:shop:other, issued by https://kubernetes.default.svc, for audience vault, valid until 2030-01-01T00:00:00.000Z',
      ],
      [
        'for several audiences',
        serviceAccount('web', { aud: ['a', 'b'] }),
        'holds a JWT of system:serviceaccount:shop:web, issued by https://kubernetes.default.svc, for audience a, b, valid until 2030-01-01T00:00:00.000Z',
      ],
      ['that says nothing', jwtOf({}), 'holds a JWT of nobody, issued by nobody, for no audience, without end'],
      [
        'with control characters in it',
        jwtOf({ sub: 'a\r\nb\x1b[0m', aud: 'vault' }),
        'holds a JWT of a\\x0d b\\x1b[0m, issued by nobody, for audience vault, without end',
      ],
      ['with a date beyond all time', jwtOf({ exp: 1e300 }), 'holds no JWT'],
      ['with claims of other types', jwtOf({ sub: 1, aud: [{}] }), 'holds no JWT'],
      ['whose claims are no JSON', 'e30.e30x.e30', 'holds no JWT'],
      ['that is none', 'hvs.not-a-jwt', 'holds no JWT'],
    ]
    for (const [title, token, told] of refusals)
      test(`tells of a refused token ${title} what it says of itself, and never the token`, async () => {
        const refusal = answer(403, { errors: [`permission denied to ${token}`] })
        await using server = await startFaultProxy(jwtVault(`/v1/auth/${kind}/login`, [], refusal))
        const tokenFile = await save('refused', token)
        const { vault } = openVault(server.address, { auth: { kind, role: 'web', tokenFile } })
        await using _ = vault
        const { code, message } = await failure(vault.lookupSelf(forever))
        const start = `Vault refused POST auth/${kind}/login (403): permission denied to [secret]; `
        assert.deepEqual([code, message], ['AUTH_FAILED', `${start}${tokenFile} ${told}`])
      })

    test('a role, audience or mount that Vault does not know is a failed login, with its reason', async () => {
      const rows = [
        answer(400, { errors: ['invalid role name "web"'] }),
        answer(400, { errors: ['error validating token: invalid audience (aud) claim'] }),
        answer(404, { errors: ['no handler for route "auth/x/login"'] }),
      ]
      for (const refusal of rows) {
        await using server = await startFaultProxy(jwtVault(`/v1/auth/${kind}/login`, [], refusal))
        const tokenFile = await save('unknown', serviceAccount())
        const { vault } = openVault(server.address, { auth: { kind, role: 'web', tokenFile } })
        await using _ = vault
        const { code, message } = await failure(vault.lookupSelf(forever))
        assert.equal(code, 'AUTH_FAILED')
        assert.match(message, /invalid role name|invalid audience|no handler/)
      }
    })
  })
}

describe('auth jwt', () => {
  test('takes the token of the config, and leaves the role to the mount', async () => {
    await using server = await startFaultProxy(jwtVault('/v1/auth/jwt/login', [serviceAccount()]))
    const { vault } = openVault(server.address, { auth: { kind: 'jwt', token: serviceAccount() } })
    await using _ = vault
    await vault.lookupSelf(forever)
    assert.deepEqual(JSON.parse(server.requests[0]?.body ?? ''), { jwt: serviceAccount() })
  })

  test('tells of a refused token of the config where it stands', async () => {
    await using server = await startFaultProxy(jwtVault('/v1/auth/jwt/login', []))
    const { vault } = openVault(server.address, { auth: { kind: 'jwt', token: serviceAccount() } })
    await using _ = vault
    const { message } = await failure(vault.lookupSelf(forever))
    assert.match(message, /permission denied; vault\.auth\.token holds a JWT of system:serviceaccount:shop:web/)
  })
})
