import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmod, rm, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { createServer as createTcpServer, type Server } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { reloaders } from '../../src/reloaders/index.ts'
import { createTestCa } from '../support/ca.ts'
import { context, failure, make, never, temporaryFolder } from './support.ts'

/** Listens on a free port, or on a unix socket, until the end of the scope. */
async function listening(server: Server, path?: string) {
  server.listen(path === undefined ? { port: 0, host: '127.0.0.1' } : { path })
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  return {
    port: port ?? 0,
    [Symbol.asyncDispose]: async () => {
      server.close()
      await once(server, 'close')
    },
  }
}

const serve = (answer: RequestListener) => listening(createServer(answer))
const answering = (status: number, body = '', headers = {}) =>
  serve((_request, response) => response.writeHead(status, headers).end(body))

test('sends what the config says, and is content with any 2xx', async () => {
  const seen: object[] = []
  await using server = await serve(({ method, url, headers }, response) => {
    seen.push({ method, url, token: headers.authorization, host: headers.host })
    response.writeHead(202).end('accepted')
  })
  const url = `http://127.0.0.1:${server.port}/-/reload?token=in-query`
  const options = { kind: 'http', url, method: 'PUT', headers: { Authorization: 'Bearer canary' } }
  const reloader = make(options)
  assert.match(await reloader.inspect(), /accepts connections$/)
  assert.equal(seen.length, 0, 'a look tells the target nothing')
  await reloader.reload(context, never)
  const host = `127.0.0.1:${server.port}`
  assert.deepEqual(seen, [{ method: 'PUT', url: '/-/reload?token=in-query', token: 'Bearer canary', host }])
  assert.equal(reloader.description, `PUT http://${host}/-/reload`)
  assert.doesNotMatch(inspect(reloaders.schema.parse(options), { depth: 9 }), /canary/)
})

test('sends a file as the body, as it is at that time', async () => {
  await using folder = await temporaryFolder()
  const bodyFile = join(folder.path, 'Caddyfile')
  const seen: string[] = []
  await using server = await serve((request, response) => {
    request.setEncoding('utf8').on('data', (chunk: string) => seen.push(chunk))
    request.on('end', () => response.end())
  })
  const reloader = make({ kind: 'http', url: `http://127.0.0.1:${server.port}/load`, bodyFile })
  for (const text of ['first', 'second']) {
    await writeFile(bodyFile, text)
    await reloader.reload(context, never)
  }
  assert.deepEqual(seen, ['first', 'second'])
  await rm(bodyFile)
  await assert.rejects(
    reloader.reload(context, never),
    failure('RELOAD_FAILED', /^POST http:.*\/load: its body, .*\/Caddyfile, cannot be read: ENOENT/),
  )
  assert.equal(seen.length, 2, 'nothing was sent without it')
})

test('another status is a refusal, told with the beginning of the body', async () => {
  await using server = await answering(500, `no\nworker ${'x'.repeat(5000)}`)
  await assert.rejects(
    make({ kind: 'http', url: `http://127.0.0.1:${server.port}/` }).reload(context, never),
    (error) => {
      failure('RELOAD_FAILED', /^POST http:\/\/127\.0\.0\.1:\d+\/ answered with status 500: no worker x{290}…$/)(error)
      return !String(error).includes('canary')
    },
  )
  await make({ kind: 'http', url: `http://127.0.0.1:${server.port}/`, expectStatus: [500] }).reload(context, never)
})

test('503 is no refusal: whoever answers speaks for a target that is not there', async () => {
  await using server = await answering(503, 'the command has ended')
  await assert.rejects(
    make({ kind: 'http', url: `http://127.0.0.1:${server.port}/` }).reload(context, never),
    failure('RELOAD_TARGET_MISSING', /answered with status 503: the command has ended$/),
  )
  await make({ kind: 'http', url: `http://127.0.0.1:${server.port}/`, expectStatus: [503] }).reload(context, never)
})

test('does not follow a redirect', async () => {
  await using server = await answering(302, '', { Location: 'http://127.0.0.1:1/' })
  const reloader = make({ kind: 'http', url: `http://127.0.0.1:${server.port}/` })
  await assert.rejects(reloader.reload(context, never), failure('RELOAD_FAILED', /answered with status 302$/))
})

