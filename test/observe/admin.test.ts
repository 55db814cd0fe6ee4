import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { closed, dial, drip, exchange, onPort, onSocket, startAdmin, statusOf } from './admin-kit.ts'
import { active, NOW, pending, sidecar } from './samples.ts'

test('a good sidecar is live, ready, started and healthy', async () => {
  await using server = await startAdmin(onPort)
  for (const path of ['/livez', '/readyz', '/startupz', '/healthz']) {
    const response = await fetch(server.url + path)
    assert.deepEqual([response.status, await response.text()], [200, 'ok\n'], path)
    assert.equal(response.headers.get('cache-control'), 'no-store')
    const verbose = await fetch(`${server.url}${path}?verbose`)
    const detail: unknown = await verbose.json()
    assert.ok(detail && typeof detail === 'object' && 'ok' in detail && detail.ok === true, path)
  }
})

test('ready means a valid set on disk: DEGRADED and unverified are, PENDING and EXPIRED are not', async () => {
  let status = sidecar([])
  await using server = await startAdmin(onPort, { control: { snapshot: () => status } })
  const ready = async () => {
    const [response, startup] = await Promise.all(['/readyz', '/startupz'].map((path) => fetch(server.url + path)))
    const line = await response?.text()
    assert.equal(await startup?.text(), line)
    return `${response?.status} ${line}`
  }
  const table = [
    [[], '200 ok\n'],
    [[active('web', { verified: 'pending', served: null })], '200 ok\n'],
    [[active('web', { phase: 'DEGRADED', reason: 'target_down' })], '200 ok\n'],
    [[active('web'), pending('mail')], '503 not ready: mail PENDING (vault_unreachable)\n'],
    [
      [active('old', { phase: 'EXPIRED' }), pending('new', { reason: null })],
      '503 not ready: old EXPIRED, new PENDING\n',
    ],
    [
      Array.from({ length: 8 }, (_, n) => pending(`c${n}`, { reason: null })),
      '503 not ready: c0 PENDING, c1 PENDING, c2 PENDING, c3 PENDING, c4 PENDING and 3 more\n',
    ],
  ] as const
  for (const [certificates, expected] of table) {
    status = sidecar(certificates)
    assert.equal(await ready(), expected)
  }
})

test('verbose readiness gives each certificate its reason', async () => {
  await using server = await startAdmin(onPort, {
    control: { snapshot: () => sidecar([active('web'), pending('mail')]) },
  })
  const response = await fetch(`${server.url}/readyz?verbose`)
  assert.equal(response.status, 503)
  assert.deepEqual(await response.json(), {
    ok: false,
    certificates: [
      { name: 'web', ok: true, phase: 'ACTIVE', reason: null, message: null, verified: 'verified' },
      {
        name: 'mail',
        ok: false,
        phase: 'PENDING',
        reason: 'vault_unreachable',
        message: 'cannot connect to https://vault.example.com:8200 (ECONNREFUSED)',
        verified: 'pending',
      },
    ],
    secrets: [],
    trust: [],
  })
})

test('P7 a stuck loop is not live but may be ready; trouble with Vault leaves it live', async () => {
  let stuck: string | undefined = 'the scheduler has not ticked for 90 s'
  await using server = await startAdmin(onPort, {
    control: {
      stuck: () => stuck,
      snapshot: () => sidecar([active('web', { phase: 'DEGRADED', reason: 'vault_sealed' })]),
    },
  })
  const ask = async (path: string) => {
    const response = await fetch(server.url + path)
    return `${response.status} ${(await response.text()).trim()}`
  }
  assert.equal(await ask('/livez'), '503 not live: the scheduler has not ticked for 90 s')
  assert.equal(await ask('/readyz'), '200 ok')
  assert.equal(
    await ask('/healthz'),
    '503 not live: the scheduler has not ticked for 90 s; degraded: web DEGRADED (vault_sealed)',
  )
  stuck = undefined
  assert.equal(await ask('/livez'), '200 ok')
  assert.equal(await ask('/healthz'), '200 ok; degraded: web DEGRADED (vault_sealed)')
})

