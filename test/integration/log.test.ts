import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'

test('a process whose log is read loses no line', async () => {
  const child = logMuch('pipe', 20)
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), exitOf(child)])
  assert.deepEqual({ code, stderr, lines: stdout.split('\n').length - 1 }, { code: 0, stderr: 'dropped 0', lines: 100 })
})

test('P8 a process whose log nobody reads goes on, drops lines and exits', async () => {
  // Nothing takes from child.stdout, so its pipe fills.
  const child = logMuch('pipe', 1000)
  const [stderr, code] = await Promise.all([text(child.stderr), exitOf(child)])
  const dropped = Number(/^dropped (\d+)$/.exec(stderr)?.[1])
  assert.equal(code, 0)
  assert.ok(dropped > 2500 && dropped < 5000, stderr)
  child.stdout.destroy()
})

test('P8 a process whose log reader has gone goes on, drops lines and exits', async () => {
  const child = logMuch('pipe', 1000)
  child.stdout.destroy()
  const [stderr, code] = await Promise.all([text(child.stderr), exitOf(child)])
  assert.equal(code, 0)
  assert.match(stderr, /^dropped [1-9]\d{3}$/)
})

test('P8 a process whose log goes to a full disk goes on and counts', async () => {
  const child = logMuch(openSync('/dev/full', 'w'), 1000)
  const [stderr, code] = await Promise.all([text(child.stderr), exitOf(child)])
  assert.equal(code, 0)
  assert.match(stderr, /^dropped [1-9]\d{3}$/)
})

function logMuch(stdout: 'pipe' | number, burst: number) {
  const child = spawn(process.execPath, [join(import.meta.dirname, '../fixtures/log-much.ts'), String(burst)], {
    stdio: ['ignore', stdout, 'pipe'],
  })
  assert.ok(child.stderr)
  return Object.assign(child, { stdout: child.stdout ?? process.stdin, stderr: child.stderr })
}

const exitOf = async (child: ReturnType<typeof logMuch>): Promise<number> => (await once(child, 'exit'))[0]
