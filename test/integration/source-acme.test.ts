import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import { assertUsable, parseCertificates } from '../../src/core/bundle.ts'
import { namesOf } from '../../src/core/names.ts'
import { SidecarError } from '../../src/errors.ts'
import { readPlainFile } from '../../src/plain-file.ts'
import { createSource } from '../sources/contract.ts'
import { createTestCa } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { type Pebble, startPebble } from '../support/pebble.ts'
import { isDone, never, place, run } from '../support/sidecar.ts'
import { failure } from '../vault/support.ts'

const forever = new AbortController().signal
const skip = await skipReason('pebble', 'pebble-challtestsrv')

/** A hook as people write it: a script that asks the API of the DNS server. */
const HOOK = `const [, , action] = process.argv
const { CERTFERRY_ACME_RECORD: record, CERTFERRY_ACME_VALUE: value, CERTFERRY_ACME_ACTION: told } = process.env
if (told !== action) process.exit(3)
const body = JSON.stringify(action === 'present' ? { host: record + '.', value } : { host: record + '.' })
const reply = await fetch(process.argv[3] + (action === 'present' ? '/set-txt' : '/clear-txt'), { method: 'POST', body })
process.exit(reply.ok ? 0 : 1)
`

describe('certificates of a real ACME server', { skip }, () => {
  let pebble: Pebble
  before(async () => {
    // Each order has to be confirmed.
    pebble = await startPebble({ env: { PEBBLE_AUTHZREUSE: '0' } })
  })
  after(() => pebble[Symbol.asyncDispose]())

  const source = (options: object) =>
    createSource({
      kind: 'acme',
      directory: pebble.directory,
      caFile: pebble.caFile,
      account: {
        keyFile: join(pebble.folder, 'account.pem'),
        termsOfServiceAgreed: true,
        contact: ['mailto:ops@example.com'],
      },
      challenge: { kind: 'http-01', listen: `127.0.0.1:${pebble.httpPort}` },
      timeout: '30s',
      ...options,
    })
  const usable = (made: ReturnType<typeof source>, bundle: Awaited<ReturnType<typeof made.fetch>>) =>
    assertUsable(
      bundle,
      {
        ...(made.names && { names: made.names }),
        isCommonNameFree: true,
        minTtlMs: 0,
        chain: 'complete',
        anchors: parseCertificates(readPlainFile(pebble.rootFile).toString()),
      },
      Date.now(),
    )
  const hook = async () => {
    const script = join(pebble.folder, 'hook.mjs')
    await writeFile(script, HOOK)
    const call = (action: string) => [process.execPath, script, action, pebble.dnsManagement]
    return { present: call('present'), cleanup: call('cleanup'), timeout: '10s' }
  }

  test('are obtained by http-01 from a listener of our own, which is gone afterwards', async () => {
    const made = source({ commonName: 'a.example.com', altNames: ['b.example.com'] })
    const bundle = await made.fetch(forever)
    usable(made, bundle)
    assert.deepEqual(namesOf(bundle.leaf).dns.toSorted(), ['a.example.com', 'b.example.com'])
    assert.equal((await stat(join(pebble.folder, 'account.pem'))).mode & 0o777, 0o600)
    await assert.rejects(fetch(`http://127.0.0.1:${pebble.httpPort}/`), 'nobody listens any more')
  })

  test('take turns at one address', async () => {
    const names = ['one', 'two', 'three']
    const bundles = await Promise.all(names.map((name) => source({ commonName: `${name}.example.com` }).fetch(forever)))
    assert.deepEqual(
      bundles.map(({ leaf }) => namesOf(leaf).dns[0]),
      names.map((name) => `${name}.example.com`),
    )
  })

  test('are obtained while others send nonsense to the listener', async () => {
    const { connect } = await import('node:net')
    const send = (line: string) =>
      new Promise<void>((resolve) => {
        const socket = connect(pebble.httpPort, '127.0.0.1', () => socket.write(`${line}\r\nHost: a\r\n\r\n`))
        socket.on('error', () => {})
        socket.once('close', () => resolve())
        socket.resume()
      })
    const stop = new AbortController()
    const nonsense = (async () => {
      while (!stop.signal.aborted)
        for (const path of ['//', '/\\', '/.well-known/acme-challenge/%', '*']) await send(`GET ${path} HTTP/1.1`)
    })()
    try {
      const made = source({ commonName: 'nonsense.example.com' })
      usable(made, await made.fetch(forever))
    } finally {
      stop.abort()
      await nonsense
    }
  })

  test('are obtained by http-01 from the folder of a server that is there, and nothing is left in it', async () => {
    const { createServer } = await import('node:http')
    const webroot = join(pebble.folder, 'webroot')
    await mkdir(webroot)
    const server = createServer((request, response) => {
      try {
        response.end(readPlainFile(join(webroot, request.url ?? '')))
      } catch {
        response.writeHead(404).end()
      }
    })
    await new Promise<void>((resolve) => server.listen(pebble.httpPort, '127.0.0.1', resolve))
    try {
      const made = source({ commonName: 'c.example.com', challenge: { kind: 'http-01', webroot } })
      usable(made, await made.fetch(forever))
      assert.deepEqual(await readdir(join(webroot, '.well-known/acme-challenge')), [])
      assert.equal((await stat(join(webroot, '.well-known/acme-challenge'))).mode & 0o777, 0o755)
    } finally {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  })

  test('are obtained by tls-alpn-01, for addresses as well', async () => {
    const made = source({
      commonName: 'd.example.com',
      altNames: ['127.0.0.1'],
      challenge: { kind: 'tls-alpn-01', listen: `127.0.0.1:${pebble.tlsPort}` },
    })
    const bundle = await made.fetch(forever)
    usable(made, bundle)
    assert.deepEqual(namesOf(bundle.leaf).ip, ['127.0.0.1'])
  })

  test('are obtained by dns-01 with a hook, wildcards too, and the record is taken away', async () => {
    const made = source({ commonName: '*.e.example.com', challenge: { kind: 'dns-01', exec: await hook() } })
    const bundle = await made.fetch(forever)
    usable(made, bundle)
    assert.deepEqual(namesOf(bundle.leaf).dns, ['*.e.example.com'])
  })

  test('S2 that cannot be confirmed are refused with the name and the reason of the CA', async () => {
    await mkdir(join(pebble.folder, 'nobody-serves-this'))
    const made = source({
      commonName: 'f.example.com',
      challenge: { kind: 'http-01', webroot: join(pebble.folder, 'nobody-serves-this') },
    })
    const error = await made.fetch(forever).catch((thrown: unknown) => thrown)
    assert.ok(error instanceof SidecarError)
    assert.equal(error.code, 'ACME_CHALLENGE_FAILED')
    assert.match(error.message, /f\.example\.com/)
    assert.deepEqual(await readdir(join(pebble.folder, 'nobody-serves-this/.well-known/acme-challenge')), [])
  })

  test('S2 are not waited for where the DNS hook hangs: it is killed, and said so', async () => {
    const exec = { present: ['sleep', '60'], timeout: '300ms' }
    const made = source({ commonName: 'g.example.com', challenge: { kind: 'dns-01', exec } })
    const error = await made.fetch(forever).catch((thrown: unknown) => thrown)
    assert.ok(error instanceof SidecarError)
    assert.equal(error.code, 'ACME_HOOK_TIMEOUT')
    assert.match(error.message, /sleep 60 did not end within 300ms/)
  })

  test('stay the last good ones where the next order fails, which is tried again', async () => {
    const script = join(pebble.folder, 'moody.mjs')
    const mood = join(pebble.folder, 'mood')
    // As above; or it hangs, or does nothing.
    await writeFile(
      script,
      `import { readFileSync } from 'node:fs'
const mood = readFileSync(${JSON.stringify(mood)}, 'utf8')
if (mood === 'hangs') await new Promise((resolve) => setTimeout(resolve, 60_000))
if (mood === 'nothing') process.exit(0)
${HOOK}`,
    )
    await writeFile(mood, 'works')
    const call = (action: string) => [process.execPath, script, action, pebble.dnsManagement]
    const exec = { present: call('present'), cleanup: call('cleanup'), timeout: '2s' }
    const { folder } = place()
    const config = {
      certificates: [
        {
          name: 'web',
          source: {
            kind: 'acme',
            directory: pebble.directory,
            caFile: pebble.caFile,
            account: { keyFile: join(folder, 'account.pem'), termsOfServiceAgreed: true },
            commonName: 'moody.example.com',
            challenge: { kind: 'dns-01', exec },
          },
          check: { trustFile: pebble.rootFile },
          outputs: [{ kind: 'pem', directory: join(folder, 'out') }],
        },
      ],
    }
    await writeFile(join(folder, 'c.json'), JSON.stringify(config), { mode: 0o600 })
    await using running = run(loadConfig(join(folder, 'c.json'), {}))
    const { report } = await running.once('web', 'is delivered', isDone)
    const { serial } = report?.state.serving ?? assert.fail()
    const served = () => readPlainFile(join(folder, 'out/tls.crt')).toString()
    const before = served()
    for (const [how, code, told] of [
      ['hangs', 'ACME_HOOK_TIMEOUT', /did not end within 2s/],
      ['nothing', 'ACME_CHALLENGE_FAILED', /could not confirm moody\.example\.com: /],
    ] as const) {
      await writeFile(mood, how)
      await running.sidecar.rotate(['web'], 'test', never)
      const { state } = running.loop('web').report ?? assert.fail()
      assert.equal(state.failure?.code, code)
      assert.match(state.failure.message, told)
      assert.ok(state.nextAt > state.failure.at)
      assert.deepEqual([state.serving?.serial, served()], [serial, before])
    }
    await writeFile(mood, 'works')
    await running.sidecar.rotate(['web'], 'test', never)
    const { state } = running.loop('web').report ?? assert.fail()
    assert.deepEqual([state.failures, state.serving?.serial === serial], [0, false])
  })

  test('are given up at once when certferry stops', async () => {
    const stop = new AbortController()
    const exec = { present: ['sleep', '60'], timeout: '30s' }
    const fetching = source({ commonName: 'h.example.com', challenge: { kind: 'dns-01', exec } }).fetch(stop.signal)
    setTimeout(() => stop.abort(new Error('stopped')), 300)
    await assert.rejects(fetching, /stopped/)
  })

  test('whose order becomes invalid after the challenge are refused with what the CA says', async () => {
    const ca = await createTestCa()
    const { certificatePem, keyPem } = await ca.issue({ altNames: ['127.0.0.1'], withIntermediate: false })
    const caFile = join(pebble.folder, 'proxy-ca.pem')
    await writeFile(caFile, ca.rootPem)
    await using proxy = await startFaultProxy(undefined, {
      target: new URL(pebble.directory).origin,
      targetCa: await readFile(pebble.caFile, 'utf8'),
      tls: { cert: certificatePem, key: keyPem },
    })
    // So that every address it names is that of the proxy.
    proxy.headers = { host: new URL(proxy.address).host }
    const error = { type: 'urn:ietf:params:acme:error:caa', detail: 'CAA of j.example.com forbids it' }
    const isFinalized = () => proxy.requests.some(({ url }) => url.includes('/finalize-order/'))
    proxy.onRequest = ({ url }) =>
      isFinalized() && /\/(?:my-order|finalize-order)\//.test(url)
        ? { kind: 'edit', edit: (body) => JSON.stringify({ ...JSON.parse(body), status: 'invalid', error }) }
        : undefined
    const directory = `${proxy.address}/dir`
    const made = source({ commonName: 'j.example.com', directory, caFile })
    const refused = await failure(made.fetch(forever))
    assert.equal(refused.code, 'ACME_ORDER_INVALID')
    assert.equal(refused.message, 'the order for j.example.com became invalid: CAA of j.example.com forbids it (caa)')
  })

  test('need an account that agrees to the terms, and the error says so', async () => {
    const account = { keyFile: join(pebble.folder, 'other.pem') }
    const error = await source({ commonName: 'i.example.com', account })
      .fetch(forever)
      .catch((thrown: unknown) => thrown)
    assert.ok(error instanceof SidecarError)
    assert.equal(error.code, 'ACME_ACCOUNT')
  })

  test('of a doctor are none: it only looks whether the account is known', async () => {
    const [finding] = await source({ commonName: 'a.example.com' }).examine(forever)
    assert.equal(finding?.ok, true)
    const keyFile = join(pebble.folder, 'unmade.pem')
    const [before] = await source({ commonName: 'a.example.com', account: { keyFile } }).examine(forever)
    assert.match(before?.what ?? '', /answers; the account is made with the first order$/)
    assert.equal(existsSync(keyFile), false)
  })
})