test('metrics and status are there, HEAD gives their headers only', async () => {
  await using server = await startAdmin(onPort)
  const metrics = await fetch(`${server.url}/metrics`)
  assert.equal(metrics.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
  assert.equal(await metrics.text(), 'up 1\n')
  const status: unknown = await (await fetch(`${server.url}/status`)).json()
  assert.match(JSON.stringify(status), /"notAfter":"2026-01-04T03:04:05\.000Z"/)
  const head = await fetch(`${server.url}/metrics`, { method: 'HEAD' })
  assert.deepEqual([head.status, head.headers.get('content-length'), await head.text()], [200, '5', ''])
})

const refusals: readonly [claim: string, bytes: string, status: string][] = [
  ['20 KiB of headers', `GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_480)}\r\n\r\n`, '431'],
  ['a request without Host', 'GET /livez HTTP/1.1\r\n\r\n', '400'],
  ['what is not HTTP', '\u0016\u0003\u0001 hello\r\n\r\n', '400'],
  ['an unknown method', 'BREW /livez HTTP/1.1\r\nHost: localhost\r\n\r\n', '400'],
  ['GET with a body', 'GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi', '400'],
  [
    'GET with a chunked body',
    'GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n',
    '400',
  ],
  [
    'a body announced twice',
    'POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    '400',
  ],
  [
    'a body over 1 KiB',
    `POST /rotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1025\r\n\r\n${'x'.repeat(1025)}`,
    '413',
  ],
  [
    'a chunked body over 1 KiB',
    `POST /rotate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n${'x'.repeat(2048)}\r\n`,
    '413',
  ],
  ['an unknown path', 'GET /__proto__ HTTP/1.1\r\nHost: localhost\r\n\r\n', '404'],
  ['a path from a proxy request', 'GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n', '404'],
  ['POST to a path that is read', 'POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n', '405'],
  ['DELETE', 'DELETE /status HTTP/1.1\r\nHost: localhost\r\n\r\n', '405'],
]
for (const [claim, bytes, status] of refusals) {
  test(`N2 answers ${claim} with ${status} and closes`, async () => {
    await using server = await startAdmin(onPort)
    assert.equal(statusOf(await exchange(server.port, bytes)), status)
    assert.equal((await fetch(`${server.url}/livez`)).status, 200)
  })
}

test('N2 405 says what is allowed', async () => {
  await using server = await startAdmin(onPort)
  const response = await fetch(`${server.url}/livez`, { method: 'PUT' })
  assert.deepEqual([response.status, response.headers.get('allow')], [405, 'GET, HEAD'])
})

test('N4 on loopback it answers to loopback names only, so that no web page reads it under a name of its own', async () => {
  await using server = await startAdmin(onPort)
  const ask = (host: string) =>
    exchange(server.port, `GET /status HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
  for (const host of ['localhost', `127.0.0.1:${server.port}`, 'LOCALHOST:1', '[::1]:9443', '127.0.1.1'])
    assert.equal(statusOf(await ask(host)), '200', host)
  for (const host of [
    'evil.example',
    `localhost.evil.example:${server.port}`,
    '127.0.0.1.nip.io',
    '10.0.0.1',
    '',
    'localhost:x',
  ])
    assert.equal(statusOf(await ask(host)), '421', host)
})

test('N4 nothing can be changed over TCP: tries are refused, told once, and reach nobody', async () => {
  let reached = 0
  const control = {
    rotate: async () => {
      reached += 1
      return { results: [] }
    },
  }
  await using server = await startAdmin(onPort, { control })
  const body = JSON.stringify({ certificates: 'all' })
  for (let count = 0; count < 25; count += 1) {
    const response = await fetch(`${server.url}/rotate`, { method: 'POST', body })
    assert.equal(response.status, 403)
    await response.body?.cancel()
  }
  assert.equal(reached, 0)
  const denials = server.heard.filter(({ name }) => name === 'control.request')
  assert.deepEqual(denials, [
    { name: 'control.request', event: { command: 'rotate', certificates: [], reason: '', allowed: false } },
  ])
})

test('N1 a client that drips its headers, or sends nothing, is cut off, and others are served meanwhile', async () => {
  await using server = await startAdmin(onPort, { limits: { headersMs: 30, requestMs: 30 } })
  const dripping = drip(server.port, `GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ${'x'.repeat(10_000)}`)
  const silent = exchange(server.port, '')
  assert.equal((await fetch(`${server.url}/livez`)).status, 200)
  assert.equal(statusOf(await dripping), '408')
  assert.match(await silent, /^(HTTP\/1\.1 408 |$)/)
})

test('N1 a client that drips its body is cut off', async () => {
  await using server = await startAdmin(onSocket, { limits: { headersMs: 30, requestMs: 30 } })
  const reply = await exchange(server.socket, 'POST /rotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{')
  assert.equal(statusOf(reply), '408')
})

test('N1 one connection more than allowed takes the place of the one that idles longest', async () => {
  const asked = Promise.withResolvers<void>()
  const answers = Promise.withResolvers<{ results: [] }>()
  const rotate = () => {
    asked.resolve()
    return answers.promise
  }
  await using server = await startAdmin(onSocket, { limits: { connections: 2 }, control: { rotate } })
  const body = '{"certificates":"all","wait":true}'
  const waiting = dial(server.socket)
  waiting.write(`POST /rotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
  await asked.promise
  const idle = dial(server.socket)
  await once(idle, 'connect')
  const closing = closed(idle)
  assert.equal(
    statusOf(await exchange(server.socket, 'GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')),
    '200',
  )
  await closing
  answers.resolve({ results: [] })
  assert.equal(statusOf(String(await once(waiting, 'data'))), '200')
  waiting.destroy()
})

test('closing ends idle, silent and stuck connections promptly, and removes the socket', async () => {
  const listenBoth = (folder: string) => ({ ...onPort(), ...onSocket(folder) })
  const asked = Promise.withResolvers<void>()
  const server = await startAdmin(listenBoth, {
    limits: { drainMs: 50 },
    control: {
      rotate: () => {
        asked.resolve()
        return new Promise(() => {})
      },
    },
  })
  const idle = dial(server.port)
  idle.write('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await once(idle, 'data')
  const silent = dial(server.port)
  await once(silent, 'connect')
  const body = '{"certificates":"all","wait":true}'
  const stuck = exchange(
    server.socket,
    `POST /rotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  )
  await asked.promise
  const ends = Promise.all([closed(idle), closed(silent), stuck])
  await server[Symbol.asyncDispose]()
  await ends
  assert.equal(existsSync(server.socket), false)
})

test('a defect in an answer is a 500 and is told, without its insides', async () => {
  await using server = await startAdmin(onPort, {
    metrics: { contentType: 'x', text: () => Promise.reject(new TypeError('no such thing')) },
  })
  const response = await fetch(`${server.url}/metrics`)
  assert.equal(response.status, 500)
  assert.doesNotMatch(await response.text(), /at .*\.ts/)
  assert.ok(server.heard.some(({ name }) => name === 'internal.error'))
  assert.equal((await fetch(`${server.url}/livez`)).status, 200)
})

test('N3 a port in use is told clearly, and leaves no control socket behind', async () => {
  await using first = await startAdmin(onPort)
  const socket = join(tmpdir(), `certferry-${process.pid}-${NOW}.sock`)
  await assert.rejects(
    startAdmin(() => ({ listen: `127.0.0.1:${first.port}`, socket })),
    { code: 'ADDRESS_IN_USE', message: `cannot listen on 127.0.0.1:${first.port}: another process does already` },
  )
  assert.equal(existsSync(socket), false)
})

test('an address of another machine, or none, is a config error', async () => {
  for (const listen of ['192.0.2.1:9443', 'nonsense', '127.0.0.1:70000']) {
    await assert.rejects(
      startAdmin(() => ({ listen })),
      { code: 'CONFIG_INVALID', message: new RegExp(listen) },
    )
  }
})

test('listens on IPv6 as well', { skip: !hasIpv6() }, async () => {
  await using server = await startAdmin(() => ({ listen: '[::1]:0' }))
  assert.match(server.url, /^http:\/\/\[::1\]:\d+$/)
  assert.equal((await fetch(`${server.url}/livez`)).status, 200)
})

function hasIpv6(): boolean {
  return Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === '::1'))
}
