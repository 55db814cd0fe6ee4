import assert from 'node:assert/strict'
import { test } from 'node:test'
import { certferry } from '../../campaigns/fleet/certferry-rule.ts'
import { certManager, consulTemplate } from '../../campaigns/fleet/peer-rules.ts'
import { plotOutage, plotSpreads, plotSteady } from '../../campaigns/fleet/plots.ts'
import { busiestByChance } from '../../campaigns/fleet/rates.ts'
import { type Fleet, HOUR_MS, liveInPeace, MINUTE_MS, reissueAll, sitOut } from '../../campaigns/fleet/scenarios.ts'
import { createVaultModel } from '../../campaigns/fleet/vault-model.ts'

const FLEET: Fleet = {
  sidecars: 500,
  lifeMs: 24 * HOUR_MS,
  startWithinMs: MINUTE_MS,
  vault: { signsPerSecond: 740, workers: 2, queue: 4096 },
  seed: 1,
}
const PATIENCE = { connectMs: 3_000, answerMs: 10_000 }

test('after an hour without Vault no certificate has expired, and nobody is kept waiting', async () => {
  for (const kind of ['refused', 'sealed', 'silent'] as const) {
    const { run, recoveryMs, busiestSecond } = await sitOut(certferry(), FLEET, { ms: HOUR_MS, kind })
    assert.ok(run.account.failed > FLEET.sidecars / 3, `${run.account.failed} met the outage`)
    assert.deepEqual([run.account.expired, run.account.givenUp], [0, 0], kind)
    // A pause is five minutes at most, and so is the circuit open. Requests without an answer may have been carried out: the budget makes the
    // last of them wait for a fifth of eight hours.
    const longest = kind === 'silent' ? (8 * HOUR_MS) / 5 : 11 * MINUTE_MS
    assert.ok(recoveryMs > 0 && recoveryMs <= longest, `${recoveryMs} ms, ${kind}`)
    assert.ok(busiestSecond <= 10, `${busiestSecond} in a second, ${kind}`)
  }
})

test('an outage of six hours costs those their certificate who renew when little more than two are left', async () => {
  const outage = { ms: 6 * HOUR_MS, kind: 'refused' } as const
  assert.equal((await sitOut(certferry(), FLEET, outage)).run.account.expired, 0)
  const { run } = await sitOut(consulTemplate, FLEET, outage)
  assert.equal(run.account.expired, FLEET.sidecars)
  const hours = run.account.expiredSeconds / 3600 / FLEET.sidecars
  assert.ok(hours > 3.6 && hours < 3.8, `${hours} each`)
})

test('the peak of certferry is a tenth of that of rules without jitter', async () => {
  const peaks = []
  for (const rule of [certferry(), consulTemplate, certManager])
    peaks.push((await liveInPeace(rule, FLEET, 3)).early.peak)
  const [own = 0, ...others] = peaks
  for (const other of others) assert.ok(own * 10 <= other, `${own} and ${other} a minute`)
})

test('a fleet that started at once is even after some fifteen lifetimes, and with a jitter of 0.3 from the third on', async () => {
  const fleet = { ...FLEET, sidecars: 1_000 }
  const { early, settled, lifetimes } = await liveInPeace(certferry(), fleet, 18)
  assert.ok(early.ratio > 3.5, `${early.ratio} at first`)
  const first = lifetimes[1]?.ratio ?? 0
  assert.ok(settled.ratio < early.ratio / 2 && first > settled.ratio, `${first}, then ${settled.ratio}`)
  // A thousand sidecars are 15 requests in ten minutes: chance alone makes peaks twice the mean.
  assert.ok(settled.ratio < settled.ratioByChance * 1.25, `${settled.ratio}, by chance ${settled.ratioByChance}`)
  const wide = await liveInPeace(certferry({ jitter: 0.3 }), fleet, 6)
  assert.ok(wide.settled.ratio < wide.settled.ratioByChance * 1.25, `${wide.settled.ratio} with 0.3`)
})

