import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { type TestContext, test } from 'node:test'
import { type Layout, render } from '../../src/outputs/output.ts'
import { createTestCa } from '../support/ca.ts'
import { component, skipReason } from '../support/components.ts'
import { startNginx } from '../support/nginx.ts'
import { openStore } from '../support/store.ts'
import { makeOutput, makeVolume } from '../support/volume.ts'

const ca = await createTestCa()
const bundles = await Promise.all(
  Array.from({ length: 3 }, async () => (await ca.issue({ withIntermediate: true })).bundle),
)
/** At least so many of each. */
const READS = 40
const SWAPS = 80

/** Swaps sets without pause while `read` runs time after time; resolves with what the failed reads said. */
async function readWhileSwapping(
  t: TestContext,
  options: { kind: string; layout: Layout },
  reader: (directory: string) => Promise<string[]>,
) {
  const output = makeOutput({ directory: join(makeVolume(t), 'tls dir'), ...options })
  // By a clock that is ahead, the files are old enough not to be read again at each swap.
  const { store } = await openStore(t, [output], { now: () => Date.now() + 60_000 })
  const swap = async (index: number) => {
    const bundle = bundles[index % bundles.length]
    assert.ok(bundle)
    await store.apply(render([output], bundle))
  }
  await swap(0)
  const [command = '', ...args] = await reader(output.directory)
  const state = { done: false, swaps: 0 }
  const swapping = (async () => {
    for (; !state.done; state.swaps += 1) await swap(state.swaps)
  })().finally(() => {
    state.done = true
  })
  swapping.catch(() => {})
  const failures: string[] = []
  let reads = 0
  for (; !state.done && (reads < READS || state.swaps < SWAPS); reads += 1) {
    const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    const [said, code] = await Promise.all([text(child.stderr), new Promise((resolve) => child.once('close', resolve))])
    if (code !== 0) failures.push(said)
  }
  state.done = true
  await swapping
  t.diagnostic(`${reads} reads, ${state.swaps} swaps, ${failures.length} failed`)
  return failures
}

for (const kind of ['pem', 'combined']) {
  test(`nginx never reads a mixed pair through tls.conf, however often the set is swapped (${kind})`, {
    skip: await skipReason('nginx'),
  }, async (t) => {
    const failures = await readWhileSwapping(t, { kind, layout: 'nginx-include' }, async (directory) => {
      const nginx = await startNginx({ server: `include "${directory}/tls.conf";` })
      t.after(() => nginx[Symbol.asyncDispose]())
      return [...nginx.command, '-t']
    })
    assert.deepEqual(failures, [])
  })
}

test('HAProxy never reads a mixed pair from a combined file', { skip: await skipReason('haproxy') }, async (t) => {
  const haproxy = await component('haproxy')
  for (const layout of ['generation', 'flat'] as const) {
    const failures = await readWhileSwapping(t, { kind: 'combined', layout }, async (directory) => {
      const config = join(makeVolume(t), 'haproxy.cfg')
      writeFileSync(
        config,
        `defaults\n  mode http\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\nfrontend tls\n  bind 127.0.0.1:1 ssl crt "${directory}/tls.pem"\n`,
      )
      return [haproxy, '-c', '-q', '-f', config]
    })
    assert.deepEqual(failures, [])
  }
})
