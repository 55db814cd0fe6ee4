import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { Agent, get as httpGet } from 'node:http'
import { get as httpsGet } from 'node:https'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { SMUGGLING } from '../../observe/http-corpus.ts'
import { createTestCa } from '../../support/ca.ts'
import type { Certferry, StartOptions } from '../../support/certferry.ts'
import { bundleOnce } from '../../support/fault-rig.ts'
import { createProject } from '../../support/project.ts'
import { until } from '../../support/until.ts'

const { program, remove } = await bundleOnce()
after(remove)
const { certificatePem, keyPem } = await (await createTestCa()).issue({
  commonName: 'localhost',
  altNames: ['127.0.0.1'],
})

type Scheme = 'http' | 'https'

/** A real `certferry run` with a certificate in service, and ways to its doors. */
interface Front extends AsyncDisposable {
  readonly certferry: Certferry
  readonly scheme: Scheme
  readonly port: number
  readonly socket: string
  /** Connects over TCP only: without TLS also where the server speaks it. */
  knock(): Socket
  dial(door?: Door): Socket
}

/** The port that anybody may reach, or the control socket as its owner. */
type Door = 'port' | 'socket'

async function startFront(scheme: Scheme = 'http', env: StartOptions['env'] = {}): Promise<Front> {
  await using stack = new AsyncDisposableStack()
  const project = stack.use(await createProject({ program }))
  const { folder, socket } = project
  const tls = { certFile: join(folder, 'admin.crt'), keyFile: join(folder, 'admin.key') }
  writeFileSync(tls.certFile, certificatePem)
  writeFileSync(tls.keyFile, keyPem, { mode: 0o600 })
  project.configure({
    admin: { listen: '127.0.0.1:0', socket, ...(scheme === 'https' && { tls }) },
    certificates: [project.certificate('web')],
  })
  const certferry = stack.use(project.start({ env }))
  await certferry.certificate('web', 'is delivered', ({ phase }) => phase === 'ACTIVE')
  const address = certferry.log('admin.listening').find((line) => String(line.address).startsWith(scheme))?.address
  const port = Number(new URL(String(address)).port)
  const knock = () => connect(port, '127.0.0.1')
  const shake = () => connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false })
  const owned = stack.move()
  return {
    certferry,
    scheme,
    port,
    socket,
    knock,
    dial: (door = 'port') => (door === 'socket' ? connect(socket) : scheme === 'http' ? knock() : shake()),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  }
}

/** Sends this and no more; resolves with all that comes back until the server closes. */
function exchange(socket: Socket, bytes: string | Buffer): Promise<string> {
  return new Promise((resolve) => {
    let reply = ''
    socket.setEncoding('utf8').on('data', (text: string) => {
      reply += text
    })
    socket.on('error', () => {})
    socket.once('close', () => resolve(reply))
    socket.write(bytes)
  })
}

/** Asks for liveness over and over, each time on a connection of its own, as a kubelet does. */
function watchLiveness({ scheme, port }: Front) {
  const agent = new Agent({ keepAlive: false })
  const stop = new AbortController()
  const seen = { good: 0, bad: 0 }
  const ask = () =>
    new Promise<boolean>((resolve) => {
      const url = `${scheme}://127.0.0.1:${port}/livez`
      const options = { timeout: 3_000 }
      const request =
        scheme === 'http'
          ? httpGet(url, { ...options, agent })
          : httpsGet(url, { ...options, agent: false, rejectUnauthorized: false })
      request.on('response', (response) => {
        response.resume()
        resolve(response.statusCode === 200)
      })
      request.on('timeout', () => request.destroy())
      request.on('error', () => resolve(false))
    })
  const asking = (async () => {
    while (!stop.signal.aborted) {
      if (await ask()) seen.good += 1
      else seen.bad += 1
      await sleep(20)
    }
  })()
  return {
    seen,
    stop: async () => {
      stop.abort()
      await asking
      return seen
    },
  }
}

