import { arch, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { version } from '../src/version.ts'
import { measureSigns } from './fleet/measure.ts'
import { plotOutage, plotSpreads, plotSteady, writePlots } from './fleet/plots.ts'
import {
  duration,
  judge,
  outageTable,
  reissueTable,
  spreadTable,
  steadyTable,
  type Verdict,
  verdictTable,
} from './fleet/report.ts'
import {
  type Disturbed,
  type Fleet,
  HOUR_MS,
  liveInPeace,
  MINUTE_MS,
  RULES,
  reissueAll,
  SPREADS,
  type Steady,
  sitOut,
} from './fleet/scenarios.ts'
import type { Rule } from './fleet/sidecar.ts'
import { OUTAGE_KINDS, type OutageKind } from './fleet/vault-model.ts'

const USAGE = `npm run sim [-- --sidecars N] [--seed S] [--hours H] [--within SECONDS] [--lifetimes N] [--signs N] [--workers N] [--queue N]
               [--outage refused|sealed|silent] [--measure] [--plots FOLDER] [--json]
A fleet of N sidecars (10000), each with a certificate of H hours (24), all started within 60 s, in virtual time: several lifetimes in peace,
outages of Vault of 5 min, 1 h and 6 h, and all certificates issued anew. certferry decides by its own code (src/core, the circuit breaker);
beside it the rules of consul-template and cert-manager. Vault signs 740 a second with 2 workers, as 1000 CSRs of P-256 took on a machine
with two cores; --measure asks a real Vault on this one. --plots writes SVG files.`

const { values: options } = parseArgs({
  options: {
    sidecars: { type: 'string', default: '10000' },
    seed: { type: 'string', default: '1' },
    hours: { type: 'string', default: '24' },
    within: { type: 'string', default: '60' },
    lifetimes: { type: 'string', default: '20' },
    signs: { type: 'string', default: '740' },
    workers: { type: 'string', default: '2' },
    // What Linux lets wait to be accepted (net.core.somaxconn), which is what Go asks for.
    queue: { type: 'string', default: '4096' },
    outage: { type: 'string', default: 'refused' },
    measure: { type: 'boolean', default: false },
    plots: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

const OUTAGES_MS = [5 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS]
const TOLD_WITHIN_MS = [MINUTE_MS, 1000]

if (options.help) console.log(USAGE)
else await main()

async function main(): Promise<void> {
  const started = performance.now()
  const kind = OUTAGE_KINDS.find((one) => one === options.outage)
  const [lifetimes, lifeMs] = [Number(options.lifetimes), Number(options.hours) * HOUR_MS]
  if (!kind || !(lifetimes >= 3 && lifeMs >= MINUTE_MS && Number(options.sidecars) >= 1)) throw new Error(USAGE)
  const signsPerSecond = options.measure ? Math.round(await measureSigns(1000)) : Number(options.signs)
  const fleet: Fleet = {
    sidecars: Number(options.sidecars),
    lifeMs,
    startWithinMs: Number(options.within) * 1000,
    vault: { signsPerSecond, workers: Number(options.workers), queue: Number(options.queue) },
    seed: Number(options.seed),
  }
  const found = await liveThrough(fleet, lifetimes, kind)
  if (options.plots !== undefined) await plot(options.plots, found, lifeMs)
  const tookMs = Math.round(performance.now() - started)
  if (options.json) {
    const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, ${process.platform} ${arch()}`
    const measured = options.measure
    const conditions = {
      certferry: version,
      node: process.version,
      machine,
      ...fleet,
      lifetimes,
      kind,
      measured,
      tookMs,
    }
    return console.log(JSON.stringify({ conditions, ...found }, withoutCounts, 2))
  }
  const { workers, queue } = fleet.vault
  const signs = `${signsPerSecond} signs a second${options.measure ? ' (measured here)' : ''}`
  console.log(
    `certferry ${version}, Node ${process.version}; seed ${fleet.seed}; ${fleet.sidecars} sidecars, certificates of ${options.hours} h, started within ${options.within} s; Vault: ${signs}, ${workers} workers, queue ${queue}, away: ${kind}; took ${Math.round(tookMs / 1000)} s\n`,
  )
  console.log(tablesOf(found, signsPerSecond))
}

interface Found {
  readonly steady: readonly Steady[]
  readonly spreads: readonly Steady[]
  readonly outages: readonly Disturbed[]
  readonly reissues: readonly Disturbed[]
  readonly verdicts: readonly Verdict[]
}

async function liveThrough(fleet: Fleet, lifetimes: number, kind: OutageKind): Promise<Found> {
  const steady = await each(RULES, (rule) => liveInPeace(rule, fleet, lifetimes))
  const [own] = steady
  if (!own) throw new Error('no rule')
  // The first is the default once more.
  const spreads = [
    { ...own, run: { ...own.run, rule: SPREADS[0] ?? own.run.rule } },
    ...(await each(SPREADS.slice(1), (rule) => liveInPeace(rule, fleet, Math.min(lifetimes, 8)))),
  ]
  const outages: Disturbed[] = []
  for (const ms of OUTAGES_MS) outages.push(...(await each(RULES, (rule) => sitOut(rule, fleet, { ms, kind }))))
  const reissues: Disturbed[] = []
  for (const ms of TOLD_WITHIN_MS) reissues.push(...(await each(RULES, (rule) => reissueAll(rule, fleet, ms))))
  const afterAnHour = outages.find(({ run, from, to }) => run.rule === RULES[0] && to - from === HOUR_MS)
  return { steady, spreads, outages, reissues, verdicts: judge(own, afterAnHour, fleet.vault.signsPerSecond) }
}

function tablesOf({ steady, spreads, outages, reissues, verdicts }: Found, signsPerSecond: number): string {
  const windows = duration(steady[0]?.settled.windowMs ?? 0)
  return [
    `In peace, ${options.lifetimes} lifetimes; windows of ${windows}:\n\n${steadyTable(steady)}`,
    `Ways to spread:\n\n${spreadTable(spreads)}`,
    `Outages from the moment the first certificate comes due:\n\n${outageTable(outages, signsPerSecond)}`,
    `All told to get a new certificate:\n\n${reissueTable(reissues, signsPerSecond)}`,
    `Targets:\n\n${verdictTable(verdicts)}`,
  ].join('\n\n')
}

async function each<T>(rules: readonly Rule[], live: (rule: Rule) => Promise<T>): Promise<T[]> {
  const lived: T[] = []
  for (const rule of rules) lived.push(await live(rule))
  return lived
}

async function plot(folder: string, { steady, spreads, outages }: Found, lifeMs: number): Promise<void> {
  const byLength = OUTAGES_MS.map((ms) => {
    const those = outages.filter(({ from, to }) => to - from === ms)
    return [`outage-${duration(ms).replace(' ', '')}.svg`, plotOutage(those, `Vault away for ${duration(ms)}`)] as const
  })
  const files = await writePlots(folder, {
    'steady.svg': plotSteady(steady, lifeMs),
    'spread.svg': plotSpreads(spreads),
    ...Object.fromEntries(byLength),
  })
  console.error(`wrote ${files.join(', ')} into ${folder}`)
}

/** The counts of each second are long, and come again from the seed. */
function withoutCounts(name: string, value: unknown): unknown {
  return name === 'asked' ? undefined : value
}
