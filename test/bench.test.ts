import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { OWN_CODE, sharesOf } from '../bench/packages.ts'
import { spent } from '../bench/proc.ts'
import { inRounds, valuesOf } from '../bench/rounds.ts'
import type { Figure } from '../bench/row.ts'
import { renderFigures, summaryOf, verdictOf } from '../bench/table.ts'
import { wakeUpsIn } from '../bench/wake-ups.ts'

const COLUMNS = ['certferry', 'Vault Agent', 'consul-template']
const FIGURE: Figure = {
  title: 'cold start',
  unit: 'ms',
  digits: 0,
  values: { certferry: [90, 120, 100], 'Vault Agent': [80, 70, 100], 'bare node': [50] },
  targets: [
    { of: 'Vault Agent', times: 1.25 },
    { of: 'Vault Agent', times: 1, isStretch: true },
    { plus: 50 },
    { of: 'consul-template', times: 2 },
  ],
}

describe('the table of the bench', () => {
  it('gives the middle, the least and the most of some runs', () => {
    assert.deepEqual(summaryOf([3, 1, 2]), { median: 2, min: 1, max: 3 })
    assert.deepEqual(summaryOf([4, 1, 2, 3]), { median: 2.5, min: 1, max: 4 })
  })

  it('holds a target against the medians of the same run', () => {
    assert.deepEqual(verdictOf({ of: 'Vault Agent', times: 1.25 }, FIGURE.values), { limit: 100, share: 1 })
    assert.deepEqual(verdictOf({ of: 'bare node', plus: 30 }, FIGURE.values), { limit: 80, share: 1.25 })
    assert.deepEqual(verdictOf({ of: 'consul-template' }, FIGURE.values), { limit: undefined, share: undefined })
  })

  it('says by how much a target is met or missed, and who is absent', () => {
    const [, , line = ''] = renderFigures(COLUMNS, [FIGURE], ['consul-template']).split('\n')
    const cells = line.split('|').map((cell) => cell.trim())
    assert.deepEqual(cells.slice(1, -1), [
      'cold start, ms',
      '100 (90–120)',
      '80 (70–100) **1.25 ×**',
      'absent',
      'bare node 50 **2.00 ×**',
      '≤ 1.25 × Vault Agent; stretch ≤ 1 × Vault Agent; ≤ 50 ms; ≤ 2 × consul-template',
      'met (100 % of it); stretch missed by 25 %; missed by 100 %; consul-template was not measured',
    ])
  })
})

describe('rounds', () => {
  it('let each take its turn, begin with another one each time, and do not count the first round', async () => {
    const order: string[] = []
    const participants = ['a', 'b'].map((name) => ({ name, measure: async () => order.push(name) }))
    const results = await inRounds(participants, 2, () => {})
    assert.equal(order.join(''), 'abbaab')
    assert.deepEqual(
      valuesOf(results, (turn) => turn),
      { a: [4, 5], b: [3, 6] },
    )
  })
})

describe('what a process used', () => {
  it('is the sum of its threads, also of one that began in between', () => {
    const before = { at: 1_000, threads: new Map([['1', { cpuNs: 5e6, switches: 2 }]]) }
    const later: [string, { cpuNs: number; switches: number }][] = [
      ['1', { cpuNs: 7e6, switches: 5 }],
      ['2', { cpuNs: 1e6, switches: 1 }],
    ]
    assert.deepEqual(spent(before, { at: 3_000, threads: new Map(later) }), { seconds: 2, cpuMs: 3, switches: 4 })
  })
})

describe('a log of waits', () => {
  it('tells when a thread woke, and whether by a timer; calls that did not rest are no waits', () => {
    const log = [
      '7 100.000000 epoll_pwait(15, [], 1024, 0, NULL, 8) = 0 <0.000005>',
      '8 100.100000 futex(0x1, FUTEX_WAIT_PRIVATE, 0, NULL <unfinished ...>',
      '7 100.200000 epoll_pwait(15, [], 1024, 500, NULL, 8) = 0 <0.500100>',
      '8 103.000000 <... futex resumed>) = 0 <2.900000>',
      '9 104.000000 futex(0x2, FUTEX_WAIT_PRIVATE, 0, {tv_sec=2, tv_nsec=0}) = -1 ETIMEDOUT (Connection timed out) <2.000100>',
      '7 101.000000 epoll_pwait(15, [{events=EPOLLIN, data={u32=19, u64=19}}], 1024, 4000, NULL, 8) = 1 <3.000000>',
      '9 107.000000 futex(0x2, FUTEX_WAIT_PRIVATE, 0, NULL <detached ...>',
    ].join('\n')
    const told = wakeUpsIn(log).map(({ at, thread, cause }) => `${at.toFixed(2)} ${thread} ${cause}`)
    assert.deepEqual(told, [
      '100.70 7 a timer of about 0.5 s',
      '103.00 8 an event',
      '104.00 7 an event',
      '106.00 9 a timer of about 2 s',
    ])
  })
})

describe('the share of a package', () => {
  it('is what it has of the minified files, and of those that were loaded', () => {
    const chunk = (fileName: string, code: string, lengths: Record<string, number>) => ({
      fileName,
      code,
      modules: Object.fromEntries(Object.entries(lengths).map(([id, renderedLength]) => [id, { renderedLength }])),
    })
    const chunks = [
      chunk('cli.cjs', 'x'.repeat(100), { '/c/src/cli.ts': 50, '/c/node_modules/zod/index.js': 150 }),
      chunk('chunks/late.cjs', 'x'.repeat(30), { '/c/node_modules/zod/node_modules/@a/b/index.js': 10 }),
    ]
    assert.deepEqual(
      sharesOf(chunks, new Set(['cli.cjs'])),
      [
        { name: 'zod', bytes: 75, startBytes: 75 },
        { name: '@a/b', bytes: 30, startBytes: 0 },
        { name: OWN_CODE, bytes: 25, startBytes: 25 },
      ].toSorted((a, b) => b.bytes - a.bytes),
    )
  })
})
