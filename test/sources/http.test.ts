import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { sources } from '../../src/sources/index.ts'
import { createTestCa } from '../support/ca.ts'
import { failure, forever } from '../vault/support.ts'
import { createSource } from './contract.ts'

const root = mkdtempSync(join(tmpdir(), 'certferry-http-'))
after(() => rmSync(root, { recursive: true, force: true }))
const [ca, clients] = [await createTestCa(), await createTestCa({ commonName: 'Client Root' })]
const write = (name: string, content: string) => {
  writeFileSync(join(root, name), content)
  return join(root, name)
}
const caFile = write('ca.pem', ca.rootPem)

type Answer = (request: IncomingMessage, response: ServerResponse) => void

/** An https server with a certificate of the CA, and a source that asks it. */
async function begin(onRequest: Answer, { mtls = false, more = {} as object } = {}) {
  const { certificatePem, keyPem } = await ca.issue({ altNames: ['127.0.0.1'] })
  const seen: IncomingMessage[] = []
  const trust = mtls ? { requestCert: true, rejectUnauthorized: true, ca: clients.rootPem } : {}
  const server = createServer({ cert: certificatePem, key: keyPem, ...trust }, (request, response) => {
    seen.push(request)
    onRequest(request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const place = server.address()
  assert.ok(place && typeof place === 'object')
  const url = `https://127.0.0.1:${place.port}/web.pem?token=canary`
  return {
    seen,
    source: (options: object = {}) => createSource({ kind: 'http', url, caFile, ...more, ...options }),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Serves what it is given, with an ETag or a date. */
function shelf(validator: 'etag' | 'last-modified' | undefined) {
  const state = { body: '', at: 0 }
  const onRequest: Answer = ({ headers }, response) => {
    const etag = `"${createHash('sha256').update(state.body).digest('hex')}"`
    const date = new Date(state.at).toUTCString()
    const isSame =
      validator === 'etag' ? headers['if-none-match'] === etag : headers['if-modified-since'] === date && validator
    if (isSame) return void response.writeHead(304).end()
    response.writeHead(200, { ...(validator && { [validator]: validator === 'etag' ? etag : date }) }).end(state.body)
  }
  return { state, onRequest }
}
const issue = async () => {
  const { certificatePem, chainPems, keyPem, bundle } = await ca.issue({ withIntermediate: true })
  return { body: keyPem + certificatePem + chainPems.join(''), serial: bundle.serial }
}

describe('source http', () => {
  for (const validator of ['etag', 'last-modified', undefined] as const)
    it(`asks only for what is new, with ${validator ?? 'no validator'}`, async () => {
      const { state, onRequest } = shelf(validator)
      await using at = await begin(onRequest)
      const [one, two] = [await issue(), await issue()]
      state.body = one.body
      const source = at.source()
      const serving = await source.fetch(forever)
      assert.equal(serving.serial, one.serial)
      assert.match(serving.origin, /^http https:\/\/127\.0\.0\.1:\d+\/web\.pem$/)
      assert.equal(await source.polling?.look(serving, forever), serving)
      Object.assign(state, { body: two.body, at: 60_000 })
      assert.equal((await source.polling?.look(serving, forever))?.serial, two.serial)
      // Another process asks for all of it.
      assert.equal((await at.source().fetch(forever)).serial, two.serial)
      assert.equal(at.seen.length, 4)
    })

  it('shows a client certificate, a token and headers as their files hold them at that moment', async () => {
    const { state, onRequest } = shelf('etag')
    await using at = await begin(onRequest, { mtls: true })
    const { body, serial } = await issue()
    state.body = body
    const client = await clients.issue()
    const [clientCertFile, clientKeyFile] = [write('c.pem', client.certificatePem), write('k.pem', client.keyPem)]
    const tokenFile = write('token', 'one\n')
    const headerFiles = { 'X-Team': write('team', 'web') }
    const source = at.source({ clientCertFile, clientKeyFile, tokenFile, headerFiles })
    assert.equal((await source.fetch(forever)).serial, serial)
    write('token', 'two')
    await source.fetch(forever)
    assert.deepEqual(
      at.seen.map(({ headers }) => [headers.authorization, headers['x-team']]),
      [
        ['Bearer one', 'web'],
        ['Bearer two', 'web'],
      ],
    )
    const refused = await failure(at.source().fetch(forever))
    assert.equal(refused.code, 'URL_CREDENTIALS')
    write('k.pem', (await clients.issue()).keyPem)
    const error = await failure(source.fetch(forever))
    assert.equal(error.code, 'URL_CREDENTIALS')
    assert.match(error.message, /c\.pem and \S+k\.pem are not a certificate and its key$/)
  })

  const answers: [string, Answer, string, RegExp][] = [
    [
      'a redirect',
      (_, response) => void response.writeHead(302, { location: 'https://elsewhere.example/x?token=canary' }).end(),
      'URL_REFUSED',
      /web\.pem \(302\) leads to https:\/\/elsewhere\.example\/x; redirects are not followed/,
    ],
    ['a refusal', (_, response) => void response.writeHead(403).end(), 'URL_REFUSED', /was answered with 403$/],
    ['a fault', (_, response) => void response.writeHead(503).end(), 'URL_UNREACHABLE', /was answered with 503$/],
    [
      'a 304 that nobody asked for',
      (_, response) => void response.writeHead(304).end(),
      'URL_REFUSED',
      /was answered with 304$/,
    ],
    [
      'more than 1 MiB',
      (_, response) => void response.end(Buffer.alloc(1_100_000, 'x')),
      'URL_REFUSED',
      /larger than 1 MiB$/,
    ],
    ['half an answer', (request) => void request.socket.destroy(), 'URL_UNREACHABLE', /^GET https:\S+\/web\.pem: /],
    ['a page', (_, response) => void response.end('<html>'), 'INPUT_INCOMPLETE', /web\.pem holds no certificate$/],
    [
      'a certificate alone',
      async (_, response) => void response.end((await ca.issue()).certificatePem),
      'INPUT_INCOMPLETE',
      /web\.pem holds no private key/,
    ],
  ]
  for (const [what, onRequest, code, told] of answers)
    it(`S4 names ${what}`, async () => {
      await using at = await begin(onRequest)
      const error = await failure(at.source().fetch(forever))
      assert.equal(error.code, code, error.message)
      assert.match(error.message, told)
      assert.doesNotMatch(error.message, /canary/)
    })

  it('trusts the CA file alone', async () => {
    await using at = await begin((_, response) => void response.end())
    const error = await failure(at.source({ caFile: write('other.pem', clients.rootPem) }).fetch(forever))
    assert.equal(error.code, 'URL_UNREACHABLE')
    assert.match(error.message, /UNABLE_TO_|SELF_SIGNED/)
    const empty = await failure(at.source({ caFile: write('empty.pem', '') }).fetch(forever))
    assert.equal(empty.code, 'URL_CREDENTIALS')
    assert.equal(at.seen.length, 0)
  })

  it('stops when asked to, though nobody answers', async () => {
    const stop = new AbortController()
    const reason = new Error('stop')
    await using at = await begin(() => stop.abort(reason))
    await assert.rejects(at.source().fetch(stop.signal), reason)
  })

  it('refuses an address without TLS, but for loopback, and half a client certificate', () => {
    const isValid = (options: object) => sources.schema.safeParse({ kind: 'http', ...options }).success
    assert.equal(isValid({ url: 'http://127.0.0.1:8080/x' }), true)
    for (const options of [
      {},
      { url: 'http://certs.example/x' },
      { url: 'https://user:password@certs.example/x' },
      { url: 'ftp://certs.example/x' },
      { url: 'https://certs.example/x', clientCertFile: '/a' },
      { url: 'https://certs.example/x', headerFiles: { 'a b': '/a' } },
    ])
      assert.equal(isValid(options), false, JSON.stringify(options))
  })
})
