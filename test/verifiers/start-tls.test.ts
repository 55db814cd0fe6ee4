import assert from 'node:assert/strict'
import { createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { TLSSocket } from 'node:tls'
import { verifiers } from '../../src/verifiers/index.ts'
import { createTestCa } from '../support/ca.ts'
import { contextOf, createTime, listening, never } from './support.ts'

const issued = await (await createTestCa()).issue({ commonName: 'db.test' })

const SSL_REQUEST = '0000000804d2162f'
const INFO = 'INFO {"server_id":"X","tls_required": true,"max_payload":1048576} \r\n'
/** Sequence 1, extended response, result success, no name, no text. */
const LDAP_SUCCESS = Buffer.from('300c02010178070a010004000400', 'hex')

const probe = (port: number, startTls: string, options: object = {}) =>
  verifiers
    .create(
      verifiers.schema.parse({
        kind: 'tls',
        address: `127.0.0.1:${port}`,
        serverName: 'db.test',
        startTls,
        ...options,
      }),
      { clock: createTime().clock },
    )
    .probe(never)

/** Says something first, or to what comes first; then speaks TLS if it is to. What it was asked is in `asked`, as hexadecimal digits. */
async function server(answer: string | Buffer, { first = false, tls = false, parts = false } = {}) {
  const asked: string[] = []
  const say = (socket: Socket) => {
    if (parts) for (const byte of Buffer.from(answer)) socket.write(Buffer.of(byte))
    else socket.write(answer)
    if (tls) new TLSSocket(socket, { isServer: true, secureContext: contextOf(issued) }).on('error', () => {})
  }
  const listener = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {})
    if (first) return say(socket)
    socket.once('data', (request) => {
      asked.push(request.toString('hex'))
      say(socket)
    })
  })
  const { port, [Symbol.asyncDispose]: dispose } = await listening(listener)
  return { port, asked, [Symbol.asyncDispose]: dispose }
}

test('asks for TLS in the protocol of the server, and then sees its certificate', async () => {
  await using postgres = await server('S', { tls: true })
  await using nats = await server(INFO, { first: true, tls: true, parts: true })
  await using ldap = await server(LDAP_SUCCESS, { tls: true, parts: true })
  for (const [{ port }, protocol] of [
    [postgres, 'postgres'],
    [nats, 'nats'],
    [ldap, 'ldap'],
  ] as const) {
    const seen = await probe(port, protocol)
    assert.equal(seen.up && seen.fingerprint, issued.bundle.fingerprint, `${protocol}: ${JSON.stringify(seen)}`)
  }
  assert.deepEqual(postgres.asked, [SSL_REQUEST])
  assert.equal(
    Buffer.from(ldap.asked[0] ?? '', 'hex')
      .subarray(9)
      .toString(),
    '1.3.6.1.4.1.1466.20037',
  )
})

test('says why TLS does not begin, and never takes what comes before it for a part of it', async () => {
  const rows = [
    ['postgres', 'N', false, /^PostgreSQL answers that TLS is off$/],
    ['postgres', 'SX', false, /^the server is no PostgreSQL: it answers "SX"$/],
    ['postgres', 'HTTP/1.1 400 Bad Request\r\n', false, /^the server is no PostgreSQL: it answers "HTTP\/1.1 400/],
    ['nats', 'INFO {"server_id":"X"}\r\n', true, /^NATS says that TLS is off$/],
    ['nats', `${INFO}+OK\r\n`, true, /^NATS says more than a line before TLS$/],
    ['nats', '220 mail.test ESMTP\r\n', true, /^the server is no NATS: it says "220 mail.test/],
    ['nats', 'x'.repeat(70_000), true, /^the server says too much before TLS$/],
    ['ldap', Buffer.from('300c02010178070a013404000400', 'hex'), false, /^LDAP refuses StartTLS with result 52$/],
    ['ldap', 'HTTP/1.1 400 Bad Request\r\n'.repeat(9), false, /^the server is no LDAP server: it answers "HTTP/],
  ] as const
  for (const [protocol, answer, first, why] of rows) {
    await using spoiled = await server(answer, { first })
    const seen = await probe(spoiled.port, protocol)
    assert.match(seen.up ? 'up' : seen.why, why)
  }
})

test('a server that hangs up, or is silent, is one that does not answer', async () => {
  const closing = await listening(createServer((socket) => void socket.resume().end()))
  assert.deepEqual(await probe(closing.port, 'postgres'), { up: false, why: 'the connection was closed before TLS' })
  await using silent = await server('', {})
  const seen = await probe(silent.port, 'postgres', { timeout: '50ms' })
  assert.deepEqual(seen, { up: false, why: 'no TLS handshake within 50ms' })
  await closing[Symbol.asyncDispose]()
  assert.deepEqual(await probe(closing.port, 'nats'), { up: false, why: 'connection refused' })
})

test('stops in the middle of the asking when told to', async () => {
  await using silent = await server('')
  const stop = new AbortController()
  const verifier = verifiers.create(
    verifiers.schema.parse({
      kind: 'tls',
      address: `127.0.0.1:${silent.port}`,
      serverName: 'x.test',
      startTls: 'nats',
    }),
    { clock: createTime().clock },
  )
  const probing = verifier.probe(stop.signal)
  stop.abort(new Error('enough'))
  await assert.rejects(probing, /enough/)
})
