import assert from 'node:assert/strict'
import { createServer as createTcpServer } from 'node:net'
import { describe, test } from 'node:test'
import { createServer, type TlsOptions } from 'node:tls'
import * as z from 'zod'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { verifiers } from '../../src/verifiers/index.ts'
import { createTestCa } from '../support/ca.ts'
import { contextOf, createTime, listening, never, tlsServer } from './support.ts'

const ca = await createTestCa()
const issue = (commonName: string) => ca.issue({ commonName, withIntermediate: true })
const [old, next, other] = await Promise.all([issue('a.test'), issue('a.test'), issue('other.test')])

const make = (port: number, options: object = {}, { clock } = createTime()) =>
  verifiers.create(
    verifiers.schema.parse({ kind: 'tls', address: `127.0.0.1:${port}`, serverName: 'a.test', ...options }),
    { clock },
  )

const failure = (code: ErrorCode, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof SidecarError, String(error))
  assert.equal(error.code, code, error.message)
  assert.match(error.message, message)
  return true
}

test('R10 accepts the new certificate after five handshakes in a row and half a second', async () => {
  await using server = await tlsServer(() => contextOf(next))
  const time = createTime()
  await make(server.port, {}, time).verify(next.bundle, old.bundle.fingerprint, never)
  assert.equal(time.elapsed(), 500)
  assert.equal(server.seen.handshakes, 11)
  assert.ok(server.seen.names.every((name) => name === 'a.test'))
  assert.ok(server.seen.sockets.every((socket) => !socket.isSessionReused()))
  await make(server.port, { quiet: '1ms' }).verify(next.bundle, undefined, never)
  assert.equal(server.seen.handshakes, 11 + 5)
  await make(server.port, { quiet: '1ms', workers: 4 }).verify(next.bundle, undefined, never)
  assert.equal(server.seen.handshakes, 11 + 5 + 12)
})

test('R10 an old answer among new ones starts the count again', async () => {
  const order = [old, next, old, next, next, next, next, old, other, next]
  await using server = await tlsServer((handshake) => contextOf(order[handshake - 1] ?? next))
  await make(server.port, { quiet: '1ms' }).verify(next.bundle, old.bundle.fingerprint, never)
  assert.equal(server.seen.handshakes, 9 + 5)
})

test('R9, R13, R15 at the deadline says whether it was the old certificate, another one, or no answer', async () => {
  await using server = await tlsServer((_handshake, name) => contextOf(name === 'a.test' ? old : other))
  const time = createTime()
  await assert.rejects(
    make(server.port, { deadline: '1s' }, time).verify(next.bundle, old.bundle.fingerprint, never),
    failure(
      'RELOAD_NOT_EFFECTIVE',
      new RegExp(
        `^TLS 127.0.0.1:\\d+ \\(a.test\\) still serves certificate ${old.bundle.serial} 1s after the reload, wanted ${next.bundle.serial}$`,
      ),
    ),
  )
  assert.equal(time.elapsed(), 1_000)
  const mismatch = failure(
    'PROBE_MISMATCH',
    new RegExp(`serves certificate ${other.bundle.serial} of "CN=other.test" 50ms`),
  )
  await assert.rejects(
    make(server.port, { serverName: 'b.test', deadline: '50ms' }).verify(next.bundle, old.bundle.fingerprint, never),
    mismatch,
  )
  await assert.rejects(
    make(server.port, { deadline: '50ms' }).verify(next.bundle, undefined, never),
    failure('PROBE_MISMATCH', new RegExp(`serves certificate ${old.bundle.serial} of "CN=a.test"`)),
  )
  const { port } = server
  await server[Symbol.asyncDispose]()
  await assert.rejects(
    make(port, { deadline: '100ms' }).verify(next.bundle, old.bundle.fingerprint, never),
    failure('TARGET_DOWN', /does not answer 100ms after the reload: connection refused$/),
  )
})

