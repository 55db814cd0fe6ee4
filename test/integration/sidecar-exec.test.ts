import assert from 'node:assert/strict'
import { test } from 'node:test'
import { counter, isDone, never, place, run, told } from '../support/sidecar.ts'
import { until } from '../support/until.ts'

test('R22 a target that two certificates name is told once for both', async () => {
  const { folder, config } = place()
  await using running = run(config({ a: counter(folder), b: counter(folder) }))
  const { sidecar, once } = running
  await Promise.all([once('a', 'is done', isDone), once('b', 'is done', isDone)])
  assert.deepEqual(told(folder).map(sorted), ['a,b'])
  const results = await sidecar.rotate(['a', 'b'], 'a test', never)
  assert.deepEqual(
    results.map(({ certificate, outcome }) => [certificate, outcome.kind]),
    [
      ['a', 'served'],
      ['b', 'served'],
    ],
  )
  assert.deepEqual(told(folder).map(sorted), ['a,b', 'a,b'])
})

const sorted = (names: string) => names.split(',').sort().join(',')

test('R6 it ends within 5 s also while a reload command hangs, and the command with it', async () => {
  const { folder, config } = place()
  const { sidecar } = run(
    config({ web: `reload: [{ kind: exec, command: [sh, -c, 'echo $$ > ${folder}/told; exec sleep 30'] }]` }),
  )
  // The file is there, and empty, before the command writes into it.
  const pid = await until('the command runs', () => Number(told(folder)[0]) || undefined)
  const started = performance.now()
  await sidecar[Symbol.asyncDispose]()
  assert.ok(performance.now() - started < 5_000)
  // On a busy machine it may take a moment until its end is collected.
  await until('the command is gone', () => isGone(pid))
})

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}
