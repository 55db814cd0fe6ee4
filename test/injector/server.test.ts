import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, type RequestOptions, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, describe, test } from 'node:test'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import * as z from 'zod'
import { systemClock } from '../../src/clock.ts'
import { fingerprintOf } from '../../src/core/bundle.ts'
import { SidecarError, toSidecarError } from '../../src/errors.ts'
import { InjectorOptions } from '../../src/injector/options.ts'
import { type InjectorDeps, openInjector } from '../../src/injector/server.ts'
import type { Kubernetes } from '../../src/kubernetes/client.ts'
import type { Heard } from '../observe/admin-kit.ts'
import { createTestCa } from '../support/ca.ts'
import { until } from '../support/until.ts'
import { podWith, reviewOf, WEB } from './kit.ts'

const folder = await mkdtemp(join(tmpdir(), 'certferry-injector-'))
after(() => rm(folder, { recursive: true, force: true }))
const ca = await createTestCa()
const forever = new AbortController().signal
const files = { certFile: join(folder, 'tls.crt'), keyFile: join(folder, 'tls.key'), caFile: join(folder, 'ca.crt') }
const { certificatePem, keyPem } = await ca.issue({ commonName: 'localhost', altNames: ['127.0.0.1', 'localhost'] })
await Promise.all([
  writeFile(files.certFile, certificatePem),
  writeFile(files.keyFile, keyPem),
  writeFile(files.caFile, ca.rootPem),
])

const MINIMAL = {
  listen: '127.0.0.1:0',
  certificate: 'injector',
  image: 'certferry:0.1.0',
  nativeSidecars: true,
  namespace: 'certferry',
  defaults: { 'vault-address': 'https://vault.vault.svc:8200', 'vault-role': 'web' },
}

/** A webhook in this process that has its certificate, without an API server. */
async function start({ options = {}, ...deps }: Partial<InjectorDeps> & { readonly options?: object } = {}) {
  const heard: Pick<Heard, 'name' | 'event'>[] = []
  const injector = await openInjector(InjectorOptions.parse({ ...MINIMAL, ...options }), {
    clock: systemClock,
    emit: (name, event) => void heard.push({ name, event }),
    env: {},
    files: () => files,
    limits: { lingerMs: 0 },
    kubernetes: () => assert.fail('there is no API server'),
    ...deps,
  })
  await injector.takeUp(forever)
  const port = Number(new URL(injector.url).port)
  const agent = new Agent({ ca: ca.rootPem, keepAlive: true })
  const post = (body: string, { path = '/mutate', ...more }: RequestOptions = {}) =>
    send({ port, path, method: 'POST', agent, headers: { 'content-type': 'application/json' }, ...more }, body)
  return {
    injector,
    port,
    post,
    named: (name: string) => heard.filter((one) => one.name === name).map(({ event }) => event),
    [Symbol.asyncDispose]: async () => {
      agent.destroy()
      await injector[Symbol.asyncDispose]()
    },
  }
}

async function send(options: RequestOptions, body?: string) {
  const sent = request({ host: '127.0.0.1', ...options })
  sent.end(body)
  const [reply] = await once(sent, 'response')
  return { status: Number(reply.statusCode), headers: reply.headers, body: await text(reply) }
}

async function dial(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = connect({ host: '127.0.0.1', port, ca: ca.rootPem, ...options })
  await once(socket, 'secureConnect')
  return socket
}

const Answer = z.object({ response: z.object({ uid: z.string(), allowed: z.boolean(), patch: z.string().optional() }) })
const REVIEW = JSON.stringify(reviewOf(podWith(WEB)))

