import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { reloaders } from '../../src/reloaders/index.ts'
import { createTestCa } from '../support/ca.ts'
import { context, failure, make, never } from './support.ts'

const PROCESSES =
  '#<PID> <type> <reloads> <uptime> <version>\n7               master          2 [failed: 0]   0d00h00m04s     3.2.0\n'

/** A master as it answers since 2.7, which the HAProxy of the integration tests is too old for; over TCP. */
async function master(answers: Readonly<Record<string, string | undefined>>) {
  const asked: string[] = []
  const sockets: Socket[] = []
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.once('data', (data) => {
      asked.push(`${data}`)
      const answer = answers[`${data}`.trim()]
      // Undefined: it never answers.
      if (answer !== undefined) socket.end(answer)
    })
    socket.on('error', () => socket.destroy())
    sockets.push(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    asked,
    socket: `127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

const byMaster = (socket: string, more: object = {}) => make({ kind: 'haproxy', via: 'master', socket, ...more })

test('a master that answers Success=1 has reloaded', async () => {
  await using haproxy = await master({
    'show proc': PROCESSES,
    reload: 'Success=1\n--\n[NOTICE] New worker (9) forked\n',
  })
  await byMaster(haproxy.socket).reload(context, never)
  assert.deepEqual(haproxy.asked, ['show proc\n', 'reload\n'])
})

test('Success=0 is a refused reload, told with what HAProxy complains of', async () => {
  await using haproxy = await master({
    'show proc': PROCESSES,
    reload: "Success=0\n--\n[ALERT] unknown keyword 'bogus'\n",
  })
  await assert.rejects(
    byMaster(haproxy.socket).reload(context, never),
    failure('RELOAD_FAILED', /did not load its configuration: Success=0 -- \[ALERT\] unknown keyword 'bogus'/),
  )
})

test('something else than a master is said to be none', async () => {
  await using haproxy = await master({ 'show proc': 'Unknown command\n' })
  await assert.rejects(
    byMaster(haproxy.socket).reload(context, never),
    failure('RELOAD_TARGET_MISSING', /is no master of HAProxy/),
  )
})

test('an answer that does not come is a timeout, not a refusal', async () => {
  await using haproxy = await master({})
  await assert.rejects(
    byMaster(haproxy.socket, { timeout: '100ms' }).reload(context, never),
    failure('RELOAD_TIMEOUT', /reload by its master did not end within 100ms/),
  )
})

/** A process that answers by the first word of a command, as `by` says. */
async function runtime(by: Readonly<Record<string, string | ((socket: Socket) => void)>>) {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy())
    socket.once('data', (data) => {
      const answer = by[`${data}`.split(' ', 1)[0] ?? ''] ?? '\n'
      if (typeof answer === 'string') socket.end(answer)
      else answer(socket)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    socket: `127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
    [Symbol.asyncDispose]: async () => void server.close(),
  }
}

const folder = mkdtempSync(join(tmpdir(), 'certferry-haproxy-'))
after(() => rmSync(folder, { recursive: true }))
const file = join(folder, 'tls.pem')
const { certificatePem, keyPem, bundle } = await (await createTestCa()).issue()
writeFileSync(file, certificatePem + keyPem)
const sha1 = bundle.leaf.fingerprint.replaceAll(':', '')
const byRuntime = (socket: string) => make({ kind: 'haproxy', socket, file, timeout: '5s' })

test('an answer that was cut off in the middle of a commit is no refusal: what the process has tells', async () => {
  const answers = { set: 'Transaction created for certificate x!\n', commit: 'Committing /tls.pem' }
  await using good = await runtime({ ...answers, show: `SHA1 FingerPrint: ${sha1}\n` })
  await byRuntime(good.socket).reload(context, never)
  await using other = await runtime({ ...answers, show: 'SHA1 FingerPrint: 00AA\n' })
  await assert.rejects(
    byRuntime(other.socket).reload(context, never),
    failure('RELOAD_FAILED', /has the .* SHA-1 00AA/),
  )
  await using refusing = await runtime({ ...answers, commit: 'Committing /tls.pem\nUnable to load!\n' })
  await assert.rejects(byRuntime(refusing.socket).reload(context, never), failure('RELOAD_FAILED', /does not take/))
})

test('what answers without end is given up before it fills the memory', async () => {
  const endless = (socket: Socket) => {
    const piece = Buffer.alloc(256 * 1024, 'A')
    const write = () => {
      while (!socket.destroyed && socket.write(piece));
      socket.once('drain', write)
    }
    write()
  }
  await using talker = await runtime({ abort: endless })
  await assert.rejects(
    byRuntime(talker.socket).reload(context, never),
    failure('RELOAD_TARGET_MISSING', /is no HAProxy: it does not end/),
  )
})

test('options that do not go together, or would be read as several commands, are refused', () => {
  const says = (options: object, message: RegExp) => {
    const result = reloaders.schema.safeParse({ kind: 'haproxy', socket: '/run/haproxy.sock', ...options })
    assert.match(result.error?.issues.map((issue) => issue.message).join() ?? 'valid', message)
  }
  says({}, /needs file for via: runtime/)
  says({ via: 'master', file: '/tls/tls.pem' }, /takes none for via: master/)
  says({ file: '/tls/a;shutdown' }, /must be a path without spaces/)
  says({ file: '/tls/a b' }, /must be a path without spaces/)
  says({ file: '/tls/tls.pem', socket: 'haproxy.sock' }, /must be an absolute path, or host:port/)
  says({ file: '/tls/tls.pem', name: '/etc/haproxy/tls.pem' }, /^valid$/)
})
