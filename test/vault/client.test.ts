import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { answer, type Fault, type FaultProxy, type SeenRequest, startFaultProxy } from '../support/fault-proxy.ts'
import { answering, failure, forever, lookupSelf, openVault, request } from './support.ts'

const issued = answer(200, { data: { certificate: 'PEM', issuing_ca: 'CA', ca_chain: ['CA'] }, warnings: ['TTL cut'] })
const denied = answer(403, { errors: ['permission denied'] })
const urls = ({ requests }: FaultProxy) => requests.map(({ method, url }) => `${method} ${url}`)

describe('a client of Vault', () => {
  test('logs in once, and sends the token and what marks the request', async () => {
    await using server = await startFaultProxy(answering(issued))
    const { vault, told } = openVault(server.address, { namespace: 'team/web' })
    await using _ = vault
    const [one] = await Promise.all([vault.sign(request, forever), vault.sign(request, forever)])
    assert.deepEqual(one, { certificate: 'PEM', issuingCa: 'CA', caChain: ['CA'] })
    assert.deepEqual(urls(server), ['GET /v1/auth/token/lookup-self', 'POST /v1/pki/sign/web', 'POST /v1/pki/sign/web'])
    const seen = server.requests[1]
    assert.equal(seen?.body, '{"common_name":"a.example.com"}')
    assert.equal(seen?.headers['x-vault-token'], 'hvs.canary-token')
    assert.equal(seen?.headers['x-vault-namespace'], 'team/web')
    assert.equal(seen?.headers['x-vault-request'], 'true')
    assert.deepEqual(
      told.onRequest.map(({ operation, status }) => `${operation} ${status}`),
      ['lookup-self 200', 'sign 200', 'sign 200'],
    )
  })

  test('takes no token, namespace or prefix from the environment', async () => {
    await using server = await startFaultProxy(() => answer(200, { initialized: true, sealed: false }))
    const names = ['VAULT_TOKEN', 'VAULT_NAMESPACE', 'VAULT_PREFIX', 'VAULT_ADDR']
    for (const name of names) process.env[name] = 'http://127.0.0.1:1/canary'
    try {
      const { vault } = openVault(server.address)
      await using _ = vault
      await vault.health(forever)
    } finally {
      for (const name of names) delete process.env[name]
    }
    assert.deepEqual(urls(server), ['GET /v1/sys/health'])
    assert.doesNotMatch(JSON.stringify(server.requests), /canary/)
  })

  test('names the issuer in the path and encodes every segment', async () => {
    await using server = await startFaultProxy(answering(issued))
    const { vault } = openVault(server.address)
    await using _ = vault
    await vault.sign({ ...request, mount: 'team a/pki', role: 'w?b', issuerRef: 'main' }, forever)
    assert.equal(urls(server).at(-1), 'POST /v1/team%20a/pki/issuer/main/sign/w%3Fb')
    const error = await failure(vault.sign({ ...request, role: '../../sys/seal' }, forever))
    assert.equal(error.code, 'CONFIG_INVALID')
    assert.equal(server.requests.length, 2)
  })

  const gateway = answer(504, '<html>', { 'content-type': 'text/html' })
  const FAILURES: Readonly<Record<string, [to: Parameters<typeof startFaultProxy>[0], mayHaveIssued: boolean]>> = {
    'an answer cut off by a reset': [answering({ kind: 'reset' }), true],
    'no answer in time': [answering({ kind: 'silence' }), true],
    'half an answer': [answering({ kind: 'part', body: '{"data":', length: 100, end: 'close' }), true],
    'a page of a gateway': [answering(gateway), true],
    'an answer without a certificate': [answering(answer(200, { data: {} })), true],
    'a refusal of Vault': [answering(answer(400, { errors: ['common name not allowed by this role'] })), false],
    'a sealed Vault': [answering(answer(503, { errors: ['Vault is sealed'] })), false],
    'an internal error of Vault': [answering(answer(500, { errors: ['internal error'] })), false],
    'a login without an answer': [() => ({ kind: 'silence' }), false],
    'a login that a gateway answers': [() => gateway, false],
  }
  for (const [what, [to, mayHaveIssued]] of Object.entries(FAILURES))
    test(`V7 ${what} ${mayHaveIssued ? 'may have cost' : 'cost no'} certificate`, async () => {
      await using server = await startFaultProxy(to)
      const { vault } = openVault(server.address, { timeouts: { total: '500ms' } })
      await using _ = vault
      assert.equal((await failure(vault.sign(request, forever))).mayHaveIssued, mayHaveIssued)
    })

  test('V7 a Vault that cannot be connected to has issued nothing', async () => {
    const server = await startFaultProxy(answering(issued))
    await server[Symbol.asyncDispose]()
    const { vault } = openVault(server.address)
    await using _ = vault
    assert.equal((await failure(vault.sign(request, forever))).mayHaveIssued, false)
  })

  test('V12 after a 403 logs in once more and tries once more', async () => {
    let asked = 0
    await using server = await startFaultProxy(answering(() => (++asked === 1 ? denied : issued)))
    const { vault } = openVault(server.address)
    await using _ = vault
    await vault.sign(request, forever)
    assert.deepEqual(
      urls(server).map((url) => url.slice(url.lastIndexOf('/') + 1)),
      ['lookup-self', 'web', 'lookup-self', 'web'],
    )
  })

  test('V16 a 403 after a fresh login is final', async () => {
    await using server = await startFaultProxy(answering(denied))
    const { vault } = openVault(server.address)
    await using _ = vault
    const error = await failure(vault.sign(request, forever))
    assert.equal(error.code, 'PERMISSION_DENIED')
    assert.equal(error.message, 'Vault refused POST pki/sign/web (403): permission denied')
    assert.equal(server.requests.length, 4)
  })

  test('asks no more than concurrency allows at the same time', async () => {
    await using server = await startFaultProxy(async (seen) => {
      if (seen.method === 'GET') return lookupSelf
      await new Promise((resolve) => setTimeout(resolve, 5))
      return issued
    })
    const { vault } = openVault(server.address, { concurrency: 3 })
    await using _ = vault
    await Promise.all(Array.from({ length: 12 }, () => vault.sign(request, forever)))
    assert.equal(server.busiest(), 3)
    assert.ok(server.connections() <= 4, `${server.connections()}`)
  })

  test('stops at once when aborted, even in the queue', async () => {
    await using server = await startFaultProxy(answering({ kind: 'silence' }))
    const { vault, told } = openVault(server.address, { concurrency: 1, timeouts: { headers: '1h', total: '1h' } })
    await using _ = vault
    await vault.lookupSelf(forever)
    const stop = new AbortController()
    const reason = new Error('stop')
    const all = [vault.sign(request, stop.signal), vault.sign(request, stop.signal)]
    setImmediate(() => stop.abort(reason))
    for (const one of all) await assert.rejects(one, reason)
    assert.equal(told.onRequest.at(-1)?.status, 'aborted')
  })

  test('stops asking a Vault that is gone, and says for how long', async () => {
    const server = await startFaultProxy()
    await server[Symbol.asyncDispose]()
    const { vault, told } = openVault(server.address)
    await using _ = vault
    const codes: string[] = []
    for (let n = 0; n < 7; n += 1) codes.push((await failure(vault.sign(request, forever))).code)
    assert.deepEqual(codes, [...Array<string>(5).fill('VAULT_UNREACHABLE'), 'VAULT_CIRCUIT_OPEN', 'VAULT_CIRCUIT_OPEN'])
    assert.equal(told.onRequest.length, 5)
    assert.equal(told.onRequest[0]?.status, 'vault_unreachable')
  })

  test('V26 tells each warning of Vault once', async () => {
    await using server = await startFaultProxy(answering(issued))
    const { vault, told } = openVault(server.address)
    await using _ = vault
    await vault.sign(request, forever)
    await vault.sign(request, forever)
    assert.deepEqual(
      told.onWarning.map(({ message }) => message),
      [
        `vault.address is ${server.address}: plain http is accepted on a loopback address only, and meant for tests`,
        'pki/sign/web: TTL cut',
      ],
    )
  })

  test("C4 tells how far Vault's clock is from ours", async () => {
    const ahead = new Date(Date.now() + 3_600_000).toUTCString()
    await using server = await startFaultProxy(() => answer(200, { initialized: true, sealed: false }, { date: ahead }))
    const { vault, told } = openVault(server.address)
    await using _ = vault
    await vault.health(forever)
    const [skew = 0] = told.onClockSkew
    assert.ok(Math.abs(skew - 3_600_000) < 60_000, `${skew}`)
  })

  test('opens no connection before the first call', async () => {
    await using server = await startFaultProxy()
    await openVault(server.address).vault[Symbol.asyncDispose]()
    assert.equal(server.connections(), 0)
  })
})

