import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import type { TlsOptions } from 'node:tls'
import type { SidecarError } from '../../src/errors.ts'
import { connectionFailure } from '../../src/vault/failures.ts'
import { createTransport } from '../../src/vault/transport.ts'
import { createTestCa, type Issued, type IssueRequest, type TestCa } from '../support/ca.ts'
import { answer, type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { until } from '../support/until.ts'
import { failure, forever, vaultOptions } from './support.ts'

const TOKEN = 'hvs.canary-token'
const ok = () => answer(200, { ok: true })

/** One POST with a token; the connection is not kept. */
async function post(address: string, more: object = {}, signal: AbortSignal = forever) {
  const transport = createTransport(vaultOptions(address, more))
  try {
    const headers = { 'X-Vault-Token': TOKEN }
    return await transport.request({
      method: 'POST',
      url: `${address}/v1/pki/sign/web`,
      headers,
      json: { a: 1 },
      signal,
    })
  } finally {
    await transport.close()
  }
}

/** A TCP server that accepts and says nothing. */
async function startMute(): Promise<{ address: string; connected: Promise<unknown> } & AsyncDisposable> {
  const { promise: connected, resolve } = Promise.withResolvers<unknown>()
  const sockets: Socket[] = []
  const server: Server = createServer((socket) => {
    sockets.push(socket.on('error', () => undefined))
    resolve(undefined)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const place = server.address()
  if (place === null || typeof place === 'string') throw new Error('no port')
  return {
    address: `https://127.0.0.1:${place.port}`,
    connected,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

describe('a request to Vault', { concurrency: true }, () => {
  test('carries method, headers and JSON, and gives back status, JSON and headers', async () => {
    await using server = await startFaultProxy(() => answer(418, { a: [1] }, { 'retry-after': '7' }))
    const reply = await post(server.address)
    assert.equal(reply.status, 418)
    assert.deepEqual(reply.body, { a: [1] })
    assert.equal(reply.retryAfter, '7')
    assert.ok(Math.abs(Date.parse(reply.date ?? '') - Date.now()) < 60_000)
    const [seen] = server.requests
    assert.deepEqual([seen?.method, seen?.url, seen?.body], ['POST', '/v1/pki/sign/web', '{"a":1}'])
    assert.equal(seen?.headers['x-vault-token'], TOKEN)
    assert.equal(seen?.headers['content-type'], 'application/json')
  })

  test('keeps the connection for the requests that follow', async () => {
    await using server = await startFaultProxy(ok)
    const transport = createTransport(vaultOptions(server.address))
    for (let n = 0; n < 10; n += 1)
      await transport.request({ method: 'GET', url: server.address, headers: {}, signal: forever })
    await transport.close()
    // undici may open a second one while it cleans up after the first answer.
    assert.ok(server.connections() <= 2, `${server.connections()}`)
  })

  test('goes over a new connection after reconnect, while one under way ends on the old one', async () => {
    const held = Promise.withResolvers<void>()
    await using server = await startFaultProxy(async ({ url }) => {
      if (url === '/first') await held.promise
      return ok()
    })
    const transport = createTransport(vaultOptions(server.address))
    const get = (path: string) =>
      transport.request({ method: 'GET', url: `${server.address}${path}`, headers: {}, signal: forever })
    await get('/before')
    const first = get('/first')
    await until('it is under way', () => server.requests.length === 2)
    const before = server.connections()
    transport.reconnect()
    assert.equal((await get('/second')).status, 200)
    assert.equal(server.connections(), before + 1)
    held.resolve()
    assert.equal((await first).status, 200)
    await transport.close()
  })

  test('under way when all is closed is given up, on an old connection as on a new one', async () => {
    await using server = await startFaultProxy(() => ({ kind: 'silence' }))
    const transport = createTransport(vaultOptions(server.address))
    const lost: Promise<SidecarError>[] = []
    for (const count of [1, 2]) {
      lost.push(failure(transport.request({ method: 'GET', url: server.address, headers: {}, signal: forever })))
      await until('it is under way', () => server.requests.length === count)
      if (count === 1) transport.reconnect()
    }
    await transport.close()
    for (const error of await Promise.all(lost)) assert.equal(error.code, 'VAULT_UNREACHABLE')
  })

  test('says that nobody listens', async () => {
    const server = await startFaultProxy(ok)
    await server[Symbol.asyncDispose]()
    const error = await failure(post(server.address))
    assert.equal(error.code, 'VAULT_UNREACHABLE')
    assert.match(error.message, new RegExp(`^POST ${server.address}/v1/pki/sign/web: .*ECONNREFUSED`))
  })

  test('gives up altogether after timeouts.total', async () => {
    await using server = await startFaultProxy(() => ({ kind: 'silence' }))
    const error = await failure(post(server.address, { timeouts: { total: '100ms', headers: '1h' } }))
    assert.equal(error.code, 'VAULT_TIMEOUT')
    assert.match(error.message, /took longer than 100ms$/)
  })

  describe('stops at once when aborted', () => {
    const patient = { timeouts: { connect: '1h', headers: '1h', body: '1h', total: '1h' } }
    const reason = new Error('stop now')
    test('while connecting', async () => {
      await using mute = await startMute()
      const stop = new AbortController()
      const pending = post(mute.address, patient, stop.signal)
      await mute.connected
      stop.abort(reason)
      await assert.rejects(pending, reason)
    })
    for (const fault of [{ kind: 'silence' }, { kind: 'part', body: '{', length: 9, end: 'silence' }] as const)
      test(`while ${fault.kind === 'silence' ? 'waiting for an answer' : 'reading the answer'}`, async () => {
        const stop = new AbortController()
        await using server = await startFaultProxy(() => {
          setImmediate(() => stop.abort(reason))
          return fault
        })
        await assert.rejects(post(server.address, patient, stop.signal), reason)
      })
    test('before it began', async () => {
      await using server = await startFaultProxy(ok)
      await assert.rejects(post(server.address, patient, AbortSignal.abort(reason)), reason)
      assert.equal(server.requests.length, 0)
    })
  })
})

describe('over TLS', () => {
  let ca: TestCa
  let directory: string
  const path = (name: string) => join(directory, name)
  const save = async (name: string, text: string) => {
    await writeFile(path(name), text)
    return path(name)
  }
  before(async () => {
    ca = await createTestCa()
    directory = await mkdtemp(join(tmpdir(), 'certferry-tls-'))
  })
  after(() => rm(directory, { recursive: true }))

  const local = (request: IssueRequest = {}) => ca.issue({ altNames: ['127.0.0.1'], ...request })
  const tlsOf = ({ certificatePem, chainPems, keyPem }: Issued): TlsOptions => ({
    cert: [certificatePem, ...chainPems.slice(0, -1)].join(''),
    key: keyPem,
  })
  const serve = (issued: Issued, more: TlsOptions = {}) => startFaultProxy(ok, { tls: { ...tlsOf(issued), ...more } })

  test('V10 trusts the CA file and reads it again for each connection', async () => {
    const caFile = await save('ca-replaced', ca.rootPem)
    const other = await createTestCa()
    await using server = await serve(await local())
    await using replaced = await startFaultProxy(ok, { tls: tlsOf(await other.issue({ altNames: ['127.0.0.1'] })) })
    const transport = createTransport(vaultOptions(server.address, { caFile, redirectHosts: ['127.0.0.1'] }))
    const get = (url: string) => transport.request({ method: 'GET', url, headers: {}, signal: forever })
    assert.equal((await get(server.address)).status, 200)
    assert.equal((await failure(get(replaced.address))).code, 'VAULT_TLS')
    await save('ca-replaced', other.rootPem)
    assert.equal((await get(replaced.address)).status, 200)
    await transport.close()
  })

  test('trusts CAs that the config holds, and no others', async () => {
    await using server = await serve(await local())
    assert.equal((await post(server.address, { caPem: ca.rootPem })).status, 200)
    const other = await createTestCa()
    assert.equal((await failure(post(server.address, { caPem: other.rootPem }))).code, 'VAULT_TLS')
  })

  test('V10 refuses a CA that is not trusted, a certificate that expired, and one for another name', async () => {
    const caFile = await save('ca', ca.rootPem)
    const foreign = await createTestCa({ commonName: 'Foreign Root' })
    const rows: [Issued, RegExp][] = [
      [await foreign.issue({ altNames: ['127.0.0.1'] }), /UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER/],
      [
        await local({ notBefore: new Date(Date.now() - 7_200_000), notAfter: new Date(Date.now() - 3_600_000) }),
        /CERT_HAS_EXPIRED/,
      ],
      [await local({ altNames: ['vault.example.com'] }), /ERR_TLS_CERT_ALTNAME_INVALID/],
    ]
    for (const [issued, why] of rows) {
      await using server = await serve(issued)
      const error = await failure(post(server.address, { caFile }))
      assert.equal(error.code, 'VAULT_TLS')
      assert.match(error.message, why)
      assert.equal(server.requests.length, 0)
    }
  })

  test('is never insecure, whatever the environment asks for', async () => {
    await using server = await serve(await local())
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'
    process.env.VAULT_SKIP_VERIFY = 'true'
    try {
      assert.equal((await failure(post(server.address))).code, 'VAULT_TLS')
    } finally {
      delete process.env.NODE_TLS_REJECT_UNAUTHORIZED
      delete process.env.VAULT_SKIP_VERIFY
    }
  })

  test('refuses TLS 1.1', async () => {
    const old: TlsOptions = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }
    await using server = await serve(await local(), old)
    assert.equal((await failure(post(server.address, { caFile: await save('ca', ca.rootPem) }))).code, 'VAULT_TLS')
  })

  test('expects serverName instead of the host of the address', async () => {
    const caFile = await save('ca', ca.rootPem)
    await using server = await serve(await local({ altNames: ['vault.example.com'] }))
    assert.equal((await post(server.address, { caFile, serverName: 'vault.example.com' })).status, 200)
  })

  test('says when the CA file is missing, holds nothing or is damaged', async () => {
    await using server = await serve(await local())
    const damaged = '-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n'
    for (const caFile of [path('missing'), await save('empty', ''), await save('damaged', damaged)]) {
      const error = await failure(post(server.address, { caFile }))
      assert.equal(error.code, 'VAULT_TLS')
      assert.ok(error.message.includes(caFile))
    }
  })

  describe('V11 to a Vault that wants a client certificate', () => {
    let server: FaultProxy
    let caFile: string
    before(async () => {
      server = await serve(await local(), { ca: ca.rootPem, requestCert: true, rejectUnauthorized: true })
      caFile = await save('ca', ca.rootPem)
    })
    after(() => server[Symbol.asyncDispose]())
    const withClient = async (name: string, certificate: string, key: string) => ({
      caFile,
      clientCertFile: await save(`${name}.crt`, certificate),
      clientKeyFile: await save(`${name}.key`, key),
    })

    test('shows the one it has', async () => {
      const { certificatePem, keyPem } = await ca.issue()
      assert.equal((await post(server.address, await withClient('good', certificatePem, keyPem))).status, 200)
    })
    test('says so when certificate and key do not match, or cannot be read', async () => {
      const [one, other] = [await ca.issue(), await ca.issue()]
      const mixed = await withClient('mixed', one.certificatePem, other.keyPem)
      for (const more of [mixed, { ...mixed, clientCertFile: path('missing') }]) {
        const error = await failure(post(server.address, more))
        assert.equal(error.code, 'VAULT_CLIENT_CERT', error.message)
        assert.ok(error.message.includes(more.clientCertFile))
      }
    })
  })

  describe('V2 a redirect', () => {
    let caFile: string
    let leader: FaultProxy
    before(async () => {
      caFile = await save('ca', ca.rootPem)
      leader = await serve(await local())
    })
    after(() => leader[Symbol.asyncDispose]())

    /** What a standby that answers with this Location and status leads to. */
    const redirected = async (location: string | undefined, more: object = {}, status = 307) => {
      leader.requests.length = 0
      await using standby = await serve(await local())
      standby.onRequest = () => answer(status, undefined, location === undefined ? {} : { location })
      return await post(standby.address, { caFile, ...more }).then(
        (reply) => ({ reply }),
        (error: unknown) => ({ error }),
      )
    }
    const refused = async (...[location, more, status]: Parameters<typeof redirected>) => {
      const outcome = await redirected(location, more, status)
      const error = await failure(
        'error' in outcome ? Promise.reject(outcome.error) : Promise.resolve(outcome.reply.status),
      )
      assert.equal(error.code, 'REDIRECT_REFUSED', error.message)
      assert.doesNotMatch(error.message, /canary/)
      return error.message
    }

    test('to a host that is listed is followed, with token and body', async () => {
      const { host } = new URL(leader.address)
      for (const redirectHosts of [[host], ['127.0.0.1']]) {
        const outcome = await redirected(`${leader.address}/v1/pki/sign/web`, { redirectHosts })
        assert.equal('reply' in outcome && outcome.reply.status, 200)
        const [seen] = leader.requests
        assert.deepEqual([seen?.headers['x-vault-token'], seen?.body], [TOKEN, '{"a":1}'])
      }
    })
    test('to any other host is refused, and that host never sees a request', async () => {
      assert.match(await refused(`${leader.address}/v1/pki/sign/web`), /which is not in vault\.redirectHosts/)
      await refused(`${leader.address}/v1`, { redirectHosts: ['127.0.0.1:1', 'localhost'] })
      assert.equal(leader.connections(), 2, 'only the two connections of the test before')
      assert.equal(leader.requests.length, 0)
    })
    test('to http is refused, even where the host is listed', async () => {
      await using plain = await startFaultProxy(ok)
      assert.match(await refused(`${plain.address}/v1`, { redirectHosts: ['127.0.0.1'] }), /which is not https/)
      assert.equal(plain.connections(), 0)
    })
    test('that would turn the request into a GET, leads nowhere or says nothing is refused', async () => {
      const allowed = { redirectHosts: ['127.0.0.1'] }
      for (const status of [301, 302, 303, 300]) await refused(leader.address, allowed, status)
      await refused('https://', allowed)
      await refused(undefined, allowed)
      assert.equal(leader.requests.length, 0)
    })
    test('within the same host is followed once', async () => {
      await using server = await serve(await local())
      server.onRequest = ({ url }) => (url === '/v1/there' ? ok() : answer(308, undefined, { location: '/v1/there' }))
      assert.equal((await post(server.address, { caFile })).status, 200)
      server.onRequest = () => answer(307, undefined, { location: '/v1/round' })
      server.requests.length = 0
      const error = await failure(post(server.address, { caFile }))
      assert.deepEqual([error.code, server.requests.length], ['REDIRECT_REFUSED', 2])
    })
  })
})

test('every error of the system below has a name', () => {
  const rows: [string, string][] = [
    ['ENOTFOUND', 'VAULT_DNS'],
    ['EAI_AGAIN', 'VAULT_DNS'],
    ['ECONNREFUSED', 'VAULT_UNREACHABLE'],
    ['EHOSTUNREACH', 'VAULT_UNREACHABLE'],
    ['UND_ERR_SOCKET', 'VAULT_UNREACHABLE'],
    ['ETIMEDOUT', 'VAULT_TIMEOUT'],
    ['UND_ERR_HEADERS_OVERFLOW', 'BAD_RESPONSE'],
    ['HPE_INVALID_CONSTANT', 'BAD_RESPONSE'],
    ['ERR_SSL_WRONG_VERSION_NUMBER', 'VAULT_TLS'],
    ['SELF_SIGNED_CERT_IN_CHAIN', 'VAULT_TLS'],
    ['CERT_NOT_YET_VALID', 'VAULT_TLS'],
    ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', 'VAULT_CLIENT_CERT'],
    ['ERR_SSL_SSL/TLS_ALERT_BAD_CERTIFICATE', 'VAULT_CLIENT_CERT'],
    ['ERR_SSL_TLSV1_ALERT_UNKNOWN_CA', 'VAULT_CLIENT_CERT'],
    ['ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE', 'VAULT_TLS'],
  ]
  for (const [code, expected] of rows) {
    const error = connectionFailure(Object.assign(new Error('x'), { code }), {
      request: 'POST x',
      phase: 'connecting',
      secrets: [],
    })
    assert.equal(error.code, expected, code)
  }
})
