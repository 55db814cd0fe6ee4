import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { verifyAudit } from '../../src/observe/audit.ts'
import { component, skipReason } from '../support/components.ts'

const skip = await skipReason('strace')

test('F1 a full disk costs audit lines, told once, and the chain says how many', { skip }, async () => {
  await using folder = await temporary()
  const file = join(folder.path, 'audit.log')
  const stdout = await writeLines(file, 5, 'inject=write:error=ENOSPC:when=2..3')
  assert.deepEqual(JSON.parse(stdout), { heard: ['audit.failed DISK_FULL', 'audit.recovered 2'], lost: 2 })
  const events = readFileSync(file, 'utf8').match(/"event":"[a-z.]+"|"lost":\d+/g)
  const removed = '"event":"certificate.removed"'
  assert.deepEqual(events, [removed, '"event":"audit.resumed"', '"lost":2', removed, removed])
  assert.equal((await verifyAudit(file)).lines, 4)
})

test('F8 a process killed while it writes leaves a chain that the next one continues', { skip }, async () => {
  await using folder = await temporary()
  const file = join(folder.path, 'audit.log')
  for (const line of [1, 2, 3]) await writeLines(file, 5, `inject=write:signal=KILL:when=${line}`)
  assert.deepEqual(JSON.parse(await writeLines(file, 1, 'trace=write')), { heard: [], lost: 0 })
  assert.ok((await verifyAudit(file)).lines > 3)
})

/** The fixture under strace, which meddles with its writes to the audit log only. Resolves with its standard output. */
async function writeLines(file: string, count: number, meddling: string): Promise<string> {
  const fixture = join(import.meta.dirname, '../fixtures/audit-writer.ts')
  const child = spawn(
    await component('strace'),
    ['-f', '-qq', '-o', '/dev/null', '-P', file, '-e', meddling, process.execPath, fixture, file, String(count)],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const [stdout] = await Promise.all([text(child.stdout), once(child, 'close')])
  return stdout
}

async function temporary() {
  const path = await mkdtemp(join(tmpdir(), 'certferry-audit-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}