describe('at a clean stop', () => {
  const approle = { auth: { kind: 'approle', roleId: 'r', secretId: 's' } }
  const login = answer(200, { auth: { client_token: 'hvs.canary-login', lease_duration: 3600, renewable: true } })
  const revoking = (fault: Fault) => (seen: SeenRequest) => {
    if (seen.url === '/v1/auth/approle/login') return login
    return seen.url === '/v1/auth/token/revoke-self' ? fault : issued
  }
  const gone = answer(403, { errors: ['permission denied', 'invalid token'] })
  const revokes = ({ requests }: FaultProxy) =>
    requests.filter(({ url }) => url.endsWith('revoke-self')).map(({ headers }) => headers['x-vault-token'])
  /** What is told of the end of a client that has signed. */
  const ending = async (server: FaultProxy, more: object) => {
    const { vault, told } = openVault(server.address, more)
    await using _ = vault
    await vault.sign(request, forever)
    await vault.revokeToken()
    await vault.revokeToken()
    return told.onWarning.map(({ message }) => message).filter((message) => message.startsWith('the token'))
  }

  for (const [what, fault] of Object.entries({ 'is revoked': answer(204), 'that is gone is let be': gone }))
    test(`the token of the login ${what}, once`, async () => {
      await using server = await startFaultProxy(revoking(fault))
      assert.deepEqual(await ending(server, { ...approle, revokeOnExit: true }), [])
      assert.deepEqual(revokes(server), ['hvs.canary-login'])
    })

  test('the token is left alone where nobody asked for that, or somebody else obtained it', async () => {
    await using server = await startFaultProxy(answering(issued))
    assert.deepEqual(await ending(server, { revokeOnExit: true }), [])
    server.onRequest = revoking(answer(204))
    assert.deepEqual(await ending(server, approle), [])
    assert.deepEqual(revokes(server), [])
  })

  test('nothing is asked of a Vault that was never logged in to', async () => {
    await using server = await startFaultProxy(revoking(answer(204)))
    const { vault } = openVault(server.address, { ...approle, revokeOnExit: true })
    await using _ = vault
    await vault.revokeToken()
    assert.equal(server.connections(), 0)
  })

  const FAILING: Readonly<Record<string, [Fault, RegExp]>> = {
    'refuses it': [
      answer(403, { errors: ['permission denied'] }),
      /Vault refused POST auth\/token\/revoke-self \(403\)/,
    ],
    'does not answer': [{ kind: 'silence' }, /POST auth\/token\/revoke-self took longer than 2s$/],
    'is sealed': [answer(503, { errors: ['Vault is sealed'] }), /Vault is sealed/],
    'goes away': [{ kind: 'reset' }, /ECONNRESET|UND_ERR_SOCKET/],
  }
  for (const [what, [fault, sentence]] of Object.entries(FAILING))
    test(`a Vault that ${what} is told of, and holds up nothing`, async () => {
      await using server = await startFaultProxy(revoking(fault))
      const [told = '', ...more] = await ending(server, { ...approle, revokeOnExit: true })
      assert.match(told, /^the token was not revoked, and lives on to its end: /)
      assert.match(told, sentence)
      assert.deepEqual(more, [])
    })

  test('what a role with generate_lease would lose is told with the first certificate', async () => {
    const leased = answer(200, { lease_id: 'pki/sign/web/x', data: { certificate: 'PEM', issuing_ca: 'CA' } })
    await using server = await startFaultProxy(answering(leased))
    for (const [revokeOnExit, end] of [
      [false, 'asked for it'],
      [true, 'asked for it, which vault.revokeOnExit ends at every stop'],
    ] as const) {
      const { vault, told } = openVault(server.address, { revokeOnExit })
      await using _ = vault
      await vault.sign(request, forever)
      const { message = '' } = told.onWarning.at(-1) ?? {}
      assert.match(message, /^pki\/sign\/web: the role leases its certificates \(generate_lease=true\)/)
      assert.ok(message.endsWith(end), message)
    }
  })
})

