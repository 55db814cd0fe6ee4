import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { dial, startAdmin } from '../../test/observe/admin-kit.ts'
import { type Mutator, pick, replaced } from '../mutate.ts'
import type { OpenTarget } from '../target.ts'

/** Raw requests to a real admin server, on its port and on its control socket: each is answered in order or the connection closed, and the next client is served. */
export const openHttpRequest: OpenTarget = async () => {
  const server = await startAdmin((folder) => ({ listen: '127.0.0.1:0', socket: join(folder, 'control.sock') }), {
    limits: { headersMs: 500, requestMs: 500, idleMs: 500, stallMs: 500 },
  })
  return {
    seeds: SEEDS.map((text) => Buffer.from(text)),
    dictionary: DICTIONARY,
    structured: changeHead,
    run: async (input) => {
      const replies = await Promise.all([server.port, server.socket].map((to) => exchange(dial(to), input)))
      for (const reply of replies) assertInOrder(reply)
      assertInOrder(await exchange(dial(server.port), LIVEZ), /^HTTP\/1\.1 200 [\s\S]*\r\n\r\nok\n$/)
      const bugs = server.heard.splice(0).filter(({ name }) => name === 'internal.error')
      assert.deepEqual(bugs, [])
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

const LIVEZ = Buffer.from('GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')

/** What comes back until the server closes; that we have sent all makes it close. */
async function exchange(socket: Socket, bytes: Buffer): Promise<string> {
  let reply = ''
  socket.setEncoding('latin1').on('data', (chunk) => {
    reply += chunk
  })
  socket.on('error', () => {})
  socket.end(bytes)
  await once(socket, 'close')
  return reply
}

/** Only what we do, 421 for a strange host included, and what Node does by itself to a broken request: 100, 400, 408, 413, 417, 431, 501. */
function assertInOrder(
  reply: string,
  wanted = /^(?:HTTP\/1\.1 (?:100|200|202|400|403|404|405|408|413|417|421|422|431|501) |$)/,
) {
  assert.match(reply, wanted)
  assert.doesNotMatch(reply, /\n {4}at |node:internal|node_modules/, 'a reply tells of the inside')
}

/** A header more, or another start line. */
const changeHead: Mutator = (input, { random, dictionary }) => {
  const end = input.indexOf('\r\n')
  if (end < 0) return input
  const line = `${pick(['GET', 'POST', 'HEAD', 'PUT', 'OPTIONS', 'CONNECT', 'x'], random)} ${pick(PATHS, random)} HTTP/1.1`
  return random() < 0.5 ? replaced(input, 0, end, line) : replaced(input, end + 2, 0, pick(dictionary, random))
}

const PATHS = ['/livez', '/readyz', '/startupz', '/healthz?verbose', '/metrics', '/status', '/rotate', '/reload-config']
const rotate = (body: string) =>
  `POST /rotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`
const SEEDS = [
  ...PATHS.map((path) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`),
  'HEAD /status HTTP/1.0\r\n\r\n',
  rotate('{"certificates":"all","reason":"x","wait":true}'),
  rotate('{"certificates":["web"]}'),
  'POST /reload-config HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n',
  'GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n',
]

const DICTIONARY = [
  'Content-Length: 5\r\n',
  'Content-Length: 0\r\n',
  'Content-Length: 99999999\r\n',
  'Content-Length: -1\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding: chunked, identity\r\n',
  'Transfer-Encoding : chunked\r\n',
  'Expect: 100-continue\r\n',
  'Expect: x\r\n',
  'Upgrade: websocket\r\nConnection: upgrade\r\n',
  'Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAAA\r\n',
  'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'Connection: close\r\n',
  'Connection: keep-alive\r\n',
  'Host: localhost\r\n',
  'Host: evil.test\r\n',
  'X: \u0000\r\n',
  ' folded\r\n',
  '\r\n\r\n',
  '\r\n',
  '\n',
  '?verbose=false',
  '?%',
  'http://x/livez',
  '*',
  '0\r\n\r\n',
  'ffffffffffffffff\r\n',
  '{"certificates":["__proto__"]}',
  '"wait":true',
  `X: ${'x'.repeat(9000)}\r\n`,
]