test('all told at once keep Vault busy and are served all the same, none of them twice', async () => {
  const vault = { ...FLEET.vault, signsPerSecond: 100, queue: 300 }
  const { run, busiestSecond } = await reissueAll(certferry(), { ...FLEET, vault }, 1000)
  assert.ok(busiestSecond >= 400, `${busiestSecond}`)
  assert.ok(run.account.failed > 0, 'some found the queue full')
  assert.deepEqual([run.account.issued, run.account.expired], [2 * FLEET.sidecars, 0])
})

test('the same seed gives the same run, another seed another', async () => {
  const runs = []
  for (const seed of [1, 1, 2]) {
    const { run } = await sitOut(certferry(), { ...FLEET, sidecars: 50, seed }, { ms: HOUR_MS, kind: 'refused' })
    runs.push({ asked: Buffer.from(run.asked.buffer).toString('base64'), account: run.account })
  }
  assert.deepEqual(runs[0], runs[1])
  assert.notDeepEqual(runs[0], runs[2])
})

test('Vault serves as fast as it can, in turn, and what is given up costs it as much', () => {
  const vault = createVaultModel({ signsPerSecond: 100, workers: 2, queue: 1500 })
  const answers = Array.from({ length: 2_000 }, () => vault.receive(0, PATIENCE))
  const kinds = Object.groupBy(answers, ({ kind }) => kind)
  assert.equal(
    kinds.issued?.length,
    998,
    'as many as can be answered within ten seconds, the last two a moment too late',
  )
  assert.equal(kinds.unconnected?.length, 500, 'the queue is full')
  assert.equal(kinds.timeout?.length, 502)
  assert.ok(kinds.timeout?.every(({ at }) => at === 10_000))
  assert.ok(vault.receive(14_000, PATIENCE).at >= 15_000, 'busy for 15 s with what it took')
})

test('Vault refuses what is over its quota, second by second', () => {
  const vault = createVaultModel({ signsPerSecond: 740, workers: 2, queue: 4096, quotaPerSecond: 3 })
  const kinds = [0, 1, 2, 3, 999, 1000].map((at) => vault.receive(at, PATIENCE).kind)
  assert.deepEqual(kinds, ['issued', 'issued', 'issued', 'limited', 'limited', 'issued'])
})

test('chance alone makes a peak: less, the more there are in a window', () => {
  // Of one window the median, of many more than that; P(X ≤ 4) is 0.9963 and P(X ≤ 3) 0.981 for a mean of 1.
  assert.deepEqual([busiestByChance(1, 1), busiestByChance(1, 100), busiestByChance(1, 20)], [1, 4, 3])
  const ratios = [10, 100, 1000].map((mean) => busiestByChance(mean, 144) / mean)
  assert.deepEqual(
    ratios.toSorted((a, b) => b - a),
    ratios,
  )
})

test('the plots are well-formed, in order, and name what they show', async () => {
  const fleet = { ...FLEET, sidecars: 100 }
  const steady = await liveInPeace(certferry(), fleet, 3)
  const outage = await sitOut(consulTemplate, fleet, { ms: HOUR_MS, kind: 'refused' })
  const plots = [plotSteady([steady], fleet.lifeMs), plotSpreads([steady]), plotOutage([outage], 'Away < 1 h')]
  for (const svg of plots) {
    assertWellFormed(svg)
    assert.doesNotMatch(svg, /NaN|Infinity|undefined|<script/)
    assert.match(svg, /prefers-color-scheme:dark/)
    assert.match(svg, /requests a minute|peak \/ mean/)
  }
  assert.match(plots[2] ?? '', /Away &#60; 1 h/)
})

/** XML of elements, attributes and text, as a reader would want it: every element is closed, in order. */
function assertWellFormed(svg: string): void {
  const open: string[] = []
  const rest = svg.replace(
    /<(\/?)([a-z]+)((?: [\w:-]+="[^"<]*")*)(\/?)>/gi,
    (_, closes: string, name: string, __, empty: string) => {
      if (closes !== '') assert.equal(open.pop(), name)
      else if (empty === '') open.push(name)
      return ''
    },
  )
  assert.deepEqual(open, [])
  assert.doesNotMatch(rest, /[<>]|&(?!#\d+;)/)
}