test('R1 waits for a target that is not up yet', async () => {
  const probe = await tlsServer(() => contextOf(next))
  const { port } = probe
  await probe[Symbol.asyncDispose]()
  const server = createServer({ SNICallback: (_name, callback) => callback(null, contextOf(next)) })
  await using stack = new AsyncDisposableStack()
  const time = createTime(async (elapsed) => {
    if (elapsed === 200) stack.use(await listening(server, port))
  })
  await make(port, {}, time).verify(next.bundle, undefined, never)
  assert.equal(time.elapsed(), 700)
})

test('a run of new answers may outlast the deadline', async () => {
  await using server = await tlsServer((handshake) => contextOf(handshake > 3 ? next : old))
  const time = createTime()
  await make(server.port, { deadline: '200ms' }, time).verify(next.bundle, old.bundle.fingerprint, never)
  assert.equal(time.elapsed(), 650)
})

test('refuses a target that does not send the intermediates', async () => {
  await using server = await tlsServer(() => contextOf(next, { alone: true }))
  await assert.rejects(
    make(server.port).verify(next.bundle, old.bundle.fingerprint, never),
    failure('CHAIN_NOT_SERVED', /serves certificate \w+, but not its issuer "CN=Test +Intermediate"/),
  )
})

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  test(`R16 sees the certificate of a ${version} server that refuses us for want of a client certificate`, async () => {
    const options: TlsOptions = { requestCert: true, rejectUnauthorized: true, maxVersion: version }
    await using server = await tlsServer(() => contextOf(next), options)
    await make(server.port, { quiet: '1ms' }).verify(next.bundle, undefined, never)
    assert.equal(server.seen.handshakes, 5)
  })
}

test('R17 never resumes a session, which would show no certificate, though the server offers one', async () => {
  await using server = await tlsServer(() => contextOf(next))
  await make(server.port).verify(next.bundle, undefined, never)
  assert.ok(server.seen.sockets.length >= 5)
  assert.deepEqual(
    server.seen.sockets.filter((socket) => socket.isSessionReused()),
    [],
  )
})

test('one look tells what is served, or why nothing is', async () => {
  await using server = await tlsServer(() => contextOf(next))
  const { fingerprint, serial, notAfter } = next.bundle
  assert.deepEqual(await make(server.port).probe(never), { up: true, fingerprint, serial, notAfter })
  assert.equal(server.seen.handshakes, 1)

  await using mute = await listening(createTcpServer((socket) => socket.on('error', () => {}).resume()))
  const why = 'no TLS handshake within 40ms'
  assert.deepEqual(await make(mute.port, { timeout: '40ms' }).probe(never), { up: false, why })

  await using plain = await listening(
    createTcpServer((socket) =>
      socket
        .on('error', () => {})
        .resume()
        .end('HTTP/1.1 400 \r\n\r\n'),
    ),
  )
  assert.deepEqual(await make(plain.port).probe(never), {
    up: false,
    why: 'the server does not speak TLS on this port',
  })

  await using rude = await listening(createTcpServer((socket) => socket.destroy()))
  assert.deepEqual(await make(rude.port).probe(never), {
    up: false,
    why: 'the connection was closed during the handshake',
  })
})

test('offers the protocols of the config', async () => {
  await using server = await tlsServer(() => contextOf(next), { ALPNProtocols: ['h2'] })
  assert.equal((await make(server.port, { alpn: ['h2'] }).probe(never)).up, true)
  assert.deepEqual(await make(server.port, { alpn: ['mqtt'] }).probe(never), {
    up: false,
    why: 'tlsv1 alert no application protocol',
  })
})

test('stops at once when told to', async () => {
  await using mute = await listening(createTcpServer((socket) => socket.on('error', () => {}).resume()))
  const stop = new AbortController()
  const verify = make(mute.port).verify(next.bundle, undefined, stop.signal)
  const probe = make(mute.port).probe(stop.signal)
  stop.abort(new Error('stopping'))
  await assert.rejects(verify, /stopping/)
  await assert.rejects(probe, /stopping/)
  await assert.rejects(make(mute.port).probe(stop.signal), /stopping/)
})

