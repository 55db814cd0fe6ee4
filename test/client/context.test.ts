import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createSecureServer } from 'node:http2'
import { type Agent, createServer, get } from 'node:https'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { connect, createServer as createTlsServer, type PeerCertificate, type Server, TLSSocket } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { Agent as UndiciAgent } from 'undici'
import { type TlsContext, type TlsContextError, type TlsContextOptions, tlsContext } from '../../src/client/index.ts'
import { createTestCa, type Issued, type TestCa } from '../support/ca.ts'
import { mountSecret } from '../support/secret-mount.ts'
import { until } from '../support/until.ts'
import { makeVolume } from '../support/volume.ts'

const ca = await createTestCa()
const issue = (from = ca) => from.issue({ commonName: 'localhost', altNames: ['localhost', '127.0.0.1'] })
const [one, two, three] = await Promise.all([issue(), issue(), issue()])

const put = (directory: string, { certificatePem, keyPem }: Issued, trust: TestCa | undefined = ca) =>
  mountSecret(directory, {
    'tls.crt': certificatePem,
    'tls.key': keyPem,
    ...(trust ? { 'ca.crt': trust.rootPem } : {}),
  })
const putMixed = (directory: string) => put(directory, { ...two, keyPem: three.keyPem })

const plain = (fingerprint: string) => fingerprint.replaceAll(':', '').toLowerCase()
const inUse = ({ current }: TlsContext) => plain(current.certificate.fingerprint256)

async function open(t: TestContext, directory: string, options: Partial<TlsContextOptions> = {}) {
  const context = await tlsContext({ directory, ...options })
  t.after(() => context.close())
  return context
}

async function listen(t: TestContext, server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.after(() => server.close())
  const address = server.address()
  return typeof address === 'object' && address ? address.port : assert.fail('no port')
}

/** Connects as a client without certificate, and tells which one the server shows. */
async function servedAt(port: number): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', ca: ca.rootPem })
  await once(socket, 'secureConnect')
  const { fingerprint256 } = socket.getPeerCertificate()
  socket.destroy()
  return plain(fingerprint256)
}

const SERVERS: Readonly<Record<string, (options: ReturnType<TlsContext['serverOptions']>) => Server>> = {
  'node:tls': (options) => createTlsServer(options, (socket) => socket.on('error', () => {})),
  'node:https': (options) => createServer(options),
  'node:http2': (options) => createSecureServer(options),
}

for (const [module, create] of Object.entries(SERVERS)) {
  test(`a server of ${module} follows the directory, and connections that are open live on`, async (t) => {
    const directory = makeVolume(t)
    put(directory, one)
    const context = await open(t, directory)
    const port = await listen(t, context.attach(create(context.serverOptions())))
    const old = connect({ port, host: '127.0.0.1', servername: 'localhost', ca: ca.rootPem })
    t.after(() => old.destroy())
    await once(old, 'secureConnect')
    for (const next of [two, three]) {
      put(directory, next)
      await until('the next one is served', async () => (await servedAt(port)) === next.bundle.fingerprint)
      assert.equal(inUse(context), next.bundle.fingerprint)
    }
    assert.equal(old.closed, false)
  })
}

test('what is set besides certificate and key is set again with each change', async (t) => {
  const directory = makeVolume(t)
  put(directory, one)
  const context = await open(t, directory, { tls: { minVersion: 'TLSv1.3' } })
  const port = await listen(t, context.attach(createServer(context.serverOptions())))
  put(directory, two)
  await until('the next one is served', async () => (await servedAt(port)) === two.bundle.fingerprint)
  const old = connect({ port, host: '127.0.0.1', servername: 'localhost', ca: ca.rootPem, maxVersion: 'TLSv1.2' })
  await assert.rejects(once(old, 'secureConnect'), /protocol version/i)
})

