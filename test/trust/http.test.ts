import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { createTestCa } from '../support/ca.ts'
import { failure, forever } from '../vault/support.ts'
import { createTrust, pemOfLists } from './support.ts'

const folder = mkdtempSync(join(tmpdir(), 'certferry-http-lists-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const at = (name: string) => join(folder, name)
const [ca, other] = [await createTestCa(), await createTestCa({ commonName: 'Other' })]
writeFileSync(at('ca.pem'), ca.rootPem + other.rootPem)

interface Shelf {
  body: string | Buffer
  status?: number
  /** Answers with an ETag of the body. */
  readonly hasTag?: boolean
  readonly isTls?: boolean
}

/** A distribution point that serves what is on the shelf, and a trust that asks it. */
async function begin(shelf: Shelf) {
  const seen: { readonly tag: string | undefined; readonly status: number }[] = []
  const onRequest: RequestListener = (request: IncomingMessage, response) => {
    const etag = `"${createHash('sha256').update(shelf.body).digest('hex')}"`
    const tag = request.headers['if-none-match']
    const status = shelf.hasTag && tag === etag ? 304 : (shelf.status ?? 200)
    seen.push({ tag, status })
    response.writeHead(status, shelf.hasTag ? { etag } : {}).end(status === 304 ? undefined : shelf.body)
  }
  const { certificatePem, keyPem } = await ca.issue({ altNames: ['127.0.0.1'] })
  const server = shelf.isTls
    ? createTlsServer({ cert: certificatePem, key: keyPem }, onRequest)
    : createServer(onRequest)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const place = server.address()
  const url = `http${shelf.isTls ? 's' : ''}://127.0.0.1:${typeof place === 'object' ? place?.port : ''}/crl.pem?of=all`
  const open = (more: object = {}) =>
    createTrust({ anchors: [{ kind: 'file', file: at('ca.pem') }], crls: [{ kind: 'http', url, ...more }] })
  return {
    url,
    seen,
    /** A trust that has read its lists once, and how it looks at them again. */
    serve: async () => {
      const { fetch, polling } = open()
      const serving = await fetch(forever)
      const look = async () => (await polling?.look(serving, forever)) ?? assert.fail()
      return { serving, look }
    },
    open,
    refusal: async (more: object = {}) => {
      const { code, message } = await failure(open(more).fetch(forever))
      return `${code} ${message.replaceAll(url, 'URL')}`
    },
    [Symbol.asyncDispose]: async () => {
      if (!server.listening) return
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

describe('lists by http', () => {
  it('come one in DER, or several in one PEM answer, of different CAs', async () => {
    const [first, second] = [await ca.crl({ number: 1 }), await other.crl({ number: 2 })]
    const shelf: Shelf = { body: first }
    await using place = await begin(shelf)
    assert.deepEqual(
      (await place.open().fetch(forever)).lists.map(({ der }) => der),
      [first],
    )
    shelf.body = `Lists of today\n${pemOfLists(first)}\r\n# another\n${pemOfLists(second).replaceAll('\n', '\r\n')}`
    const { lists } = await place.open().fetch(forever)
    assert.deepEqual(
      lists.map(({ issuer, der }) => [issuer, der]),
      [
        ['CN=Test Root', first],
        ['CN=Other', second],
      ],
    )
  })

  it('are asked for with the ETag of the last answer: what is the same is not sent again, and stays', async () => {
    const shelf: Shelf = { body: pemOfLists(await ca.crl({ number: 1 }), await other.crl({ number: 1 })), hasTag: true }
    await using place = await begin(shelf)
    const { serving, look } = await place.serve()
    const same = await look()
    assert.deepEqual([same.fingerprint, same.lists.length], [serving.fingerprint, 2])
    shelf.body = pemOfLists(await ca.crl({ number: 2 }), await other.crl({ number: 1 }))
    const next = await look()
    assert.deepEqual(
      next.lists.map(({ number }) => number),
      [2n, 1n],
    )
    assert.deepEqual(
      place.seen.map(({ tag, status }) => [tag !== undefined, status]),
      [
        [false, 200],
        [true, 304],
        [true, 200],
      ],
    )
  })

  it('K5 that cannot be read leave the tag of the last good answer as it was', async () => {
    const good = pemOfLists(await ca.crl({ number: 1 }))
    const shelf: Shelf = { body: good, hasTag: true }
    await using place = await begin(shelf)
    const { serving, look } = await place.serve()
    shelf.body = good.slice(0, -20)
    const { code, message } = await failure(look())
    assert.equal(`${code} ${message}`, `CRL_INVALID ${place.url} is cut off within a revocation list`)
    shelf.body = good
    assert.equal((await look()).fingerprint, serving.fingerprint)
    assert.deepEqual(
      place.seen.map(({ status }) => status),
      [200, 200, 304],
    )
  })

  it('without an ETag are read anew each time', async () => {
    await using place = await begin({ body: await ca.crl() })
    const { look } = await place.serve()
    await look()
    assert.deepEqual(
      place.seen,
      Array.from({ length: 2 }, () => ({ tag: undefined, status: 200 })),
    )
  })

  it('K4 that cannot be had fail with what the server said', async () => {
    const shelf: Shelf = { body: '' }
    await using place = await begin(shelf)
    assert.equal(await place.refusal(), 'CRL_INVALID URL holds no revocation list, neither DER nor PEM')
    for (const status of [302, 304, 404, 503]) {
      shelf.status = status
      assert.equal(await place.refusal(), `CRL_UNREACHABLE URL answers ${status}`)
    }
    shelf.status = 200
    shelf.body = Buffer.alloc(16 * 1024 * 1024 + 1)
    assert.match(await place.refusal(), /^CRL_UNREACHABLE URL: /)
    await place[Symbol.asyncDispose]()
    assert.match(await place.refusal(), /^CRL_UNREACHABLE URL: .*ECONNREFUSED/)
  })

  it('over https need a server of a CA that is named, by a file that can be read', async () => {
    await using place = await begin({ body: await ca.crl(), isTls: true })
    assert.equal((await place.open({ caFile: at('ca.pem') }).fetch(forever)).lists.length, 1)
    assert.match(await place.refusal(), /^CRL_UNREACHABLE URL: .*(?:certificate|issuer)/)
    const none = at('none.pem')
    assert.equal(await place.refusal({ caFile: none }), `CRL_UNREACHABLE caFile ${none} cannot be used: ENOENT`)
  })
})