test('always asks for a name: the one of the config, else of the certificate, else of the address', () => {
  const { clock } = createTime()
  const nameAsked = (options: object, serverName?: string) =>
    verifiers.create(verifiers.schema.parse({ kind: 'tls', ...options }), { clock, serverName }).description
  const onIp = { address: '[::1]:443' }
  const onName = { address: 'nginx:8443' }
  assert.equal(nameAsked({ ...onName, serverName: 'c.test' }, 'a.test'), 'TLS nginx:8443 (c.test)')
  assert.equal(nameAsked(onName, 'a.test'), 'TLS nginx:8443 (a.test)')
  assert.equal(nameAsked(onIp, '*.a.test'), 'TLS [::1]:443 (www.a.test)')
  assert.equal(nameAsked(onName), 'TLS nginx:8443 (nginx)')
  assert.throws(() => nameAsked(onIp), failure('CONFIG_INVALID', /at \[::1\]:443 needs serverName/))
})

test('the config has safe defaults, and takes host:port and a name that TLS can carry', () => {
  const problems = (options: object) =>
    verifiers.schema
      .safeParse({ kind: 'tls', ...options })
      .error?.issues.map(({ path, message }) => `${path}: ${message}`)
  const options = z.looseObject({}).parse(verifiers.schema.parse({ kind: 'tls', address: 'a:1' }))
  const { probes, quiet, timeout, deadline } = options
  assert.deepEqual({ probes, quiet, timeout, deadline }, { probes: 5, quiet: 500, timeout: 2_000, deadline: 15_000 })
  for (const address of [
    '',
    'host',
    ':443',
    'host:0',
    'host:65536',
    '::1:443',
    '[host]:443',
    'https://a:443',
    'a b:1',
    '1.2.3.4',
  ])
    assert.deepEqual(problems({ address }), [
      `address: "${address}" is no address; write host:port, such as 127.0.0.1:443 or [::1]:443`,
    ])
  assert.match(
    String(problems({ address: 'a:1', serverName: '10.0.0.1' })),
    /^serverName: must be a host name; TLS cannot/,
  )
  assert.match(String(problems({ address: 'a:1', probes: 4 })), /^probes: Too small/)
})

describe('with staple: true', () => {
  const written = { der: Buffer.from('the response that was written'), thisUpdate: 0, nextUpdate: undefined }
  const bundle = { ...next.bundle, staple: written, edition: 'e' }

  async function stapling(response: (handshake: number) => Buffer | null) {
    let handshakes = 0
    const key = { key: next.keyPem, cert: [next.certificatePem, ...next.chainPems.slice(0, -1)].join('') }
    const server = createServer(key, (socket) => socket.on('error', () => {}).resume())
    server.on('tlsClientError', () => {})
    server.on('OCSPRequest', (_leaf, _issuer, callback) => callback(null, response(++handshakes)))
    return listening(server)
  }

  test('waits until exactly the response that was written is shown', async () => {
    await using server = await stapling((handshake) => (handshake > 3 ? written.der : Buffer.from('the one before')))
    const time = createTime()
    await make(server.port, { staple: true }, time).verify(bundle, undefined, never)
    assert.ok(time.elapsed() >= 150 + 500, `${time.elapsed()}`)
  })

  for (const [what, response, message] of [
    ['none', null, /with no OCSP response, and not with the one that was written, 200ms after/],
    ['another', Buffer.from('the one before'), /with another OCSP response than the one that was written/],
  ] as const)
    test(`refuses a target that shows ${what}`, async () => {
      await using server = await stapling(() => response)
      const verifier = make(server.port, { staple: true, deadline: '200ms' })
      await assert.rejects(verifier.verify(bundle, undefined, never), failure('STAPLE_NOT_SERVED', message))
    })

  test('asks for none where none was written, and does not look at it without the option', async () => {
    await using server = await stapling(() => null)
    await make(server.port, { staple: true }).verify(next.bundle, undefined, never)
    await make(server.port).verify(bundle, undefined, never)
  })
})
