import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, type TestContext, test } from 'node:test'
import { status } from '@grpc/grpc-js'
import { editionOf, isSameContent } from '../../src/core/content.ts'
import { namesOf } from '../../src/core/names.ts'
import { sources } from '../../src/sources/index.ts'
import { decodeX509SvidResponse } from '../../src/sources/spiffe-message.ts'
import { createTestCa } from '../support/ca.ts'
import { type Answer, startWorkloadApi, svidOf, type X509Svid } from '../support/spiffe-workload-api.ts'
import { until } from '../support/until.ts'
import { failure } from '../vault/support.ts'
import { check, createSource } from './contract.ts'

const WEB = 'spiffe://example.org/web'
const API = 'spiffe://example.org/api'
const folder = mkdtempSync(join(tmpdir(), 'certferry-spiffe-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const [ca, foreign] = await Promise.all([createTestCa(), createTestCa({ commonName: 'Foreign Root' })])
/** As SPIRE makes them: no common name that is a name, one URI. */
const issue = (id: string) => ca.issue({ commonName: 'SPIRE', altNames: [id], withIntermediate: true })
const [web, next, api] = await Promise.all([issue(WEB), issue(WEB), issue(API)])
const WEB_ANSWER: Answer = { svids: [svidOf(WEB, web, [ca])] }
const forever = new AbortController().signal

let count = 0
async function serve(t: TestContext, answer: Answer) {
  count += 1
  const server = await startWorkloadApi(join(folder, `agent-${count}.sock`), answer)
  t.after(() => server[Symbol.asyncDispose]())
  return server
}

const create = ({ socket }: { socket: string }, more: object = {}) => createSource({ kind: 'spiffe', socket, ...more })

describe('the SVID of a Workload API', () => {
  test('is a usable bundle: chain, key and roots of its trust domain', async (t) => {
    const source = create(await serve(t, WEB_ANSWER))
    const bundle = await source.fetch(forever)
    check(bundle, source)
    assert.equal(bundle.fingerprint, web.bundle.fingerprint)
    assert.equal(bundle.origin, source.origin)
    assert.deepEqual([bundle.intermediates.length, bundle.roots.length], [1, 1])
    assert.deepEqual(namesOf(bundle.leaf).uri, [WEB])
    const [{ what } = { what: '' }] = await source.examine(forever)
    assert.match(what, /gives spiffe:\/\/example\.org\/web, certificate [0-9a-f]+, valid until/)
  })

  test('is the first of several, or the one of an ID or a hint', async (t) => {
    const server = await serve(t, {
      svids: [svidOf(WEB, web, [ca], 'public'), svidOf(API, api, [ca], 'internal')],
    })
    const got = async (more: object) => (await create(server, more).fetch(forever)).fingerprint
    assert.equal(await got({}), web.bundle.fingerprint)
    assert.equal(await got({ svid: API }), api.bundle.fingerprint)
    assert.equal(await got({ hint: 'internal' }), api.bundle.fingerprint)
    const missing = await failure(create(server, { svid: 'spiffe://example.org/db' }).fetch(forever))
    assert.equal(missing.code, 'SPIFFE_SVID_MISSING')
    assert.match(
      missing.message,
      /gives this process spiffe:\/\/example\.org\/web \(hint public\), .*, not spiffe:.*\/db$/,
    )
    assert.notEqual(
      create(server).origin,
      create(server, { svid: API }).origin,
      'another one is due when the config changes',
    )
  })

  test('comes with roots of federated domains where that is asked for', async (t) => {
    const server = await serve(t, {
      svids: [svidOf(WEB, web, [ca])],
      federated: { 'spiffe://foreign.example': foreign.root.raw },
    })
    const roots = async (more: object) => (await create(server, more).fetch(forever)).roots.length
    assert.deepEqual([await roots({}), await roots({ federated: true })], [1, 2])
  })

  test('is the same while nothing changes, another edition with other roots, and a new one after a rotation', async (t) => {
    const server = await serve(t, WEB_ANSWER)
    const source = create(server)
    const serving = await source.fetch(forever)
    assert.equal(await source.polling?.look(serving, forever), serving)
    server.give({ svids: [svidOf(WEB, web, [ca, foreign])] })
    const edition = await source.polling?.look(serving, forever)
    assert.ok(edition)
    assert.equal(edition.fingerprint, serving.fingerprint)
    assert.ok(!isSameContent(edition, serving) && editionOf(edition) !== editionOf(serving))
    assert.equal(edition.roots.length, 2)
    assert.equal(await source.polling?.look(edition, forever), edition)
    server.give({ svids: [svidOf(WEB, next, [ca])] })
    assert.equal((await source.polling?.look(edition, forever))?.fingerprint, next.bundle.fingerprint)
  })
})

describe('an open stream rings', () => {
  test('for what is new, and not for what was just fetched; also after the agent was restarted', async (t) => {
    const server = await serve(t, WEB_ANSWER)
    const source = create(server)
    await source.fetch(forever)
    let rings = 0
    const watching = source.polling?.watch?.(() => {
      rings += 1
    })
    t.after(() => watching?.[Symbol.asyncDispose]())
    await until('the stream is open', () => server.listeners() > 0)
    server.give({ svids: [svidOf(WEB, next, [ca])] })
    await until('it rings', () => rings === 1)
    await server.stop()
    server.give(WEB_ANSWER)
    await server.start()
    await until('it listens again and rings', () => rings === 2)
    server.give({ status: status.PERMISSION_DENIED, message: 'no identity issued' })
    await until('it rings for what was taken away', () => rings === 3)
    const calls = server.calls()
    await until('it asks again', () => server.calls() > calls)
    assert.equal(rings, 3)
    await watching?.[Symbol.asyncDispose]()
    await until('nothing is left open', () => server.listeners() === 0)
  })
})

describe('S4 what goes wrong has a name', () => {
  const svid = svidOf(WEB, web, [ca])
  const rows: readonly (readonly [claim: string, answer: Answer, code: string, message: RegExp])[] = [
    [
      'no identity',
      { status: status.PERMISSION_DENIED, message: 'no identity issued' },
      'SPIFFE_DENIED',
      /agent-\d+\.sock has no identity for this process: no identity issued$/,
    ],
    [
      'an agent that is not ready',
      { status: status.UNAVAILABLE, message: 'sync: not yet' },
      'SPIFFE_UNREACHABLE',
      /ended the answer with gRPC status 14: sync: not yet$/,
    ],
    ['an answer without identities', { svids: [] }, 'SPIFFE_SVID_MISSING', /gives this process nothing/],
    ['bytes that are no message', { bytes: Buffer.from('nonsense') }, 'BAD_RESPONSE', /is malformed: /],
    ['a message that is cut off', { bytes: Buffer.from([0x0a, 0x7f, 1]) }, 'BAD_RESPONSE', /malformed: it is cut off/],
    ['an empty key', { svids: [{ ...svid, x509_svid_key: Buffer.alloc(0) }] }, 'BAD_RESPONSE', /its key is empty/],
    ['no roots', { svids: [{ ...svid, bundle: Buffer.alloc(0) }] }, 'BAD_RESPONSE', /its bundle is empty/],
    [
      'a key that is none',
      { svids: [{ ...svid, x509_svid_key: Buffer.from('x') }] },
      'BAD_RESPONSE',
      /key .* does not parse/,
    ],
    [
      'the key of another',
      { svids: [{ ...svid, x509_svid_key: svidOf(WEB, next, [ca]).x509_svid_key }] },
      'KEY_MISMATCH',
      /does not belong/,
    ],
    [
      'a certificate that is none',
      { svids: [{ ...svid, x509_svid: Buffer.from([0x30, 1, 0]) }] },
      'BAD_RESPONSE',
      /does not parse as X\.509/,
    ],
    [
      'a certificate that is cut off',
      { svids: [{ ...svid, x509_svid: svid.x509_svid.subarray(0, 99) }] },
      'BAD_RESPONSE',
      /a certificate is cut off/,
    ],
    [
      'a certificate of another identity',
      { svids: [{ ...svid, spiffe_id: API }] },
      'BAD_RESPONSE',
      /is for spiffe:.*\/web, not for spiffe:.*\/api$/,
    ],
  ]
  for (const [claim, answer, code, message] of rows)
    test(claim, async (t) => {
      const error = await failure(create(await serve(t, answer)).fetch(forever))
      assert.equal(error.code, code, error.message)
      assert.match(error.message, message)
    })

  test('no agent, and one that speaks something else', async (t) => {
    const gone = await failure(create({ socket: `unix://${folder}/gone.sock` }).fetch(forever))
    assert.equal(gone.code, 'SPIFFE_UNREACHABLE')
    assert.match(gone.message, /^the Workload API at unix:.*gone\.sock cannot be reached: connect ENOENT/)
    const path = join(folder, 'other.sock')
    const other = createServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')).listen(path)
    t.after(() => other.close())
    assert.equal((await failure(create({ socket: path }).fetch(forever))).code, 'SPIFFE_UNREACHABLE')
  })

  test('an abort ends a call that waits for its answer', async (t) => {
    const path = join(folder, 'silent.sock')
    const silent = createServer((socket) => t.after(() => socket.destroy())).listen(path)
    t.after(() => silent.close())
    const stop = new AbortController()
    silent.once('connection', () => stop.abort(new Error('stop')))
    await assert.rejects(create({ socket: path }).fetch(stop.signal), { message: 'stop' })
  })

  test('messages cut off or changed anywhere are refused or decoded, and nothing else', () => {
    const message = encoded(svid)
    assert.equal(decodeX509SvidResponse(message).svids[0]?.spiffeId, WEB)
    for (let at = 0; at < message.length; at += 7) {
      const changed = Buffer.from(message)
      changed[at] = 255 - (changed[at] ?? 0)
      for (const bytes of [message.subarray(0, at), changed])
        try {
          decodeX509SvidResponse(bytes)
        } catch (error) {
          assert.ok(error instanceof RangeError, String(error))
        }
    }
  })
})

test('a config names a socket, and at most one identity', () => {
  const parse = (options: object) => sources.schema.safeParse({ kind: 'spiffe', ...options })
  for (const socket of [
    'unix:///run/agent.sock',
    'unix:/run/agent.sock',
    '/run/agent.sock',
    'tcp://127.0.0.1:8081',
    'tcp://[::1]:8081',
  ])
    assert.ok(parse({ socket }).success, socket)
  for (const socket of [
    '',
    'agent.sock',
    'unix://agent.sock',
    'tcp://localhost:8081',
    'tcp://127.0.0.1:0',
    'http://127.0.0.1:1',
  ])
    assert.ok(!parse({ socket }).success, socket)
  assert.ok(!parse({}).success)
  assert.ok(!parse({ socket: '/a', svid: 'https://example.org' }).success)
  assert.ok(!parse({ socket: '/a', svid: WEB, hint: 'x' }).success)
})

/** By hand, as workloadapi.proto says. */
function encoded({ spiffe_id, x509_svid, x509_svid_key, bundle }: X509Svid): Buffer {
  const parts = [Buffer.from(spiffe_id), x509_svid, x509_svid_key, bundle]
  return field(1, Buffer.concat(parts.map((part, index) => field(index + 1, part))))
}

function field(number: number, content: Buffer): Buffer {
  const length: number[] = []
  for (let rest = content.length; ; rest >>= 7) {
    length.push(rest > 127 ? (rest & 127) | 128 : rest)
    if (rest <= 127) break
  }
  return Buffer.concat([Buffer.from([number * 8 + 2, ...length]), content])
}
