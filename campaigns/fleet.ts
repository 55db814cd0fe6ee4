import { arch, cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { version } from '../src/version.ts'
import { certferry } from './fleet/certferry-rule.ts'
import type { Account } from './fleet/ledger.ts'
import { ratesOf } from './fleet/rates.ts'
import { type RealPlan, type RealRun, runFleet } from './fleet/real-run.ts'
import { digits, duration, ratio, table } from './fleet/report.ts'
import { simulate } from './fleet/simulate.ts'

const USAGE = `npm run fleet -- --processes N [--minutes M] [--seed S] [--life SECONDS] [--within SECONDS] [--outage SECONDS] [--silent] [--quota N] [--json]
N processes of certferry (300) for M minutes (10), each with one certificate of 240 s, started within 120 s, with one real Vault that has a
rate-limit quota (twice what they need) and is sealed for 80 s (--silent: suspended); and the simulation of the same beside it.
A process takes about 40 MB, and a third of a second of a processor to start: two cores do not start 300 within a minute.`

const { values: options } = parseArgs({
  options: {
    processes: { type: 'string', default: '300' },
    minutes: { type: 'string', default: '10' },
    seed: { type: 'string', default: '1' },
    life: { type: 'string', default: '240' },
    within: { type: 'string', default: '120' },
    outage: { type: 'string', default: '80' },
    silent: { type: 'boolean', default: false },
    quota: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

/** Mean share of the lifetime after which a certificate is renewed, by the defaults. */
const MEAN_RENEWAL = 0.45
const WINDOW_MS = 10_000

if (options.help) console.log(USAGE)
else await main(planFrom())

function planFrom(): RealPlan {
  const seconds = (text: string) => Number(text) * 1000
  const [lifeMs, startWithinMs, outageMs] = [seconds(options.life), seconds(options.within), seconds(options.outage)]
  const processes = Number(options.processes)
  const needed = (processes * 1000) / (lifeMs * MEAN_RENEWAL)
  // One lifetime in peace, the outage, and what is left in peace again.
  const from = startWithinMs + lifeMs
  const lastsMs = Number(options.minutes) * 60_000
  const isSound = processes >= 1 && processes <= 2_000 && lifeMs >= 20_000 && Number.isInteger(lifeMs / 1000)
  if (!isSound || !(lastsMs >= from + outageMs + WINDOW_MS)) throw new Error(USAGE)
  return {
    processes,
    lifeMs,
    startWithinMs,
    outage: { from, to: from + outageMs, kind: options.silent ? 'silent' : 'sealed' },
    quotaPerSecond: Math.ceil(Number(options.quota ?? 2 * needed)),
    lastsMs,
    seed: Number(options.seed),
  }
}

async function main(plan: RealPlan): Promise<void> {
  const stop = stopOnSignals()
  const onProgress = (line: string) => console.error(`${line}, load average ${loadavg()[0]?.toFixed(1)}`)
  const real = await runFleet(plan, { signal: stop, onProgress })
  const simulated = await simulate(certferry(), {
    ...plan,
    sidecars: plan.processes,
    vault: { signsPerSecond: 740, workers: 2, queue: 4096, quotaPerSecond: plan.quotaPerSecond, outage: plan.outage },
  })
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, ${process.platform} ${arch()}`
  if (options.json) {
    const bare = { certferry: version, node: process.version, machine, plan, real, simulated }
    return console.log(JSON.stringify(bare, (name, value) => (name === 'asked' ? Array.from(value) : value), 2))
  }
  const { renewalMs, memory, audited, otherFailures } = real
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`
  console.log(
    [
      `certferry ${version}, Node ${process.version}, ${machine}; seed ${plan.seed}; ${plan.processes} processes, certificates of ${duration(plan.lifeMs)}, started within ${duration(plan.startWithinMs)}; quota ${plan.quotaPerSecond} a second; Vault ${plan.outage.kind} from ${Math.round(real.outage.from / 1000)} to ${Math.round(real.outage.to / 1000)} s of ${Math.round(plan.lastsMs / 1000)} s`,
      comparison(plan, { real, simulated }),
      `Certificates by Vault's audit log: ${audited}; renewal to the new set on disk: median ${Math.round(renewalMs.median)} ms, worst ${Math.round(renewalMs.worst)} ms; a process at the end, on average: ${megabytes(memory.proportionalBytes)} (shared files divided by their users), of that ${megabytes(memory.anonymousBytes)} anonymous.`,
      `Tries that sent nothing: ${
        Object.entries(otherFailures)
          .map(([why, times]) => `${times} ${why}`)
          .join(', ') || 'none'
      }.`,
    ].join('\n\n'),
  )
}

interface Counted {
  readonly asked: Uint32Array
  readonly account: Account
}

function comparison(
  { outage, startWithinMs, lifeMs, lastsMs }: RealPlan,
  runs: { real: RealRun; simulated: Counted },
): string {
  const both = [runs.real, runs.simulated]
  const row = (title: string, of: (run: Counted) => string) => [title, ...both.map(of)]
  // A busy machine has the last ones start late.
  const calm = { from: startWithinMs + lifeMs / 4, to: outage.from }
  const later = { from: outage.to, to: lastsMs }
  const rates =
    (span: { from: number; to: number }, windowMs = WINDOW_MS) =>
    (run: Counted) =>
      ratesOf(run.asked, span, windowMs)
  const perSecond = (perMinute: number) => (perMinute / 60).toFixed(1)
  return table(
    ['', 'measured', 'simulated'],
    [
      row('certificates issued', ({ account }) => digits(account.issued)),
      row('before the outage: requests a second, mean', (run) => perSecond(rates(calm)(run).mean)),
      row('busiest ten seconds', (run) => perSecond(rates(calm)(run).peak)),
      row('peak / mean (by chance alone)', (run) => {
        const { ratio: found, ratioByChance } = rates(calm)(run)
        return `${ratio(found)} (${ratio(ratioByChance)})`
      }),
      row('in the outage: tries a second, mean', (run) => perSecond(rates(outage, 1000)(run).mean)),
      row('sidecars that failed', ({ account }) => digits(account.failed)),
      row('after it: busiest second', (run) => digits(rates(later, 1000)(run).peak / 60)),
      row('busiest ten seconds', (run) => perSecond(rates(later)(run).peak)),
      row('refused by the quota (429)', ({ account }) => digits(account.limited)),
      row('given up for want of an answer', ({ account }) => digits(account.givenUp)),
      row('all well again after', ({ account }) => duration(Math.max((account.recoveredAt ?? 0) - outage.to, 0))),
      row('expired', ({ account }) => digits(account.expired)),
    ],
  )
}

/** The first signal ends the run, and all it started; a second one leaves that to the system. */
function stopOnSignals(): AbortSignal {
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort(new Error(signal)))
  return stop.signal
}
