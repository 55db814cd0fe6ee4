import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type ConnectionOptions, connect } from 'node:tls'
import { fingerprintOf } from '../../src/core/bundle.ts'
import { createTestCa, type Issued } from '../support/ca.ts'
import { closed, dial, startAdmin, statusOf } from './admin-kit.ts'

const ca = await createTestCa()
const issue = () => ca.issue({ commonName: 'localhost', altNames: ['127.0.0.1'] })
const NEVER_MS = 3_600_000

test('serves TLS, and swaps the certificate under a connection that stays', async () => {
  const [first, second] = await Promise.all([issue(), issue()])
  await using server = await startTls({ issued: first })
  const open = await handshake(server.port)
  assert.equal(fingerprintServed(open), first.bundle.fingerprint)
  install(server.folder, second)
  await server.admin.reloadTls()
  assert.equal(statusOf(await ask(open)), '200')
  const fresh = await handshake(server.port)
  assert.equal(fingerprintServed(fresh), second.bundle.fingerprint)
  fresh.destroy()
  assert.deepEqual(told(server), ['admin.tls-loaded', 'admin.tls-loaded'])
})

test('looks at the files by itself', async () => {
  const [first, second] = await Promise.all([issue(), issue()])
  await using server = await startTls({ issued: first, tlsCheckMs: 5 })
  install(server.folder, second)
  for (;;) {
    const socket = await handshake(server.port)
    const served = fingerprintServed(socket)
    socket.destroy()
    if (served === second.bundle.fingerprint) break
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
})

test('unchanged files are not loaded again', async () => {
  const issued = await issue()
  await using server = await startTls({ issued })
  install(server.folder, issued)
  await server.admin.reloadTls()
  assert.deepEqual(told(server), ['admin.tls-loaded'])
})

test('files that do not fit together leave the old certificate in service, told once and without the key', async () => {
  const [first, second] = await Promise.all([issue(), issue()])
  await using server = await startTls({ issued: first })
  install(server.folder, { ...first, keyPem: second.keyPem })
  await server.admin.reloadTls()
  await server.admin.reloadTls()
  const socket = await handshake(server.port)
  assert.equal(fingerprintServed(socket), first.bundle.fingerprint)
  socket.destroy()
  assert.deepEqual(told(server), ['admin.tls-loaded', 'admin.tls-failed'])
  const text = JSON.stringify(server.heard)
  assert.match(text, /do not make a TLS server: ERR_OSSL_X509_KEY_VALUES_MISMATCH/)
  assert.doesNotMatch(text, /PRIVATE KEY/)
})

test('garbage and missing files leave the old certificate in service', async () => {
  const issued = await issue()
  await using server = await startTls({ issued })
  writeFileSync(join(server.folder, 'tls.crt'), 'garbage')
  await server.admin.reloadTls()
  rmSync(join(server.folder, 'tls.key'))
  await server.admin.reloadTls()
  const socket = await handshake(server.port)
  assert.equal(fingerprintServed(socket), issued.bundle.fingerprint)
  socket.destroy()
  assert.deepEqual(told(server), ['admin.tls-loaded', 'admin.tls-failed', 'admin.tls-failed'])
})

test('a FIFO or a device in the place of a file is told, and holds nothing up', async () => {
  const issued = await issue()
  await using server = await startTls({ issued })
  const file = join(server.folder, 'tls.crt')
  rmSync(file)
  execFileSync('mkfifo', [file])
  await server.admin.reloadTls()
  rmSync(file)
  symlinkSync('/dev/zero', file)
  await server.admin.reloadTls()
  assert.match(JSON.stringify(server.heard.at(-1)), /tls.crt cannot be read: not a regular file/)
  const socket = await handshake(server.port)
  assert.equal(fingerprintServed(socket), issued.bundle.fingerprint)
  socket.destroy()
})

test('files that come later are served as soon as they are there', async () => {
  await using server = await startTls({})
  await assert.rejects(handshake(server.port))
  const issued = await issue()
  install(server.folder, issued)
  await server.admin.reloadTls()
  const socket = await handshake(server.port)
  assert.equal(fingerprintServed(socket), issued.bundle.fingerprint)
  socket.destroy()
})

test('with a client CA only its certificates are let in', async () => {
  const [issued, client, stranger] = await Promise.all([
    issue(),
    ca.issue({ commonName: 'prometheus' }),
    createTestCa({ commonName: 'Other Root' }).then((other) => other.issue({ commonName: 'prometheus' })),
  ])
  await using server = await startTls({ issued, clientCa: ca.rootPem })
  const answer = (options: ConnectionOptions) =>
    handshake(server.port, options).then(ask, (error: NodeJS.ErrnoException) => `refused: ${error.code}`)
  assert.equal(statusOf(await answer({ cert: client.certificatePem, key: client.keyPem })), '200')
  // In TLS 1.3 the client's handshake may be done before the server refuses; then it gets no answer.
  for (const options of [{}, { cert: stranger.certificatePem, key: stranger.keyPem }])
    assert.match(await answer(options), /^$|^refused: (?:ERR_SSL_|ECONNRESET)/)
})

test('N1 clients that never finish the handshake are cut off, also when it closes', async () => {
  const issued = await issue()
  await using server = await startTls({ issued, limits: { headersMs: 50 } })
  const slow = dial(server.port)
  await closed(slow)
  const closing = await startTls({ issued, limits: { drainMs: 20 } })
  const silent = dial(closing.port)
  await once(silent, 'connect')
  const end = closed(silent)
  await closing[Symbol.asyncDispose]()
  await end
})

type StartOptions = Partial<Parameters<typeof startAdmin>[1]> & { issued?: Issued; clientCa?: string }

const startTls = ({ issued, clientCa, ...deps }: StartOptions) =>
  startAdmin(
    (folder) => {
      if (issued) install(folder, issued)
      if (clientCa) writeFileSync(join(folder, 'ca.crt'), clientCa)
      const tls = { certFile: join(folder, 'tls.crt'), keyFile: join(folder, 'tls.key') }
      return { listen: '127.0.0.1:0', tls: clientCa ? { ...tls, clientCaFile: join(folder, 'ca.crt') } : tls }
    },
    { tlsCheckMs: NEVER_MS, ...deps },
  )

function install(folder: string, { certificatePem, keyPem }: Issued) {
  writeFileSync(join(folder, 'tls.crt'), certificatePem)
  writeFileSync(join(folder, 'tls.key'), keyPem)
}

const told = ({ heard }: Awaited<ReturnType<typeof startAdmin>>) =>
  heard.map(({ name }) => name).filter((name) => name.startsWith('admin.tls'))

async function handshake(port: number, options: ConnectionOptions = {}) {
  const socket = connect({ host: '127.0.0.1', port, ca: ca.rootPem, servername: 'localhost', ...options })
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  return socket
}

function fingerprintServed(socket: Awaited<ReturnType<typeof handshake>>): string {
  const certificate = socket.getPeerX509Certificate()
  assert.ok(certificate)
  return fingerprintOf(certificate)
}

/** The answer to a request, empty when the connection is closed instead. */
async function ask(socket: Awaited<ReturnType<typeof handshake>>): Promise<string> {
  let reply = ''
  socket.on('data', (chunk) => {
    reply += chunk
  })
  socket.write('GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  await closed(socket)
  return reply
}
