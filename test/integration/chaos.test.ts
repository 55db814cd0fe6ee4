import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { FAULTS, WHOLE_VAULT_FAULTS } from '../../campaigns/chaos/catalogue.ts'
import { judgeIssuances } from '../../campaigns/chaos/issuances.ts'
import { createJudge } from '../../campaigns/chaos/judge.ts'
import { drawRound, type PlanOptions } from '../../campaigns/chaos/plan.ts'
import { createStory } from '../../campaigns/chaos/story.ts'
import { skipReason } from '../support/components.ts'

const PLAN: PlanOptions = { seed: 7, sidecars: 3, stormSeconds: 30, kinds: FAULTS, wholeVault: WHOLE_VAULT_FAULTS }

describe('the plan of a campaign', () => {
  test('depends on the seed alone', () => {
    assert.deepEqual(drawRound(PLAN, 3), drawRound(PLAN, 3))
    assert.notDeepEqual(drawRound(PLAN, 3).faults, drawRound({ ...PLAN, seed: 8 }, 3).faults)
  })

  test('holds every kind of fault within a hundred rounds, overlapping between groups and never within one', () => {
    const rounds = Array.from({ length: 100 }, (_, number) => drawRound(PLAN, number))
    const drawn = new Set(rounds.flatMap(({ faults }) => faults.map(({ kind }) => kind)))
    assert.deepEqual([...drawn].sort(), [...FAULTS, ...WHOLE_VAULT_FAULTS].map(({ kind }) => kind).sort())
    for (const { faults, stormMs } of rounds) {
      const groups = Map.groupBy(faults, ({ subject, group }) => `${subject} ${group}`)
      for (const row of groups.values())
        for (const [index, { startMs, endMs }] of row.entries()) {
          assert.ok(startMs <= endMs && endMs <= stormMs)
          assert.ok(startMs >= (row[index - 1]?.endMs ?? 0))
        }
    }
  })
})

describe('the judge of a campaign', () => {
  const LIFE = 60_000
  const facts = {
    lifetimeMs: LIFE,
    from: 0,
    asked: 0,
    excuses: [],
    written: new Map([
      ['a', 0],
      ['b', 0],
    ]),
  }

  test('knows a certificate that was issued for nothing', () => {
    const issued = [{ at: 100_000, serial: 'a' }]
    const judged = (second: number, more: object = {}) =>
      judgeIssuances({ ...facts, issued: [...issued, { at: 100_000 + second * 1000, serial: 'b' }], ...more }).extra
        .length
    assert.equal(judged(10), 1)
    assert.equal(judged(24), 0, 'due')
    assert.equal(judged(10, { asked: 1 }), 0, 'asked for')
    assert.equal(judged(10, { excuses: [105_000] }), 0, 'made necessary by what was done')
    assert.equal(judged(10, { written: new Map() }), 0, 'the first one never arrived')
  })

  test('knows when more was issued than the budget allows', () => {
    const times = (count: number) => Array.from({ length: count }, (_, index) => ({ at: 100_000 + index, serial: '?' }))
    const judged = (count: number) =>
      judgeIssuances({ ...facts, written: new Map(), issued: times(count) }).overspent.length
    assert.deepEqual([judged(5), judged(6)], [0, 1])
  })

  test('takes nothing amiss that the faults explain, and everything else', (t) => {
    const seen = (subject: string, channel: 'tls' | 'disk' | 'modes', what: string) => {
      return { subject, channel, what, since: Date.now(), until: Date.now(), count: 1 }
    }
    const trouble = () => [
      seen('flat-1', 'disk', 'mixed: tls.crt and tls.key do not match'),
      seen('flat-1', 'tls', 'refused'),
      seen('flat-1', 'disk', 'unreadable: ENOENT'),
      seen('flat-1', 'modes', 'loose: tls.key, mode 644'),
    ]
    const judge = judgeIn(t)
    for (const one of trouble()) judge.observed(one)
    assert.equal(judge.violations.length, 4)

    const lenient = judgeIn(t)
    lenient.begun({ kind: 'certferry killed', group: 'certferry', subject: 'flat-1' })
    lenient.begun({ kind: 'nginx killed', group: 'target', subject: 'flat-1' })
    lenient.begun({ kind: 'file deleted', group: 'disk', subject: 'flat-1' })
    for (const one of trouble()) lenient.observed(one)
    assert.deepEqual(lenient.violations, [])
    lenient.observed(seen('generation-1', 'disk', 'mixed: tls.crt and tls.key do not match'))
    assert.equal(lenient.violations.length, 1, 'where no kill may leave a mixed pair')
    lenient.recovered('flat-1')
    for (const one of trouble()) lenient.observed({ ...one, since: Date.now() + 1 })
    assert.equal(lenient.violations.length, 4, 'nor after the recovery, but for the target, which is still down')
    lenient.observed({ ...seen('flat-1', 'tls', 'expired 4711'), since: Date.now() + 1 })
    assert.equal(lenient.violations.length, 5)
  })

  function judgeIn(t: TestContext) {
    const folder = mkdtempSync(join(tmpdir(), 'certferry-test-'))
    t.after(() => rmSync(folder, { recursive: true, force: true }))
    return createJudge(createStory(folder), new Set(['file deleted']))
  }
})

const CAMPAIGN = fileURLToPath(new URL('../../campaigns/chaos.ts', import.meta.url))
const FIXED_SEED = 20_261_125

describe('one storm on two sidecars', { skip: await whyNot(), concurrency: true }, () => {
  for (const seed of [FIXED_SEED, Math.floor(Math.random() * 2 ** 31)]) {
    test(`comes to nothing that was not promised, seed ${seed}`, async (t) => {
      const args = [CAMPAIGN, '--minutes', '0', '--seed', `${seed}`, '--sidecars', '2', '--storm', '12']
      const { code, output } = await run(args)
      t.diagnostic(output.split('\n').at(-2) ?? '')
      assert.equal(code, 0, output)
      assert.match(
        output,
        /^faults injected ([1-9]\d*) \/ survived \1 \/ mixed pairs 0 \/ extra issuances 0 \/ secrets found 0$/m,
      )
      assert.match(output, /^\| handshakes \| [1-9]\d* \|$/m)
    })
  }
})

function run(args: readonly string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, args, { maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code ?? 1) : 0, output: `${stderr}\n${stdout}` })
    })
  })
}

async function whyNot(): Promise<false | string> {
  const missing = await skipReason('vault', 'nginx', 'faketime')
  if (missing) return missing
  const how = process.getuid?.() === 0 ? '-m' : '-Urm'
  const { status, stderr, error } = spawnSync('unshare', [how, 'true'], { encoding: 'utf8' })
  if (status === 0) return false
  const reason = `no mount namespaces here (unshare ${how}: ${error?.message ?? stderr.trim()})`
  console.error(`SKIPPED: ${reason}`)
  return reason
}
