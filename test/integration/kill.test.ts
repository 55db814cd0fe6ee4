import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { crashLoop } from '../../campaigns/crash-loop.ts'
import { killCertferry } from '../../campaigns/kill.ts'
import { bundleCli } from '../../tools/build.ts'
import { skipReason } from '../support/components.ts'
import { startVault } from '../support/vault.ts'

const skip = await skipReason('vault')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()

const programs = mkdtempSync(join(tmpdir(), 'certferry-test-'))
after(() => rmSync(programs, { recursive: true, force: true }))
await bundleCli(programs)
const program = join(programs, 'cli.cjs')

for (const layout of ['generation', 'nginx-include', 'flat'] as const) {
  test(`F8 killed at random moments in layout ${layout}: whole after the next start, and nothing issued unasked`, {
    skip,
  }, async (t) => {
    assert.ok(vault)
    const seed = Math.floor(Math.random() * 2 ** 31)
    const { complaints, ...figures } = await killCertferry({ vault, program, layout, kills: 8, seed })
    t.diagnostic(JSON.stringify(figures))
    assert.deepEqual(complaints, [])
    assert.deepEqual([figures.kills, figures.mixedLater, figures.extra], [8, 0, 0])
  })
}

test('P4 a crash loop that loses every certificate stops asking when the budget is spent', { skip }, async () => {
  assert.ok(vault)
  assert.deepEqual(await crashLoop(12, { vault, program }), { starts: 12, asked: 5, issued: 5 })
})
