import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, renameSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { SidecarError } from '../../src/errors.ts'
import type { RotateRequest } from '../../src/observe/control.ts'
import { createControlClient } from '../../src/observe/control-client.ts'
import { exchange, onSocket, startAdmin, statusOf } from './admin-kit.ts'
import { active, sidecar } from './samples.ts'

test('the socket is 0600 in a folder of 0700, whatever the umask', async () => {
  const before = process.umask(0)
  await using server = await startAdmin((folder) => ({ socket: join(folder, 'made', 'control.sock') }))
  process.umask(before)
  assert.equal(statSync(server.socket).mode & 0o777, 0o600)
  assert.equal(statSync(join(server.folder, 'made')).mode & 0o777, 0o700)
  assert.deepEqual(readdirSync(join(server.folder, 'made')), ['control.sock'])
})

test('binding leaves the umask as it was', async () => {
  const before = process.umask()
  await using _server = await startAdmin(onSocket)
  assert.equal(process.umask(), before)
})

test('status comes over the socket as it was taken', async () => {
  await using server = await startAdmin(onSocket)
  assert.deepEqual(await createControlClient(server.socket).status(), sidecar([active('web')]))
})

test('rotate hands over names, reason and wait, and brings the results', async () => {
  const requests: RotateRequest[] = []
  const results = [
    { certificate: 'web', ok: true, serial: '01', isNew: true, error: null },
    {
      certificate: 'api',
      ok: false,
      serial: '02',
      isNew: false,
      error: { code: 'TARGET_DOWN', message: 'refused', hint: 'look' } as const,
    },
  ]
  await using server = await startAdmin(onSocket, {
    control: {
      rotate: async (request) => {
        requests.push(request)
        return { results }
      },
    },
  })
  const client = createControlClient(server.socket)
  const reply = await client.rotate({ certificates: ['web', 'api'], reason: 'key leaked', wait: true })
  await client.rotate({ certificates: 'all' })
  assert.deepEqual(reply, { results })
  assert.deepEqual(requests, [
    { certificates: ['web', 'api'], reason: 'key leaked', wait: true },
    { certificates: 'all', reason: '', wait: false },
  ])
  assert.deepEqual(
    server.heard.filter(({ name }) => name === 'control.request').map(({ event }) => event),
    [
      { command: 'rotate', certificates: ['web', 'api'], reason: 'key leaked', allowed: true },
      { command: 'rotate --all', certificates: [], reason: '', allowed: true },
    ],
  )
})

test('an error of the sidecar arrives with its code, message and hint', async () => {
  await using server = await startAdmin(onSocket, {
    control: {
      rotate: () => Promise.reject(new SidecarError('USAGE', 'no certificate named wbe; there are: web')),
      reloadConfig: () =>
        Promise.reject(new SidecarError('CONFIG_INVALID', 'certferry.yaml:3:5 vault.address: Invalid URL')),
    },
  })
  const client = createControlClient(server.socket)
  await assert.rejects(client.rotate({ certificates: ['wbe'] }), {
    code: 'USAGE',
    message: 'no certificate named wbe; there are: web',
  })
  await assert.rejects(client.reloadConfig(), { code: 'CONFIG_INVALID', message: /vault\.address/ })
})

test('reload-config tells what changed', async () => {
  const difference = { added: ['mail'], changed: [], removed: ['old'] }
  await using server = await startAdmin(onSocket, { control: { reloadConfig: async () => difference } })
  assert.deepEqual(await createControlClient(server.socket).reloadConfig(), difference)
})