test('a set that does not load changes nothing, is told once, and the next good one is taken', async (t) => {
  const directory = makeVolume(t)
  put(directory, one)
  const errors: TlsContextError[] = []
  const changes: string[] = []
  const context = await open(t, directory, { pollMs: 5 })
  context
    .on('error', (error) => errors.push(error))
    .on('change', ({ certificate }) => changes.push(plain(certificate.fingerprint256)))
  const port = await listen(t, context.attach(createServer(context.serverOptions())))
  putMixed(directory)
  await until('it is told', () => errors.length > 0)
  assert.equal(await servedAt(port), one.bundle.fingerprint)
  await assert.rejects(context.reload(), { code: 'TLS_PAIR_MISMATCH' })
  assert.deepEqual(
    errors.map(({ code }) => code),
    ['TLS_PAIR_MISMATCH'],
  )
  put(directory, three)
  await until('the good one is taken', () => changes.length > 0)
  assert.deepEqual(changes, [three.bundle.fingerprint])
  assert.equal(await context.reload(), false, 'nothing new is there')
})

test('going back to the set before is followed as well', async (t) => {
  const directory = makeVolume(t)
  const write = ({ certificatePem, keyPem }: Issued) => {
    writeFileSync(join(directory, 'tls.crt'), certificatePem)
    writeFileSync(join(directory, 'tls.key'), keyPem)
  }
  write(one)
  const context = await open(t, directory)
  for (const next of [two, one, two]) {
    write(next)
    await until('it is taken', () => inUse(context) === next.bundle.fingerprint)
  }
})

test('without a listener an error is a warning of the process, and ends nothing', async (t) => {
  const directory = makeVolume(t)
  put(directory, one)
  await open(t, directory)
  const warnings: string[] = []
  const note = (warning: Error) => warnings.push(String(warning))
  process.on('warning', note)
  t.after(() => process.off('warning', note))
  putMixed(directory)
  const claim = 'TlsContextWarning: certferry keeps the certificate it has: the key in'
  await until('it is warned', () => warnings.some((warning) => warning.startsWith(claim)))
})

test('a directory that is replaced is followed anew, and so is one that cannot be watched', async (t) => {
  const directory = join(makeVolume(t), 'tls')
  for (const watch of [true, false]) {
    mkdirSync(directory)
    put(directory, one)
    // Watched, it is seen without the net of half a minute.
    const context = await open(t, directory, watch ? {} : { pollMs: 20, watch })
    context.on('error', () => {})
    renameSync(directory, `${directory}-${watch}`)
    mkdirSync(directory)
    put(directory, two)
    await until('the new directory is read', () => inUse(context) === two.bundle.fingerprint)
    put(directory, three)
    await until('and followed', () => inUse(context) === three.bundle.fingerprint)
    rmSync(directory, { recursive: true })
  }
})

test('the first set may be waited for', async (t) => {
  const directory = makeVolume(t)
  await assert.rejects(tlsContext({ directory }), { code: 'TLS_SET_MISSING' })
  const opening = open(t, directory, { waitMs: 30_000 })
  put(directory, one)
  assert.equal(inUse(await opening), one.bundle.fingerprint)
})

/** A server that demands a certificate, and tells whose it saw, and on which connection. */
async function startMutual(t: TestContext, context: TlsContext) {
  const server = createServer({ ...context.serverOptions(), requestCert: true }, ({ socket }, response) => {
    assert.ok(socket instanceof TLSSocket)
    response.end(JSON.stringify([plain(socket.getPeerCertificate().fingerprint256), socket.remotePort]))
  })
  server.on('tlsClientError', () => {})
  return listen(t, context.attach(server))
}