describe('the webhook', () => {
  test('answers a review, counts it, and is healthy', async () => {
    await using webhook = await start()
    const { status, headers, body } = await webhook.post(REVIEW)
    assert.equal(status, 200)
    assert.equal(headers['content-type'], 'application/json')
    const { response } = Answer.parse(JSON.parse(body))
    assert.equal(response.allowed, true)
    assert.ok(response.patch)
    const [told] = webhook.named('injector.reviewed')
    assert.partialDeepStrictEqual(told, {
      namespace: 'shop',
      pod: 'web-67b946d5d4-',
      result: 'injected',
      dryRun: false,
    })
    const health = await send({ port: webhook.port, path: '/healthz', ca: ca.rootPem })
    assert.deepEqual([health.status, health.body], [200, 'ok\n'])
  })

  test('leaves alone the namespace that POD_NAMESPACE says is its own', async () => {
    await using webhook = await start({ options: { namespace: undefined }, env: { POD_NAMESPACE: 'shop' } })
    const { response } = Answer.parse(JSON.parse((await webhook.post(REVIEW)).body))
    assert.deepEqual([response.allowed, response.patch], [true, undefined])
  })

  test('speaks TLS 1.2 and later only', async () => {
    await using webhook = await start()
    const old: ConnectionOptions = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' }
    await assert.rejects(dial(webhook.port, old), /protocol|version|alert/i)
    const socket = await dial(webhook.port, { maxVersion: 'TLSv1.2' })
    assert.equal(socket.getProtocol(), 'TLSv1.2')
    socket.destroy()
  })

  const refused: Readonly<
    Record<string, readonly [body: string, options: RequestOptions, status: number, says: RegExp]>
  > = {
    'another path': [REVIEW, { path: '/' }, 404, /not found/],
    'another method': [REVIEW, { method: 'PUT' }, 405, /method not allowed/],
    'a GET of /mutate': ['', { method: 'GET' }, 405, /method not allowed/],
    'another content type': [REVIEW, { headers: { 'content-type': 'text/plain' } }, 415, /not as text\/plain/],
    'no content type': [REVIEW, { headers: {} }, 415, /nothing in particular/],
    'truncated JSON': [REVIEW.slice(0, -20), {}, 400, /is no JSON/],
    'an empty body': ['', {}, 400, /is no JSON/],
    'no object': ['[]', {}, 415, /not an AdmissionReview of admission.k8s.io\/v1/],
    'an old API version': [
      REVIEW.replace('admission.k8s.io/v1', 'admission.k8s.io/v1beta1'),
      {},
      415,
      /"?admission.k8s.io\/v1beta1"? .*set admissionReviewVersions: \[v1\]/,
    ],
    'an oversized body': [REVIEW.padEnd(3 * 1024 * 1024 + 1), {}, 413, /may have 3145728 bytes at most/],
  }
  for (const [what, [body, options, status, says]] of Object.entries(refused))
    test(`refuses ${what} with ${status}, and goes on`, async () => {
      await using webhook = await start()
      const reply = await webhook.post(body, options)
      assert.equal(reply.status, status)
      assert.match(reply.body, says)
      assert.equal((await webhook.post(REVIEW)).status, 200)
      assert.deepEqual(webhook.named('internal.error'), [])
    })

  test('holds no more bodies at the same time than there is room for, and has it again once they are gone', async () => {
    await using webhook = await start({ limits: { lingerMs: 0, bodiesBytes: 2 * REVIEW.length } })
    const first = connect({ port: webhook.port, ca: ca.rootPem, servername: 'localhost' })
    const head = `POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${2 * REVIEW.length}\r\n\r\n`
    first.write(head + REVIEW.padEnd(2 * REVIEW.length - 1))
    await until('there is no room', async () => (await webhook.post(REVIEW)).status === 503)
    first.destroy()
    await until('there is room again', async () => (await webhook.post(REVIEW)).status === 200)
  })

  test('refuses an oversized body of unknown length', async () => {
    await using webhook = await start()
    const chunked = { headers: { 'content-type': 'application/json', 'transfer-encoding': 'chunked' } }
    assert.equal((await webhook.post(REVIEW.padEnd(3 * 1024 * 1024 + 1), chunked)).status, 413)
  })

  test('takes a review of 3 MiB, which is more than the API server can send', async () => {
    await using webhook = await start()
    assert.equal((await webhook.post(REVIEW.padEnd(3 * 1024 * 1024))).status, 200)
  })

  test('skips what is no pod, and denies a pod that is none', async () => {
    await using webhook = await start()
    const resource = { group: 'apps', version: 'v1', resource: 'deployments' }
    const other = await webhook.post(JSON.stringify(reviewOf({ kind: 'Deployment' }, { resource })))
    assert.equal(Answer.parse(JSON.parse(other.body)).response.allowed, true)
    const broken = await webhook.post(JSON.stringify(reviewOf({ kind: 'Pod', metadata: 7 })))
    assert.equal(Answer.parse(JSON.parse(broken.body)).response.allowed, false)
    assert.deepEqual(
      webhook.named('injector.reviewed').map((event) => 'result' in event && event.result),
      ['skipped', 'denied'],
    )
  })

  test('outlives JSON that is nested without end', async () => {
    await using webhook = await start()
    const nested = `${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}`
    const bodies = [nested, REVIEW.replace('"spec":{', `"spec":{"deep":${nested},`)]
    for (const body of bodies) assert.ok((await webhook.post(body)).status >= 200)
    assert.equal((await webhook.post(REVIEW)).status, 200)
  })

  test('tells of refused requests once a minute only', async () => {
    await using webhook = await start()
    for (let turn = 0; turn < 5; turn += 1) await webhook.post('nothing')
    assert.equal(webhook.named('injector.request-refused').length, 1)
  })

  test('a client that sends slowly is cut off, and holds nobody up', async () => {
    await using webhook = await start({ limits: { requestMs: 200, headersMs: 200 } })
    const slow = await dial(webhook.port)
    const head = 'POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{'
    slow.on('error', () => {}).write(head)
    assert.equal((await webhook.post(REVIEW)).status, 200)
    assert.match(await text(slow), /^HTTP\/1.1 408 |^$/)
  })

  test('answers who asks on an open connection while it stops, and has it closed', async () => {
    const webhook = await start({ limits: { lingerMs: 30_000 } })
    assert.equal((await webhook.post(REVIEW)).headers.connection, 'keep-alive')
    const closing = webhook.injector[Symbol.asyncDispose]()
    assert.equal(webhook.injector.unready(), 'the webhook stops')
    const last = await webhook.post(REVIEW)
    assert.deepEqual([last.status, last.headers.connection], [200, 'close'])
    await closing
    await assert.rejects(webhook.post(REVIEW), /ECONNREFUSED/)
  })

  test('answers a review that is under way when it stops', async () => {
    const webhook = await start({ limits: { lingerMs: 0 } })
    const socket = await dial(webhook.port)
    const half = Math.floor(REVIEW.length / 2)
    const length = Buffer.byteLength(REVIEW)
    socket.write(
      `POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\nExpect: 100-continue\r\n\r\n${REVIEW.slice(0, half)}`,
    )
    const started = once(socket, 'data')
    await Promise.race([started, until('the request is there', () => socket.bytesWritten > half)])
    const closing = webhook.injector[Symbol.asyncDispose]()
    socket.write(REVIEW.slice(half))
    assert.match(await text(socket), /HTTP\/1.1 200 OK/)
    await closing
  })
})

