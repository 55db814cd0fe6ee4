import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'

const FIXTURE = join(import.meta.dirname, '../fixtures/admin-alone.ts')

test('P8 without file descriptors left it refuses connections, keeps its timers, and recovers', async () => {
  // Enough to start; the kernel has room for the connections, the process has not.
  const child = spawn('sh', ['-c', 'ulimit -n 40 && exec "$0" "$1"', process.execPath, FIXTURE], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const next = async () => String((await lines.next()).value)
  const url = new URL(await next())
  const clients: Socket[] = []
  const closings: Promise<unknown>[] = []
  for (let count = 0; count < 60; count += 1) {
    const client = connect(Number(url.port), url.hostname)
    client.on('error', () => {})
    closings.push(new Promise((resolve) => client.once('close', resolve)))
    clients.push(client)
  }
  await Promise.race(closings)
  for (let count = 0; count < 3; count += 1) assert.equal(await next(), 'tick')
  for (const client of clients) client.destroy()
  await Promise.all(closings)
  let answer = ''
  while (answer !== 'ok\n') {
    answer = await fetch(`${url.origin}/livez`).then(
      (response) => response.text(),
      () => '',
    )
  }
  child.stdin.end()
  const [code] = await once(child, 'exit')
  assert.equal(code, 0)
})