test('talks over a unix socket', async () => {
  await using folder = await temporaryFolder()
  const socket = join(folder.path, 'admin.sock')
  const reloader = make({ kind: 'http', url: 'http://localhost/reload', socket })
  await assert.rejects(
    reloader.reload(context, never),
    failure('RELOAD_TARGET_MISSING', /admin\.sock failed: .*ENOENT/),
  )
  await assert.rejects(reloader.inspect(), failure('RELOAD_TARGET_MISSING', /ENOENT/))
  await using _server = await listening(
    createServer((_request, response) => response.writeHead(204).end()),
    socket,
  )
  await chmod(socket, 0o600)
  await reloader.reload(context, never)
  assert.match(await reloader.inspect(), /^POST http:\/\/localhost\/reload over .*admin\.sock: accepts connections$/)
})

test('a refused or broken connection means that nobody was told', async () => {
  const port = await (async () => {
    await using server = await answering(200)
    return server.port
  })()
  const reloader = make({ kind: 'http', url: `http://127.0.0.1:${port}/` })
  await assert.rejects(reloader.reload(context, never), failure('RELOAD_TARGET_MISSING', /ECONNREFUSED/))
  await assert.rejects(reloader.inspect(), failure('RELOAD_TARGET_MISSING', /ECONNREFUSED/))
  await using rude = await listening(createTcpServer((socket) => socket.destroy()))
  await assert.rejects(
    make({ kind: 'http', url: `http://127.0.0.1:${rude.port}/` }).reload(context, never),
    failure('RELOAD_TARGET_MISSING', /failed: /),
  )
})

test('gives up at the timeout, and at once when told to stop', async () => {
  const silent = createTcpServer((socket) => socket.on('error', () => {}).resume())
  await using server = await listening(silent)
  const url = `http://127.0.0.1:${server.port}/`
  await assert.rejects(
    make({ kind: 'http', url, timeout: '30ms' }).reload(context, never),
    failure('RELOAD_TIMEOUT', /was not answered within 30ms$/),
  )
  const stop = new AbortController()
  const reload = make({ kind: 'http', url }).reload(context, stop.signal)
  await once(silent, 'connection')
  stop.abort(new Error('stopping'))
  await assert.rejects(reload, /stopping/)
})

test('a body that never ends does not hold the reload', async () => {
  await using server = await serve((_request, response) => response.writeHead(500).write('y'.repeat(400)))
  await assert.rejects(
    make({ kind: 'http', url: `http://127.0.0.1:${server.port}/` }).reload(context, never),
    failure('RELOAD_FAILED', /500: y{300}…$/),
  )
})

test('checks the certificate of an https target against caFile', async () => {
  await using folder = await temporaryFolder()
  const ca = await createTestCa()
  const { keyPem, certificatePem } = await ca.issue({ commonName: 'localhost', altNames: ['127.0.0.1'] })
  await using server = await listening(
    createTlsServer({ key: keyPem, cert: certificatePem }, (_request, response) => response.end()),
  )
  const url = `https://127.0.0.1:${server.port}/`
  const caFile = join(folder.path, 'ca.crt')
  const trusting = make({ kind: 'http', url, caFile })
  await assert.rejects(trusting.reload(context, never), failure('RELOAD_TARGET_MISSING', /ca\.crt/))
  await writeFile(caFile, ca.rootPem)
  await trusting.reload(context, never)
  await assert.rejects(
    make({ kind: 'http', url }).reload(context, never),
    failure('RELOAD_TARGET_MISSING', /unable to verify the first certificate/),
  )
})

test('the config refuses other protocols and credentials in the URL', () => {
  const problems = (options: object) =>
    reloaders.schema
      .safeParse({ kind: 'http', ...options })
      .error?.issues.map(({ path, message }) => `${path}: ${message}`)
  assert.deepEqual(problems({ url: 'ftp://a/' }), ['url: must be an http or https URL'])
  assert.deepEqual(problems({ url: 'reload' }), ['url: must be an http or https URL'])
  assert.match(String(problems({ url: 'http://u:p@a/' })), /^url: must not hold a user or password/)
  assert.deepEqual(problems({ url: 'http://a/', headers: { 'a b': 'c' } })?.length, 1)
  assert.deepEqual(problems({ url: 'http://a/', expectStatus: [] })?.length, 1)
})