const descriptors = ({ certferry }: Front) => readdirSync(`/proc/${certferry.pid}/fd`).length
const residentKb = ({ certferry }: Front) =>
  Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${certferry.pid}/status`, 'utf8'))?.[1])

/** Nothing happened but answers. */
async function assertUntouched({ certferry }: Front, before: { readonly serial: string | null }) {
  const { serial, phase } = await certferry.certificate('web', 'is told', () => true)
  assert.deepEqual([serial, phase], [before.serial, 'ACTIVE'])
  assert.equal(certferry.log('certificate.issued').length, 1, 'nothing is issued')
  assert.equal(certferry.log('config.loaded').length, 0, 'no config is loaded')
  assert.equal(
    certferry.log('control.request').filter(({ allowed }) => allowed === true).length,
    0,
    'nothing is obeyed',
  )
  assert.equal(certferry.log('internal.error').length, 0)
  assert.equal(certferry.stderr(), '')
  assert.equal(certferry.log('sidecar.started').length, 1)
}

const serialIn = async ({ certferry }: Front) => certferry.certificate('web', 'is told', () => true)

/** Sends piece by piece, never the end. */
function drip(socket: Socket, head: string): Promise<unknown> {
  const timer = setInterval(() => socket.write('x'), 200)
  return exchange(socket, head).finally(() => clearInterval(timer))
}

describe('the admin endpoint under attack', { concurrency: 6 }, () => {
  for (const scheme of ['http', 'https'] as const) {
    test(`N1 120 clients that drip headers, bodies and handshakes over ${scheme} are cut off, and liveness is answered all the while`, async (t) => {
      await using front = await startFront(scheme)
      const before = { ...(await serialIn(front)), descriptors: descriptors(front) }
      const watch = watchLiveness(front)
      await until('liveness is watched', () => watch.seen.good > 0)
      const kinds: readonly (() => Promise<unknown>)[] = [
        () => drip(front.dial(), 'GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: '),
        () => drip(front.dial(), 'POST /rotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n'),
        // A handshake that never ends; over http, a method that never does.
        () => drip(front.knock(), scheme === 'https' ? '\x16\x03\x01\x02\x00\x01' : 'G'),
        () => exchange(front.knock(), ''),
      ]
      await Promise.all(Array.from({ length: 30 }, () => kinds).flatMap((all) => all.map((attack) => attack())))
      const { good, bad } = await watch.stop()
      t.diagnostic(`${good} answers about liveness, ${bad} missing`)
      assert.ok(good > bad * 20, `${bad} of ${good + bad} questions about liveness were not answered`)
      await until('every descriptor is given back', () => descriptors(front) <= before.descriptors + 2)
      await assertUntouched(front, before)
    })
  }

  test('N1 a client that never reads what it asked for is cut off', async () => {
    await using front = await startFront()
    const before = await serialIn(front)
    const deaf = front.dial()
    const closing = once(deaf, 'close')
    deaf.on('error', () => {})
    deaf.pause()
    deaf.write('GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n')
    await once(deaf, 'connect')
    assert.ok(isOpen(deaf))
    await until('its connection is closed', () => !isOpen(deaf))
    deaf.destroy()
    await closing
    await assertUntouched(front, before)
  })

  test('N1 a flood of 2,000 connections and 20,000 pipelined requests leaves memory and descriptors bounded', async (t) => {
    // With room to spare V8 does not look for garbage for a long time, and what is kept cannot be told from what waits to be freed.
    const env = { MALLOC_ARENA_MAX: '1', NODE_OPTIONS: '--max-semi-space-size=1 --max-old-space-size=36' }
    await using front = await startFront('http', env)
    const before = await serialIn(front)
    const ask = 'GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n'
    const once = ask.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')
    /** The most that was resident after any round: what is resident just after garbage was looked for compares with nothing. */
    const flood = async (rounds: number) => {
      let most = 0
      for (let round = 0; round < rounds; round += 1) {
        const clients = Array.from({ length: 250 }, () => exchange(front.dial(), once))
        const pipelines = Array.from({ length: 2 }, () => exchange(front.dial(), ask.repeat(1_250)))
        await Promise.all([...clients, ...pipelines])
        most = Math.max(most, residentKb(front))
      }
      return most
    }
    // The heap takes a while to find its size.
    const warm = await flood(4)
    const files = descriptors(front)
    const watch = watchLiveness(front)
    const hot = await flood(4)
    await until('liveness is answered again', () => watch.seen.good > 0)
    const { good, bad } = await watch.stop()
    t.diagnostic(`${good} answers about liveness, ${bad} missing; ${warm} KiB after half of it, ${hot} KiB after all`)
    assert.ok(good > bad, 'most questions about liveness are answered')
    assert.ok(hot < warm * 1.2, `memory grew from ${warm} to ${hot} KiB`)
    await until('every descriptor is given back', () => descriptors(front) <= files)
    await assertUntouched(front, before)
  })

  for (const [door, scheme] of [
    ['port', 'http'],
    ['port', 'https'],
    ['socket', 'http'],
  ] as const) {
    const where = door === 'socket' ? 'the control socket' : scheme
    test(`N2 ${SMUGGLING.length} malformed, oversized and smuggled requests over ${where} get one refusal each, and what they hide is not obeyed`, async (t) => {
      await using front = await startFront(scheme)
      const before = await serialIn(front)
      const watch = watchLiveness(front)
      const replies: string[] = []
      // Not more at the same time than are let in.
      for (let from = 0; from < SMUGGLING.length; from += 40) {
        const part = SMUGGLING.slice(from, from + 40)
        replies.push(...(await Promise.all(part.map(({ bytes }) => exchange(front.dial(door), bytes)))))
      }
      for (const [index, { claim }] of SMUGGLING.entries()) assertOneRefusal(replies[index] ?? '', claim)
      const [warm, files] = [residentKb(front), descriptors(front)]
      // Without those that are answered only once the time for a body is over.
      const quick = SMUGGLING.filter((_, index) => !replies[index]?.startsWith('HTTP/1.1 408'))
      for (let round = 0; round < 2; round += 1)
        await Promise.all(quick.map(({ bytes }) => exchange(front.dial(door), bytes)))
      const hot = residentKb(front)
      assert.ok(hot < warm * 1.5, `memory grew from ${warm} to ${hot} KiB`)
      await until('every descriptor is given back', () => descriptors(front) <= files + 2)
      const { good, bad } = await watch.stop()
      t.diagnostic(
        `${good} answers about liveness, ${bad} missing; ${warm} KiB after the first round, ${hot} KiB after two more`,
      )
      assert.ok(good > bad, 'most questions about liveness are answered')
      await assertUntouched(front, before)
    })
  }
})

/** Nothing at all, or one answer that refuses and says that the connection ends. */
function assertOneRefusal(reply: string, claim: string): void {
  const statuses = [...reply.matchAll(/HTTP\/\d\.\d (\d{3})/g)].map(([, status]) => Number(status))
  if (reply === '') return
  const [status = 0, ...others] = statuses
  assert.deepEqual(others, [], `${claim}: one answer`)
  assert.ok((status >= 400 && status < 500) || status === 501, `${claim}: ${status}`)
  assert.match(reply, /^Connection: close\r$/m, claim)
  assert.doesNotMatch(reply, /certferry_|"serial"/, `${claim}: nothing of what it hides is answered`)
}

describe('what may be asked over the port', { concurrency: 4 }, () => {
  test('N4 whoever asks to rotate over the port is refused, whatever the credential, host or origin; it is counted, and told once', async () => {
    await using front = await startFront()
    const { certferry, port } = front
    const before = await serialIn(front)
    const url = `http://127.0.0.1:${port}`
    const disguises: readonly Record<string, string>[] = [
      {},
      { authorization: 'Bearer root' },
      { authorization: `Basic ${Buffer.from('admin:admin').toString('base64')}` },
      { 'x-vault-token': 'root', 'x-vault-request': 'true' },
      { origin: 'https://evil.example' },
      { origin: 'null', referer: url },
      { 'x-forwarded-for': '127.0.0.1', 'x-real-ip': '127.0.0.1', forwarded: 'for=127.0.0.1' },
      { 'x-http-method-override': 'GET', 'x-original-url': '/livez', 'x-rewrite-url': '/livez' },
      { cookie: 'admin=1' },
    ]
    const body = '{"certificates":"all"}'
    for (const path of ['/rotate', '/reload-config'])
      for (const headers of disguises) {
        const response = await fetch(`${url}${path}`, { method: 'POST', headers, body })
        assert.equal(response.status, 403, JSON.stringify(headers))
        await response.body?.cancel()
      }
    for (let count = 0; count < 100; count += 1)
      assert.equal((await fetch(`${url}/rotate`, { method: 'POST', body })).status, 403, 'a replay')
    for (const method of ['GET', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD'])
      assert.equal((await fetch(`${url}/rotate`, { method })).status, 405, method)
    const denied = (command: string) =>
      certferry.metric(`certferry_control_request_total{command="${command}",result="denied"}`)
    assert.deepEqual(await Promise.all([denied('rotate'), denied('reload-config')]), [1, 1])
    assert.equal(certferry.log('control.request').length, 2, 'once for each command, not for each try')
    await assertUntouched(front, before)
  })

  test('N4 a page of another origin may neither read an answer nor ask beforehand', async () => {
    await using front = await startFront()
    const { port } = front
    const origin = 'https://evil.example'
    for (const path of ['/livez', '/readyz', '/metrics', '/status']) {
      const read = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { origin } })
      const preflight = await fetch(`http://127.0.0.1:${port}${path}`, {
        method: 'OPTIONS',
        headers: { origin, 'access-control-request-method': 'GET' },
      })
      assert.deepEqual([read.status, preflight.status], [200, 405], path)
      for (const { headers } of [read, preflight]) {
        assert.deepEqual(
          [...headers.keys()].filter((name) => name.startsWith('access-control')),
          [],
        )
        assert.equal(headers.get('x-content-type-options'), 'nosniff')
        assert.equal(headers.get('cache-control'), 'no-store')
      }
    }
    const rebound = `GET /status HTTP/1.1\r\nHost: evil.example:${port}\r\n\r\n`
    assert.match(await exchange(front.dial(), rebound), /^HTTP\/1\.1 421 /, 'its own name, made to point here')
  })

  test('N2 no path leads to a file, or anywhere but to what is listed', async () => {
    await using front = await startFront()
    const before = await serialIn(front)
    const paths = [
      '/../../../../etc/passwd',
      '/%2e%2e/%2e%2e/etc/passwd',
      '/..%2f..%2fetc%2fpasswd',
      '/..\\..\\etc\\passwd',
      '//livez',
      '/livez/',
      '/livez/../status',
      '/./livez',
      '/LIVEZ',
      '/%6civez',
      '/livez%00',
      '/livez;x=1',
      '/livez#x',
      '/status.json',
      '/__proto__',
      '/constructor',
      '/toString',
      '/',
      '*',
      'livez',
      '/rotate/../livez',
      `/${'a/'.repeat(5_000)}`,
      '/metrics%20HTTP/1.1',
    ]
    for (const path of paths) {
      const reply = await exchange(front.dial(), `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`)
      assert.match(reply, /^HTTP\/1\.1 40[04] /, path)
      assert.doesNotMatch(reply, /root:|PRIVATE KEY/, path)
    }
    for (const query of [
      '?',
      '?verbose',
      `?verbose=${'x'.repeat(8_000)}`,
      '?__proto__=1&verbose',
      '?a=%00&%',
      '?verbose?x',
    ]) {
      const { status } = await fetch(`http://127.0.0.1:${front.port}/livez${query}`)
      assert.equal(status, 200, query)
    }
    await assertUntouched(front, before)
  })
})

/** Whether the server keeps its end of this connection, proc_net_tcp(5): a client that does not read would not learn of it. */
function isOpen({ localPort = 0, remotePort = 0 }: Socket): boolean {
  const at = (port: number) => `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return readFileSync('/proc/net/tcp', 'utf8').includes(`${at(remotePort)} ${at(localPort)} 01 `)
}
