import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createTestCa, type Issued } from '../support/ca.ts'
import { answer, type Fault, type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { answering, failure, forever, openVault, request } from './support.ts'

const issued = answer(200, { data: { certificate: 'PEM', issuing_ca: 'CA', ca_chain: ['CA'] } })
const signs = ({ requests }: FaultProxy) => requests.filter(({ url }) => url === '/v1/pki/sign/web').length

/** An address at which nobody listens. */
async function nobody(scheme = 'http'): Promise<string> {
  const server = await startFaultProxy()
  await server[Symbol.asyncDispose]()
  return server.address.replace('http', scheme)
}

/** A TCP server that ends each connection, or keeps it and says nothing. */
async function startDumb(then: 'end' | 'silence'): Promise<{ readonly address: string } & AsyncDisposable> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    if (then === 'end') socket.destroy()
    else server.once('close', () => socket.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const place = server.address()
  if (place === null || typeof place === 'string') throw new Error('no port')
  return {
    address: `https://127.0.0.1:${place.port}`,
    [Symbol.asyncDispose]: async () => {
      server.emit('close')
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

describe('several addresses of one Vault', () => {
  test('V1 where nobody listens at the first, the next is asked in the same call, and remembered', async () => {
    await using second = await startFaultProxy(answering(issued))
    await using third = await startFaultProxy(answering(issued))
    const first = await nobody()
    const { vault, told } = openVault([first, second.address, third.address])
    await using _ = vault
    assert.equal((await vault.sign(request, forever)).certificate, 'PEM')
    await vault.sign(request, forever)
    assert.equal(signs(second), 2)
    assert.equal(third.requests.length, 0)
    assert.deepEqual(
      told.onRequest.map(({ operation, status }) => `${operation} ${status}`),
      ['lookup-self vault_unreachable', 'lookup-self 200', 'sign 200', 'sign 200'],
    )
    assert.deepEqual(told.onWarning.slice(3), [
      { message: `Vault cannot be used at ${first} (vault_unreachable); asked at ${second.address} instead` },
    ])
  })

  test('the first one stands for the cluster, whichever answers', async () => {
    await using second = await startFaultProxy(answering(issued))
    const first = await nobody()
    const { vault } = openVault([first, second.address])
    await using _ = vault
    await vault.sign(request, forever)
    assert.equal(vault.address, first)
  })

  const UNABLE: Readonly<Record<string, Fault>> = {
    'is sealed': answer(503, { errors: ['Vault is sealed'] }),
    'is not initialised': answer(501, { errors: [] }),
    'is a disaster-recovery secondary': answer(472, { errors: ['path disabled in replication DR secondary mode'] }),
    'knows no leader': answer(500, { errors: ['local node not active but active cluster node not found'] }),
  }
  for (const [what, fault] of Object.entries(UNABLE))
    test(`V3 a node that ${what} is passed over`, async () => {
      await using first = await startFaultProxy(() => fault)
      await using second = await startFaultProxy(answering(issued))
      const { vault } = openVault([first.address, second.address])
      await using _ = vault
      await vault.sign(request, forever)
      assert.deepEqual([first.requests.length, signs(second)], [1, 1])
    })

  test('V3 health is that of a node that serves, or else of the sealed one', async () => {
    const health = (sealed: boolean) => answer(sealed ? 503 : 200, { initialized: true, sealed, version: '1.21.0' })
    await using first = await startFaultProxy(() => health(true))
    await using second = await startFaultProxy(() => health(false))
    const addresses = [first.address, second.address]
    const { vault } = openVault(addresses)
    await using _ = vault
    assert.deepEqual([(await vault.health(forever)).sealed, (await vault.health(forever)).usable], [false, true])
    second.onRequest = () => health(true)
    assert.equal((await vault.health(forever)).sealed, true)
  })

  const DONE: Readonly<Record<string, Fault>> = {
    'was cut off by a reset': { kind: 'reset' },
    'got no answer in time': { kind: 'silence' },
    'got half an answer': { kind: 'part', body: '{"data":', length: 100, end: 'close' },
  }
  for (const [what, fault] of Object.entries(DONE))
    test(`V7 a request that ${what} is sent to no other node, but the next one is`, async () => {
      await using first = await startFaultProxy(answering(fault))
      await using second = await startFaultProxy(answering(issued))
      const { vault } = openVault([first.address, second.address], { timeouts: { headers: '300ms' } })
      await using _ = vault
      assert.equal((await failure(vault.sign(request, forever))).mayHaveIssued, true)
      assert.deepEqual([signs(first), signs(second)], [1, 0])
      await vault.sign(request, forever)
      assert.deepEqual([signs(first), signs(second)], [1, 1])
    })

  const ANSWERS: Readonly<Record<string, Fault>> = {
    'a refusal': answer(400, { errors: ['common name not allowed by this role'] }),
    'an internal error': answer(500, { errors: ['internal error'] }),
    'an error page of a gateway': answer(503, '<html>', { 'content-type': 'text/html' }),
    'a rate limit': answer(429, { errors: ['request path "pki": rate limit quota exceeded'] }),
  }
  for (const [what, fault] of Object.entries(ANSWERS))
    test(`${what} is the answer, and no other node is asked`, async () => {
      await using first = await startFaultProxy(answering(fault))
      await using second = await startFaultProxy(answering(issued))
      const { vault } = openVault([first.address, second.address])
      await using _ = vault
      await failure(vault.sign(request, forever))
      assert.deepEqual([signs(first), second.requests.length], [1, 0])
    })

  test('when all are away, the failure names each of them', async () => {
    const [first, second] = [await nobody(), await nobody()]
    const { vault } = openVault([first, second])
    await using _ = vault
    const error = await failure(vault.sign(request, forever))
    assert.equal(error.code, 'VAULT_UNREACHABLE')
    assert.equal(error.mayHaveIssued, false)
    assert.ok(error.message.includes(`GET ${first}/v1/auth/token/lookup-self`), error.message)
    assert.ok(error.message.includes(`; GET ${second}/v1/auth/token/lookup-self`), error.message)
  })

  test('when one is away and the others are sealed, the failure is that', async () => {
    await using sealed = await startFaultProxy(() => UNABLE['is sealed'])
    for (const addresses of [
      [await nobody(), sealed.address],
      [sealed.address, await nobody()],
    ]) {
      const { vault } = openVault(addresses)
      await using _ = vault
      assert.equal((await failure(vault.sign(request, forever))).code, 'VAULT_SEALED')
    }
  })

  test('the circuit counts calls for which no node could be reached', async () => {
    const away = [await nobody(), await nobody()]
    const { vault, told } = openVault(away)
    await using _ = vault
    const codes: string[] = []
    for (let n = 0; n < 6; n += 1) codes.push((await failure(vault.sign(request, forever))).code)
    assert.deepEqual(codes, [...Array<string>(5).fill('VAULT_UNREACHABLE'), 'VAULT_CIRCUIT_OPEN'])
    assert.equal(told.onRequest.length, 10)
  })

  test('the circuit does not open because of one node', async () => {
    await using sealed = await startFaultProxy(() => UNABLE['is sealed'])
    const { vault, told } = openVault([await nobody(), sealed.address])
    await using _ = vault
    for (let n = 0; n < 7; n += 1) assert.equal((await failure(vault.sign(request, forever))).code, 'VAULT_SEALED')
    assert.equal(told.onRequest.length, 14)
  })

  test('stops at once when aborted, and asks no other node', async () => {
    const stop = new AbortController()
    const reason = new Error('stop')
    await using first = await startFaultProxy(() => {
      setImmediate(() => stop.abort(reason))
      return { kind: 'silence' }
    })
    await using second = await startFaultProxy(answering(issued))
    const { vault } = openVault([first.address, second.address])
    await using _ = vault
    await assert.rejects(vault.health(stop.signal), reason)
    assert.equal(second.requests.length, 0)
  })
})

describe('several addresses over TLS', () => {
  let directory: string
  let caFile: string
  let local: Issued
  before(async () => {
    const ca = await createTestCa()
    directory = await mkdtemp(join(tmpdir(), 'certferry-addresses-'))
    caFile = join(directory, 'ca.pem')
    await writeFile(caFile, ca.rootPem)
    local = await ca.issue({ altNames: ['127.0.0.1', 'vault.example.com'] })
  })
  after(() => rm(directory, { recursive: true }))
  const serve = (shown: Issued, onRequest = answering(issued)) =>
    startFaultProxy(onRequest, { tls: { cert: shown.certificatePem, key: shown.keyPem } })

  const UNREACHABLE: Readonly<Record<string, () => Promise<{ readonly address: string } & AsyncDisposable>>> = {
    'that refuses connections': async () => ({
      address: await nobody('https'),
      [Symbol.asyncDispose]: async () => undefined,
    }),
    'with a name nobody knows': async () => ({
      address: 'https://vault.invalid:8200',
      [Symbol.asyncDispose]: async () => undefined,
    }),
    'that cannot be trusted': async () => serve(await (await createTestCa()).issue({ altNames: ['127.0.0.1'] })),
    'that hangs up during the handshake': () => startDumb('end'),
    'that never says a word': () => startDumb('silence'),
  }
  for (const [what, start] of Object.entries(UNREACHABLE))
    test(`V1 a node ${what} is passed over`, async () => {
      await using first = await start()
      await using second = await serve(local)
      const { vault } = openVault([first.address, second.address], { caFile, timeouts: { connect: '500ms' } })
      await using _ = vault
      await vault.sign(request, forever)
      assert.equal(signs(second), 1)
    })

  test('V2 a standby may redirect to each of them, and to no other', async () => {
    await using leader = await serve(local)
    await using other = await serve(local)
    await using standby = await serve(local)
    const addresses = [standby.address, leader.address]
    const { vault } = openVault(addresses, { caFile })
    await using _ = vault
    const redirecting = (to: FaultProxy): FaultProxy['onRequest'] => {
      return ({ url }) => answer(307, undefined, { location: `${to.address}${url}` })
    }
    standby.onRequest = redirecting(leader)
    await vault.sign(request, forever)
    assert.equal(signs(leader), 1)
    standby.onRequest = redirecting(other)
    assert.equal((await failure(vault.sign(request, forever))).code, 'REDIRECT_REFUSED')
    assert.equal(other.connections(), 0)
  })

  test('V2 where the leader that a standby redirects to is away, the next node is asked', async () => {
    await using standby = await serve(local)
    await using third = await serve(local)
    const leader = await nobody('https')
    standby.onRequest = ({ url }) => answer(307, undefined, { location: `${leader}${url}` })
    const { vault } = openVault([standby.address, leader, third.address], { caFile })
    await using _ = vault
    await vault.sign(request, forever)
    assert.equal(signs(third), 1)
  })

  test('serverName is expected of each of them', async () => {
    const ca = await createTestCa()
    await writeFile(join(directory, 'named.pem'), ca.rootPem)
    await using second = await serve(await ca.issue({ altNames: ['vault.example.com'] }))
    const more = { caFile: join(directory, 'named.pem'), serverName: 'vault.example.com' }
    const { vault } = openVault(['https://localhost:1', second.address], more)
    await using _ = vault
    await vault.sign(request, forever)
    assert.equal(signs(second), 1)
  })
})

describe('an address that is a unix socket', () => {
  let directory: string
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'certferry-socket-'))
  })
  after(() => rm(directory, { recursive: true }))

  /** A server on a socket that forwards to a proxy, as a Vault Agent does. */
  async function startSocket(name: string, to: FaultProxy) {
    const path = join(directory, name)
    const server = createServer((socket) => {
      const onward = connect(Number(new URL(to.address).port), '127.0.0.1')
      for (const [from, into] of [
        [socket, onward],
        [onward, socket],
      ] as const)
        from.on('error', () => undefined).pipe(into)
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    return {
      address: `unix://${path}`,
      [Symbol.asyncDispose]: () => new Promise<void>((resolve) => server.close(() => resolve())),
    }
  }

  test('is asked as any other, each of several by itself', async () => {
    await using first = await startFaultProxy(() => answer(503, { errors: ['Vault is sealed'] }))
    await using second = await startFaultProxy(answering(issued))
    await using one = await startSocket('one', first)
    await using two = await startSocket('two', second)
    const { vault } = openVault([one.address, two.address])
    await using _ = vault
    await vault.sign(request, forever)
    assert.deepEqual([first.requests.length, signs(second)], [1, 1])
    assert.equal(vault.address, one.address)
  })

  test('at which nobody listens is unreachable, by its path', async () => {
    const address = `unix://${join(directory, 'nobody')}`
    const { vault } = openVault(address)
    await using _ = vault
    const error = await failure(vault.sign(request, forever))
    assert.equal(error.code, 'VAULT_UNREACHABLE')
    assert.equal(error.mayHaveIssued, false)
    assert.ok(error.message.startsWith(`GET ${address}/v1/auth/token/lookup-self: `), error.message)
    assert.match(error.message, /ENOENT/)
  })
})