test('a client shows the certificate of the moment, by connect, by an agent that keeps connections, and by undici', async (t) => {
  const [here, there] = [makeVolume(t), makeVolume(t)]
  put(there, one)
  const port = await startMutual(t, await open(t, there))
  put(here, one)
  const context = await open(t, here)
  const agent = context.agent({ keepAlive: true })
  const dispatcher = new UndiciAgent({ connect: context.connector(), pipelining: 0 })
  t.after(() => {
    agent.destroy()
    return dispatcher.destroy()
  })
  const byUndici = async () => {
    const { body } = await dispatcher.request({ origin: `https://localhost:${port}`, path: '/', method: 'GET' })
    return seen(await body.text())
  }
  const byConnect = async () => {
    const socket = context.connect({ port, host: '127.0.0.1', servername: 'localhost' })
    socket.end('GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n')
    const text = (await socket.setEncoding('utf8').toArray()).join('')
    return seen(text.slice(text.indexOf('[')))
  }
  const [, first] = await byAgent(agent, port)
  assert.deepEqual(await byAgent(agent, port), [one.bundle.fingerprint, first], 'one connection serves two requests')
  for (const next of [two, three]) {
    put(here, next)
    await until('the client has it', () => inUse(context) === next.bundle.fingerprint)
    for (const ask of [byConnect, byUndici, () => byAgent(agent, port)])
      assert.equal((await ask())[0], next.bundle.fingerprint, ask.toString())
  }
  assert.equal(Object.keys(agent.freeSockets).length, 1, 'no connection of an earlier set is kept')
})

test('trust follows: after the change of the CA only its certificates are let in', async (t) => {
  const other = await createTestCa({ commonName: 'Other Root' })
  const stranger = await issue(other)
  const [here, there] = [makeVolume(t), makeVolume(t)]
  put(there, one)
  put(here, stranger, ca)
  const [server, client] = [await open(t, there), await open(t, here)]
  const port = await startMutual(t, server)
  await assert.rejects(byAgent(client.agent(), port), /unknown ca|ECONNRESET|socket hang up/i)
  put(there, one, other)
  await until('it is let in', async () => (await byAgent(client.agent(), port))[0] === stranger.bundle.fingerprint)
  put(here, stranger, other)
  await until('the client trusts the server no longer', () =>
    byAgent(client.agent(), port).then(
      () => false,
      ({ code }) => code === 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' || code === 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
    ),
  )
})

test('servers may be told by their SPIFFE ID', async (t) => {
  const id = 'spiffe://example.org/web'
  const directory = makeVolume(t)
  put(directory, await ca.issue({ commonName: 'web', altNames: [id] }))
  const context = await open(t, directory)
  const port = await startMutual(t, context)
  const only =
    (wanted: string) =>
    (_host: string, { subjectaltname }: PeerCertificate) =>
      subjectaltname === `URI:${wanted}` ? undefined : new Error(`not ${wanted} but ${subjectaltname}`)
  const ask = (wanted: string) => byAgent(context.agent({ checkServerIdentity: only(wanted) }), port)
  assert.equal((await ask(id))[0], inUse(context))
  await assert.rejects(ask('spiffe://example.org/db'), /not spiffe:\/\/example\.org\/db but URI:/)
  const dispatcher = new UndiciAgent({ connect: context.connector({ checkServerIdentity: only(id) }) })
  t.after(() => dispatcher.destroy())
  const { statusCode } = await dispatcher.request({ origin: `https://localhost:${port}`, path: '/', method: 'GET' })
  assert.equal(statusCode, 200)
})

test('no process is kept alive by it', (t) => {
  const directory = makeVolume(t)
  put(directory, one)
  const client = fileURLToPath(new URL('../../src/client/index.ts', import.meta.url))
  const script = `import { tlsContext } from ${JSON.stringify(client)}
const context = await tlsContext({ directory: ${JSON.stringify(directory)} })
setTimeout(() => console.log(context.current.certificate.subject), 100)`
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    timeout: 20_000,
  })
  assert.equal(child.status, 0, child.stderr)
  assert.equal(child.stdout, 'CN=localhost\n')
})

const seen = (text: string): [string, number] => JSON.parse(text)

function byAgent(agent: Agent, port: number): Promise<[string, number]> {
  return new Promise((resolve, reject) => {
    const request = get({ agent, port, host: 'localhost', path: '/' }, async (response) => {
      const text = (await response.setEncoding('utf8').toArray()).join('')
      // Only then is the connection free for the next request.
      setImmediate(() => resolve(seen(text)))
    })
    request.on('error', reject)
  })
}
