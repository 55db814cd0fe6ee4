import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runFleet } from '../../campaigns/fleet/real-run.ts'
import { skipReason } from '../support/components.ts'

const skip = await skipReason('vault')

test('a small fleet lives through a sealed Vault, and the account of it agrees with the audit log', {
  skip,
}, async () => {
  const plan = {
    processes: 4,
    lifeMs: 20_000,
    startWithinMs: 1_000,
    // From before the first renewal, after 8 s, to after the last one is due.
    outage: { from: 6_000, to: 12_000, kind: 'sealed' },
    quotaPerSecond: 50,
    lastsMs: 16_000,
    seed: 1,
  } as const
  const lines: string[] = []
  const run = await runFleet(plan, {
    signal: new AbortController().signal,
    onProgress: (line) => lines.push(line),
  })
  const { account, asked, audited } = run
  assert.equal(account.failed, plan.processes, 'each one met the outage')
  assert.ok(audited > plan.processes, `${audited} issued: some had their new certificate by the end`)
  // One may be under way at the end, on its way from Vault to the disk.
  assert.ok(Math.abs(account.issued - audited) <= 1, `${account.issued} told of, ${audited} issued`)
  const requests = asked.reduce((sum, count) => sum + count, 0)
  assert.ok(requests >= audited + account.failed, `${requests} requests`)
  assert.deepEqual([account.limited, account.expired, account.givenUp], [0, 0, 0])
  assert.ok(run.memory.anonymousBytes > 1e6 && run.memory.proportionalBytes > run.memory.anonymousBytes)
  assert.deepEqual(run.otherFailures, {})
  assert.equal(lines.length, 4)
})
