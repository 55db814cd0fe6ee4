import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { reloaders } from '../../src/reloaders/index.ts'
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
    failure('RELOAD_FAILED', /is no master of HAProxy/),
  )
})

test('an answer that does not come is a timeout, not a refusal', async () => {
  await using haproxy = await master({})
  await assert.rejects(
    byMaster(haproxy.socket, { timeout: '100ms' }).reload(context, never),
    failure('RELOAD_TIMEOUT', /reload by its master did not end within 100ms/),
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
