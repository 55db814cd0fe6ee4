import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import * as z from 'zod'
import { Secret } from '../../src/core/secret.ts'
import type { ErrorCode } from '../../src/errors.ts'
import type { KubernetesRequest } from '../../src/kubernetes/client.ts'
import { createTestCa } from '../support/ca.ts'
import { answer, type Fault } from '../support/fault-proxy.ts'
import { failure, forever } from '../vault/support.ts'
import { startApiServer, TOKEN } from './support.ts'

const getWeb: KubernetesRequest = {
  method: 'GET',
  path: ['apis', 'apps', 'v1', 'namespaces', 'shop', 'deployments', 'web'],
}
const Named = z.object({ metadata: z.object({ name: z.string() }) })
const web = () => answer(200, { metadata: { name: 'web' } })

/** What the API server says with a refusal. */
const refused = (code: number, reason: string, message: string, more: object = {}) =>
  answer(code, { kind: 'Status', apiVersion: 'v1', status: 'Failure', message, reason, code, ...more })

const ended = async (fault: Fault, request = getWeb, timeoutMs?: number) => {
  await using api = await startApiServer(() => fault)
  await using client = api.open({}, timeoutMs)
  return await failure(client.ask(request, Named, forever))
}

describe('a request to the Kubernetes API', { concurrency: 4 }, () => {
  test('carries path, query, body with its secrets, content type and token, and gives back the object', async () => {
    await using api = await startApiServer(web)
    await using client = api.open()
    const found = await client.ask(
      {
        method: 'PATCH',
        path: ['api', 'v1', 'namespaces', 'shop', 'secrets', 'web tls'],
        query: { fieldManager: 'certferry', force: 'true' },
        body: { data: { 'tls.key': new Secret('aGVsbG8=') }, list: [new Secret('x'), null, 1] },
        contentType: 'application/apply-patch+yaml',
      },
      Named,
      forever,
    )
    assert.deepEqual(found, { metadata: { name: 'web' } })
    const [seen] = api.server.requests
    assert.equal(seen?.method, 'PATCH')
    assert.equal(seen?.url, '/api/v1/namespaces/shop/secrets/web%20tls?fieldManager=certferry&force=true')
    assert.equal(seen?.body, '{"data":{"tls.key":"aGVsbG8="},"list":["x",null,1]}')
    assert.equal(seen?.headers['content-type'], 'application/apply-patch+yaml')
    assert.equal(seen?.headers.authorization, `Bearer ${TOKEN}`)
  })

  test('shows the token that the file holds at that moment', async () => {
    await using api = await startApiServer(web)
    await using client = api.open()
    await client.ask(getWeb, Named, forever)
    await writeFile(join(api.directory, 'token'), 'rotated\n')
    await client.ask(getWeb, Named, forever)
    assert.deepEqual(
      api.server.requests.map(({ headers }) => headers.authorization),
      [`Bearer ${TOKEN}`, 'Bearer rotated'],
    )
  })

  test('asks nothing without a usable token', async () => {
    await using api = await startApiServer(web)
    await using client = api.open()
    for (const [content, why] of [
      ['', /token is empty$/],
      ['two\nlines', /token holds more than a token$/],
    ] as const) {
      await writeFile(join(api.directory, 'token'), content)
      const error = await failure(client.ask(getWeb, Named, forever))
      assert.equal(error.code, 'KUBERNETES_UNAUTHORIZED')
      assert.match(error.message, why)
    }
    await rm(join(api.directory, 'token'))
    assert.match((await failure(client.ask(getWeb, Named, forever))).message, /token cannot be read \(ENOENT\)$/)
    assert.equal(api.server.requests.length, 0)
  })

  test('trusts the CA file alone, and reads it again for each connection', async () => {
    await using api = await startApiServer(web)
    await using client = api.open()
    const caFile = join(api.directory, 'ca.crt')
    await writeFile(caFile, (await createTestCa({ commonName: 'Foreign Root' })).rootPem)
    const error = await failure(client.ask(getWeb, Named, forever))
    assert.equal(error.code, 'KUBERNETES_UNREACHABLE')
    assert.match(error.message, /^cannot get deployments\.apps shop\/web: https:\/\/127.*(?:UNABLE_TO_|SELF_SIGNED)/)
    await writeFile(caFile, '')
    assert.match(
      (await failure(client.ask(getWeb, Named, forever))).message,
      /ca\.crt does not begin with a certificate/,
    )
    await rm(caFile)
    assert.match((await failure(client.ask(getWeb, Named, forever))).message, /ca\.crt cannot be read \(ENOENT\)/)
    assert.equal(api.server.requests.length, 0)
    await writeFile(caFile, api.ca.rootPem)
    assert.deepEqual(await client.ask(getWeb, Named, forever), { metadata: { name: 'web' } })
  })

  test('refuses a server of another name', async () => {
    await using api = await startApiServer(web)
    const { certificatePem, keyPem } = await api.ca.issue({ altNames: ['kubernetes.default'] })
    api.server.showCertificate({ cert: certificatePem, key: keyPem })
    await using client = api.open()
    assert.match((await failure(client.ask(getWeb, Named, forever))).message, /ERR_TLS_CERT_ALTNAME_INVALID/)
  })

  test('has a limit of its own, whether nobody accepts, answers or finishes', async () => {
    const late = async (fault: Fault) => (await ended(fault, getWeb, 300)).message
    const expected = /^cannot get deployments\.apps shop\/web: https:\S+ did not answer within 300ms$/
    assert.match(await late({ kind: 'silence' }), expected)
    assert.match(await late({ kind: 'part', body: '{', length: 9, end: 'silence' }), expected)
    await using api = await startApiServer(web)
    const mute = createServer((socket) => void socket.on('error', () => {})).listen(0, '127.0.0.1')
    await once(mute, 'listening')
    const place = mute.address()
    assert.ok(place && typeof place === 'object')
    await using client = api.open({ apiServer: `https://127.0.0.1:${place.port}` }, 300)
    assert.match((await failure(client.ask(getWeb, Named, forever))).message, expected)
    mute.close()
  })

  test('ends with the reason of the signal', async () => {
    const reason = new Error('stop now')
    const stop = new AbortController()
    await using api = await startApiServer(() => {
      setImmediate(() => stop.abort(reason))
      return { kind: 'silence' }
    })
    await using client = api.open()
    await assert.rejects(client.ask(getWeb, Named, stop.signal), reason)
    await assert.rejects(client.ask(getWeb, Named, AbortSignal.abort(reason)), reason)
    assert.equal(api.server.requests.length, 1)
  })

  const rows: [string, Fault, ErrorCode, RegExp][] = [
    ['401', refused(401, 'Unauthorized', 'Unauthorized'), 'KUBERNETES_UNAUTHORIZED', /\(401 Unauthorized\): Unauth/],
    ['404', refused(404, 'NotFound', 'deployments.apps "web" not found'), 'KUBERNETES_NOT_FOUND', /"web" not found$/],
    ['409', refused(409, 'Conflict', 'the object has been modified'), 'KUBERNETES_CONFLICT', /has been modified$/],
    ['422', refused(422, 'Invalid', 'spec.x: Required value'), 'KUBERNETES_INVALID', /\(422 Invalid\): spec\.x/],
    ['500', answer(500, 'oops\n'), 'KUBERNETES_UNREACHABLE', /^cannot get deployments\.apps shop\/web \(500\): oops$/],
    ['a redirect', answer(302, '', { location: 'https://127.0.0.1:1/' }), 'KUBERNETES_INVALID', /\(302\)$/],
    ['a page', answer(200, '<html>'), 'KUBERNETES_INVALID', /the answer \(200\) is not what .*: it is no JSON$/],
    ['another object', answer(200, { metadata: {} }), 'KUBERNETES_INVALID', /: metadata\.name: /],
    ['a reset', { kind: 'reset' }, 'KUBERNETES_UNREACHABLE', /UND_ERR_SOCKET|ECONNRESET/],
    ['a flood', { kind: 'flood' }, 'KUBERNETES_UNREACHABLE', /UND_ERR_RES_EXCEEDED_MAX_SIZE/],
  ]
  for (const [what, fault, code, message] of rows)
    test(`takes ${what} for ${code}`, async () => {
      const error = await ended(fault)
      assert.equal(error.code, code, error.message)
      assert.match(error.message, message)
      assert.match(error.message, /^cannot get deployments\.apps shop\/web/)
    })

  test('names the rule that a Role lacks', async () => {
    const forbidden = refused(403, 'Forbidden', 'deployments.apps "web" is forbidden: User "x" cannot get')
    const error = await ended(forbidden)
    assert.equal(error.code, 'KUBERNETES_DENIED')
    assert.equal(
      error.message,
      'cannot get deployments.apps shop/web (403 Forbidden): deployments.apps "web" is forbidden: User "x" cannot get; what it takes is a rule in a Role in namespace shop {apiGroups: ["apps"], resources: ["deployments"], verbs: ["get"], resourceNames: ["web"]}',
    )
    const create = await ended(forbidden, {
      method: 'POST',
      path: ['api', 'v1', 'namespaces', 'shop', 'events'],
      body: {},
    })
    assert.match(
      create.message,
      /Role in namespace shop \{apiGroups: \[""\], resources: \["events"\], verbs: \["create"\]\}$/,
    )
    const cluster = await ended(forbidden, { method: 'PATCH', path: ['api', 'v1', 'nodes', 'a', 'status'], body: {} })
    assert.match(cluster.message, /^cannot patch nodes\/status a .* ClusterRole \{.*resourceNames: \["a"\]\}$/)
  })

  test('heeds Retry-After, and retryAfterSeconds', async () => {
    const busy = (details: object) => refused(429, 'TooManyRequests', 'later', { details })
    assert.equal((await ended(answer(503, 'x', { 'retry-after': '7' }))).retryAfterMs, 7000)
    const error = await ended(busy({ retryAfterSeconds: 3 }))
    assert.deepEqual([error.code, error.retryAfterMs], ['KUBERNETES_UNREACHABLE', 3000])
    assert.equal((await ended(busy({}))).retryAfterMs, undefined)
  })

  test('no message repeats the token, or a secret that was sent', async () => {
    const error = await ended(refused(400, 'BadRequest', `no ${TOKEN} and no canary-key`), {
      ...getWeb,
      method: 'PUT',
      body: { data: [new Secret('canary-key')] },
    })
    assert.equal(error.message, 'cannot update deployments.apps shop/web (400 BadRequest): no [secret] and no [secret]')
  })

  test('a path cannot lead elsewhere', async () => {
    for (const part of ['..', '', 'a/b']) {
      const error = await ended(web(), { method: 'GET', path: ['api', 'v1', 'namespaces', part, 'pods', 'x'] })
      assert.equal(error.code, 'CONFIG_INVALID')
    }
  })

  test('says that nobody listens', async () => {
    const api = await startApiServer(web)
    await using client = api.open()
    await api.server[Symbol.asyncDispose]()
    const error = await failure(client.ask(getWeb, Named, forever))
    assert.equal(error.code, 'KUBERNETES_UNREACHABLE')
    assert.match(error.message, /ECONNREFUSED/)
    await rm(api.directory, { recursive: true })
  })

  test('loads nothing that speaks HTTP before the first request', async () => {
    const module = new URL('../../src/kubernetes/client.ts', import.meta.url)
    const script = `
      await import(${JSON.stringify(module.href)})
      const { createRequire } = await import('node:module')
      console.log(Object.keys(createRequire(import.meta.url).cache).filter((path) => path.includes('undici')).length)`
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script])
    assert.equal(stdout.trim(), '0')
  })
})
