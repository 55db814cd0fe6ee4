import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { rotateUnderLoad } from '../../campaigns/rotate.ts'
import { skipReason } from '../support/components.ts'
import { createStage, type Stage } from '../support/stage.ts'
import { startVault } from '../support/vault.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()

async function stage(): Promise<Stage> {
  assert.ok(vault)
  return createStage({ vault })
}

for (const [layout, count] of [
  ['nginx-include', 20],
  ['generation', 10],
] as const) {
  test(`${count} rotations of a busy nginx in layout ${layout}: no handshake fails, no pair is mixed`, {
    skip,
  }, async (t) => {
    await using place = await stage()
    const { complaints, ...figures } = await rotateUnderLoad(place, { count, layout, clients: 3 })
    t.diagnostic(JSON.stringify(figures))
    assert.deepEqual(complaints, [])
    assert.equal(figures.failed + figures.mismatched, 0)
    assert.equal(figures.rotations, count)
  })
}