const badBodies: readonly [claim: string, body: string, status: string][] = [
  ['no body', '', '400'],
  ['no JSON', '{certificates', '400'],
  ['an unknown key', '{"certificates":"all","force":true}', '400'],
  ['no certificates', '{"certificates":[]}', '400'],
  ['more than 16 KiB', `{"certificates":["${'x'.repeat(16 * 1024)}"]}`, '413'],
]
for (const [claim, body, status] of badBodies) {
  test(`rotate with ${claim} is refused and reaches nobody`, async () => {
    await using server = await startAdmin(onSocket, { control: { rotate: () => assert.fail('reached') } })
    const request = `POST /rotate HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    assert.equal(statusOf(await exchange(server.socket, request)), status)
    assert.deepEqual(
      server.heard.map(({ name }) => name),
      ['admin.listening'],
    )
  })
}

test('a caller that gives up ends its waiting at the sidecar as well', async () => {
  const asked = Promise.withResolvers<AbortSignal>()
  await using server = await startAdmin(onSocket, {
    control: {
      rotate: (_request, signal) => {
        asked.resolve(signal)
        return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      },
    },
  })
  const caller = new AbortController()
  const reason = new Error('ctrl-c')
  const outcome = assert.rejects(
    createControlClient(server.socket).rotate({ certificates: 'all', wait: true }, caller.signal),
    reason,
  )
  const signal = await asked.promise
  caller.abort(reason)
  await outcome
  if (!signal.aborted) await once(signal, 'abort')
})

test('a caller that waits is told when the sidecar stops', async () => {
  const asked = Promise.withResolvers<void>()
  const server = await startAdmin(onSocket, {
    control: {
      rotate: (_request, signal) => {
        asked.resolve()
        return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      },
    },
  })
  const outcome = assert.rejects(createControlClient(server.socket).rotate({ certificates: 'all', wait: true }), {
    code: 'SIDECAR_UNREACHABLE',
    message: 'certferry stops',
  })
  await asked.promise
  await server[Symbol.asyncDispose]()
  await outcome
})

test('a socket left by a killed process is replaced, and so are its half-made ones', async () => {
  await using folder = await temporary()
  const socket = join(folder.path, 'control.sock')
  await deadSocket(socket)
  await deadSocket(join(folder.path, '.control.sock.0123abcd'))
  writeFileSync(join(folder.path, '.control.sock.notes'), '')
  await using _server = await startAdmin(() => ({ socket }))
  assert.deepEqual(await createControlClient(socket).status(), sidecar([active('web')]))
  assert.deepEqual(readdirSync(folder.path).sort(), ['.control.sock.notes', 'control.sock'])
})

test('a socket that a living process serves is left alone', async () => {
  await using server = await startAdmin(onSocket)
  await assert.rejects(
    startAdmin(() => ({ socket: server.socket })),
    { code: 'ADDRESS_IN_USE', message: new RegExp(server.socket) },
  )
  assert.deepEqual(await createControlClient(server.socket).status(), sidecar([active('web')]))
})

test('what is no socket is left alone', async () => {
  await using folder = await temporary()
  const [file, link, directory] = ['file', 'link', 'directory'].map((name) => join(folder.path, name))
  assert.ok(file && link && directory)
  writeFileSync(file, 'precious')
  symlinkSync(file, link)
  mkdirSync(directory)
  for (const socket of [file, link, directory]) {
    await assert.rejects(
      startAdmin(() => ({ socket })),
      { code: 'FOREIGN_OBJECT', message: new RegExp(socket) },
    )
    assert.ok(existsSync(socket))
  }
})

test('a path too long for a socket is a config error', async () => {
  await using folder = await temporary()
  const socket = join(folder.path, 'x'.repeat(100))
  await assert.rejects(
    startAdmin(() => ({ socket })),
    { code: 'CONFIG_INVALID', message: /longer than the \d+ bytes/ },
  )
})

test('closing leaves the socket of a successor in place', async () => {
  await using folder = await temporary()
  const socket = join(folder.path, 'control.sock')
  const first = await startAdmin(() => ({ socket }))
  renameSync(socket, join(folder.path, 'moved'))
  await using _second = await startAdmin(() => ({ socket }))
  await first[Symbol.asyncDispose]()
  assert.deepEqual(await createControlClient(socket).status(), sidecar([active('web')]))
})

test('a client names the socket that nobody serves, and why', async () => {
  await using folder = await temporary()
  const socket = join(folder.path, 'control.sock')
  const unreachable = (why: RegExp) =>
    assert.rejects(createControlClient(socket).status(), (error) => {
      assert.ok(error instanceof SidecarError)
      assert.equal(error.code, 'SIDECAR_UNREACHABLE')
      assert.ok(error.message.includes(socket), error.message)
      assert.match(error.message, why)
      return true
    })
  await unreachable(/there is no such socket/)
  await deadSocket(socket)
  await unreachable(/has ended/)
})

test('a client is not fooled by something else that answers', async () => {
  await using folder = await temporary()
  const socket = join(folder.path, 'other.sock')
  const other = createServer((connection) => connection.resume().end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'))
  other.listen(socket)
  await once(other, 'listening')
  await assert.rejects(createControlClient(socket).status(), {
    code: 'SIDECAR_UNREACHABLE',
    message: /is not certferry/,
  })
  other.close()
  await once(other, 'close')
})

/** A socket file whose process is gone: bound at another name, which alone is removed when the server closes. */
async function deadSocket(path: string) {
  const server = createServer()
  server.listen(`${path}.new`)
  await once(server, 'listening')
  renameSync(`${path}.new`, path)
  server.close()
  await once(server, 'close')
}

async function temporary() {
  const path = await mkdtemp(join(tmpdir(), 'certferry-control-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}
