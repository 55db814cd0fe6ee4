import assert from 'node:assert/strict'
import { tmpdir } from 'node:os'
import { after, describe, it } from 'node:test'
import type { Figure, Row, Size } from '../../bench/row.ts'
import { coldStart } from '../../bench/rows/cold-start.ts'
import { delivery } from '../../bench/rows/delivery.ts'
import { memory } from '../../bench/rows/memory.ts'
import { createStand } from '../../bench/stand.ts'
import { ratioOf, summaryOf } from '../../bench/table.ts'
import { skipReason } from '../support/components.ts'

const PEER = 'Vault Agent'
/**
 * What certferry may need, as a multiple of what Vault Agent needs in the same rounds. Wide, as few rounds on a busy machine tell no more:
 * this is to notice that something became far heavier. The targets, and how to measure by them, are in docs/performance.md.
 */
const AT_MOST = { coldStart: 8, resident: 1.2, anonymous: 2.6, many: 8 }
const SIZE: Size = {
  rounds: 4,
  many: 50,
  manyRounds: 2,
  rotations: 0,
  settleMs: 1_000,
  idleMinutes: 0,
  fleet: 0,
}

const skip = await skipReason('vault')
const stand = skip
  ? undefined
  : await createStand({ size: SIZE, volumeIn: tmpdir(), peers: [PEER], progress: () => undefined })
after(() => stand?.[Symbol.asyncDispose]())

describe('beside Vault Agent, in the same rounds, certferry', { skip }, () => {
  it('is not far slower to its first set on disk', async (t) => {
    within(await figuresOf(coldStart, SIZE), 'cold start', AT_MOST.coldStart, t)
  })

  it('holds not far more memory when idle', async (t) => {
    const figures = await figuresOf(memory, { ...SIZE, rounds: 2 })
    within(figures, 'resident memory', AT_MOST.resident, t)
    within(figures, 'anonymous memory', AT_MOST.anonymous, t)
  })

  it('is not far slower to deliver many certificates', async (t) => {
    within(await figuresOf(delivery, SIZE), `${SIZE.many} certificates, first delivery`, AT_MOST.many, t)
  })
})

async function figuresOf(row: Row, size: Size): Promise<readonly Figure[]> {
  assert.ok(stand)
  return (await row.run({ ...stand, size })).figures
}

function within(figures: readonly Figure[], title: string, most: number, t: { diagnostic(text: string): void }) {
  const figure = figures.find((one) => one.title.startsWith(title))
  const ratio = figure && ratioOf(figure.values, PEER)
  assert.ok(figure && ratio !== undefined, `nothing was measured for ${title}`)
  const medians = Object.entries(figure.values).map(
    ([name, values]) => `${name} ${summaryOf(values).median.toFixed(1)}`,
  )
  const told = `${title}: ${ratio.toFixed(2)} × ${PEER} (${medians.join(', ')} ${figure.unit})`
  t.diagnostic(told)
  assert.ok(ratio <= most, `${told}, at most ${most}`)
}