describe('a new certificate', () => {
  /** An API server whose one webhook trusts what it is told to, once `changing` lets it. */
  function apiServer(changing: () => Promise<void>): Kubernetes {
    const configuration = { metadata: { resourceVersion: '1' }, webhooks: [{ clientConfig: {} }] }
    return {
      address: 'https://api',
      namespace: 'certferry',
      pod: 'injector-0',
      ask: async ({ method }, schema) => {
        if (method === 'PATCH') await changing()
        return schema.parse(configuration)
      },
      watch: () => {
        throw new Error('nothing is watched')
      },
      [Symbol.asyncDispose]: async () => {},
    }
  }

  /** A webhook with a certificate in service, and another one in its files. */
  async function replaced(changing: () => Promise<void>) {
    const home = await mkdtemp(join(folder, 'replaced-'))
    const own = { certFile: join(home, 'tls.crt'), keyFile: join(home, 'tls.key'), caFile: join(home, 'ca.crt') }
    const install = async () => {
      const { certificatePem, keyPem, bundle } = await ca.issue({ altNames: ['localhost'] })
      await Promise.all([
        writeFile(own.certFile, certificatePem),
        writeFile(own.keyFile, keyPem),
        writeFile(own.caFile, ca.rootPem),
      ])
      return bundle.fingerprint
    }
    let isFirst = true
    const kubernetes = apiServer(async () => {
      if (!isFirst) await changing()
    })
    const first = await install()
    const webhook = await start({
      options: { webhookConfiguration: 'certferry-injector' },
      files: () => own,
      kubernetes: () => kubernetes,
      caBundle: { settleMs: 0 },
    })
    isFirst = false
    const second = await install()
    const shown = async () => {
      const socket = await dial(webhook.port, { servername: 'localhost' })
      const leaf = socket.getPeerX509Certificate()
      socket.destroy()
      return leaf && fingerprintOf(leaf)
    }
    return { ...webhook, own, first, second, shown }
  }

  test('is not shown before the API server trusts it', async () => {
    const asked = Promise.withResolvers<void>()
    const change = Promise.withResolvers<void>()
    await using webhook = await replaced(() => {
      asked.resolve()
      return change.promise
    })
    const taking = webhook.injector.takeUp(forever)
    await asked.promise
    const before = await webhook.shown()
    change.resolve()
    await taking
    assert.deepEqual([before, await webhook.shown()], [webhook.first, webhook.second])
  })

  test('waits while the API server is away: told, the old one in service, and taken up by itself', async () => {
    let isAway = true
    await using webhook = await replaced(async () => {
      if (isAway) throw new SidecarError('KUBERNETES_UNREACHABLE', 'away')
    })
    const error = await webhook.injector.takeUp(forever).catch(toSidecarError)
    assert.ok(error instanceof SidecarError)
    assert.equal(error.code, 'KUBERNETES_UNREACHABLE')
    assert.equal(await webhook.shown(), webhook.first)
    assert.equal(webhook.injector.unready(), undefined, 'what is in service is still trusted')
    assert.equal(webhook.named('injector.tls-failed').length, 1)
    isAway = false
    await until('the new one is shown', async () => (await webhook.shown()) === webhook.second)
  })

  test('is not taken up with the CA of another set', async () => {
    await using webhook = await replaced(async () => {})
    await writeFile(webhook.own.caFile, (await createTestCa()).rootPem)
    const error = await webhook.injector.takeUp(forever).catch(toSidecarError)
    assert.match(String(error), /ca.crt does not belong to the certificate beside it/)
    assert.equal(await webhook.shown(), webhook.first)
  })

  test('before the first one the webhook is not ready', async () => {
    const none = join(folder, 'none')
    const injector = await openInjector(InjectorOptions.parse(MINIMAL), {
      clock: systemClock,
      emit: () => {},
      env: {},
      files: () => ({ certFile: none, keyFile: none, caFile: none }),
      kubernetes: () => assert.fail('there is no API server'),
    })
    assert.equal(injector.unready(), 'the webhook has no certificate yet')
    const error = await injector.takeUp(forever).catch(toSidecarError)
    assert.match(String(error), /none cannot be read: ENOENT/)
    await injector[Symbol.asyncDispose]()
  })
})

describe('opening the webhook', () => {
  const open = (options: object) => start({ options })

  test('refuses defaults that are no annotation, with what was meant', async () => {
    const failure = await open({ defaults: { 'vault-adress': 'https://vault' } }).catch(toSidecarError)
    assert.ok('code' in failure)
    assert.equal(failure.code, 'CONFIG_INVALID')
    assert.match(failure.message, /^injector.defaults.vault-adress: .*vault-address/)
  })

  test('refuses an address that is taken', async () => {
    await using webhook = await start()
    const failure = await open({ listen: `127.0.0.1:${webhook.port}` }).catch(toSidecarError)
    assert.ok('code' in failure)
    assert.equal(failure.code, 'ADDRESS_IN_USE')
  })
})