describe('for the doctor', () => {
  test('V3 health is told for every status, and tells whether the node is of use', async () => {
    const body = { initialized: true, sealed: false, standby: true, version: '1.21.0' }
    for (const [status, usable] of [
      [200, true],
      [429, true],
      [473, true],
      [472, false],
      [501, false],
      [503, false],
    ] as const) {
      await using server = await startFaultProxy(() => answer(status, body))
      const { vault } = openVault(server.address)
      await using _ = vault
      assert.deepEqual(await vault.health(forever), { ...body, usable }, `${status}`)
      assert.equal(server.requests[0]?.headers['x-vault-token'], undefined)
    }
  })

  test('reads who we are, what we may do and what a role allows', async () => {
    await using server = await startFaultProxy(({ url }) => {
      if (url.endsWith('lookup-self'))
        return answer(200, { data: { ttl: 60, renewable: true, policies: ['web'], display_name: 'approle' } })
      if (url.endsWith('capabilities-self')) return answer(200, { data: { capabilities: ['update'] } })
      return answer(200, { data: { allowed_domains: ['example.com'], max_ttl: 259200, key_type: 'any' } })
    })
    const { vault } = openVault(server.address)
    await using _ = vault
    assert.deepEqual(await vault.lookupSelf(forever), {
      displayName: 'approle',
      policies: ['web'],
      ttlMs: 60_000,
      renewable: true,
    })
    assert.deepEqual(await vault.capabilities(['pki', 'sign', 'web'], forever), ['update'])
    assert.equal(server.requests.at(-1)?.body, '{"paths":["pki/sign/web"]}')
    const role = await vault.readRole('pki', 'web', forever)
    assert.deepEqual([role?.allowedDomains, role?.maxTtlSeconds, role?.keyType], [['example.com'], 259200, 'any'])
  })

  test('what the policy does not let us read is unknown, a role that does not exist is missing', async () => {
    await using server = await startFaultProxy(answering(denied))
    const { vault } = openVault(server.address)
    await using _ = vault
    assert.equal(await vault.capabilities(['pki', 'sign', 'web'], forever), undefined)
    assert.equal(await vault.readRole('pki', 'web', forever), undefined)
    server.onRequest = answering(answer(404, { errors: [] }))
    assert.equal((await failure(vault.readRole('pki', 'web', forever))).code, 'ROLE_MISSING')
  })
})
