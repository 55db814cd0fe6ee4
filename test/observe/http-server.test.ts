import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { createServer, PUBLIC_LIMITS } from '../../src/observe/http-server.ts'
import { type Question, type Reply, text } from '../../src/observe/router.ts'
import { dial, exchange } from './admin-kit.ts'

const ASK = 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'

test('N1 a client that does not read its reply is cut off', async () => {
  const cutOff = Promise.withResolvers<unknown>()
  await using server = await serve({ stallMs: 20 }, ({ signal }) => {
    signal.addEventListener('abort', () => cutOff.resolve(signal.reason), { once: true })
    return text(200, 'x'.repeat(16 * 1024 * 1024))
  })
  const socket = dial(server.port)
  socket.on('error', () => {})
  socket.pause()
  socket.write(ASK)
  assert.match(String(await cutOff.promise), /AbortError/)
  socket.destroy()
})

test('a handler learns that its client has gone', async () => {
  const asked = Promise.withResolvers<AbortSignal>()
  await using server = await serve({}, async ({ signal }) => {
    asked.resolve(signal)
    await once(signal, 'abort')
    throw signal.reason
  })
  const socket = dial(server.port)
  socket.write(ASK)
  const signal = await asked.promise
  socket.destroy()
  if (!signal.aborted) await once(signal, 'abort')
  assert.deepEqual(server.heard, [])
})

test('a handler that waits learns that the server stops, and its client gets an answer', async () => {
  const asked = Promise.withResolvers<void>()
  const server = await serve({}, async ({ signal }) => {
    asked.resolve()
    await once(signal, 'abort')
    throw signal.reason
  })
  const response = fetch(`http://127.0.0.1:${server.port}/`)
  await asked.promise
  await server[Symbol.asyncDispose]()
  assert.equal((await response).status, 503)
  assert.equal((await response).headers.get('connection'), 'close')
  assert.match(await (await response).text(), /"code":"SIDECAR_UNREACHABLE"/)
  assert.deepEqual(server.heard, [])
})

test('N2 what follows in the same breath is neither answered nor obeyed, and the connection is closed', async () => {
  let asked = 0
  await using server = await serve({}, async () => {
    asked += 1
    return text(200, 'once')
  })
  for (const first of [
    ASK,
    'TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'GET / HTTP/1.1\r\n\r\n',
    ASK.replace('Host', 'Expect: x\r\nHost'),
  ]) {
    asked = 0
    const reply = await exchange(server.port, first + ASK.repeat(1_000))
    assert.equal(reply.match(/HTTP\/1\.1/g)?.length, 1, first)
    assert.match(reply, /^Connection: close\r$/m)
    assert.equal(asked, first === ASK ? 1 : 0, first)
  }
})

test('one request after the other on a connection is answered', async () => {
  await using server = await serve({}, () => text(200, 'again'))
  const socket = dial(server.port)
  for (let count = 0; count < 5; count += 1) {
    socket.write(ASK)
    assert.match(String(await once(socket, 'data')), /^HTTP\/1\.1 200 OK[\s\S]*again/)
  }
  socket.destroy()
})

async function serve(limits: Partial<typeof PUBLIC_LIMITS>, handler: (question: Question) => Reply | Promise<Reply>) {
  const heard: string[] = []
  const http = createServer({
    routes: new Map([['/', { GET: handler }]]),
    limits: { ...PUBLIC_LIMITS, ...limits },
    emit: (name) => void heard.push(name),
  })
  http.server.listen(0, '127.0.0.1')
  await once(http.server, 'listening')
  const address = http.server.address()
  assert.ok(address && typeof address === 'object')
  return { port: address.port, heard, [Symbol.asyncDispose]: () => http[Symbol.asyncDispose]() }
}
