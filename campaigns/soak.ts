import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { bundleCli } from '../tools/build.ts'
import type { Part } from './soak-renewals.ts'
import { type SoakRun, soak } from './soak-run.ts'
import type { Growth } from './soak-verdict.ts'

const USAGE = `npm run soak -- --minutes N [--certificates 50] [--seed S]
Keeps certificates of 60 s fresh for N minutes (20), after a warm-up of 30 rotations of each: one certferry, all of them served by one
nginx, and Vault killed and started again every few minutes. Tests what certferry holds for growth, the times of renewal for drift, and
what clients are served. Prints tables, also on Ctrl-C; exits with 1 when anything is not as promised.`

const { values: options } = parseArgs({
  options: {
    minutes: { type: 'string', default: '20' },
    certificates: { type: 'string', default: '50' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    help: { type: 'boolean', default: false },
  },
})

if (options.help) console.log(USAGE)
else await main(Number(options.minutes), Number(options.certificates), Number(options.seed))

async function main(minutes: number, certificates: number, seed: number) {
  if (!(minutes > 0 && Number.isInteger(certificates) && certificates >= 1 && certificates <= 500 && seed >= 0))
    throw new Error(USAGE)
  const stop = stopOnSignals()
  const programs = mkdtempSync(join(tmpdir(), 'certferry-campaign-'))
  process.once('exit', () => rmSync(programs, { recursive: true, force: true }))
  console.log(`seed ${seed}, ${certificates} certificates, Node ${process.version}, ${cpus().length} processors`)
  await bundleCli(programs)
  const onProgress = (line: string) => console.error(`${line}, load average ${loadavg()[0]?.toFixed(1)}`)
  const run = await soak({ program: join(programs, 'cli.cjs'), certificates, minutes, seed, stop, onProgress })
  console.log(`\n${growthTable(run)}\n\n${renewalTable(run)}\n\n${outcomeTable(run)}\n`)
  for (const complaint of run.complaints) console.log(complaint)
  if (run.complaints.length > 0) process.exitCode = 1
}

/** The first signal ends the run early; one that comes later than a shell and npm pass on the same one ends it at once. */
function stopOnSignals(): AbortSignal {
  const stop = new AbortController()
  let first: number | undefined
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      first ??= performance.now()
      if (performance.now() - first > 2_000) process.exit(130)
      stop.abort(new Error(signal))
    })
  return stop.signal
}

function growthTable({ growth, measuredMinutes }: SoakRun): string {
  if (growth.length === 0) return 'Too short a run to tell a slope.'
  const rows = growth.map(({ name, unit, first, last, slope, mostPerRotation, isFlat }: Growth) => [
    unit === '' ? name : `${name}, ${unit}`,
    figure(first),
    figure(last),
    `${figure(slope.perHour)} [${figure(slope.low)}, ${figure(slope.high)}]`,
    unit === '' ? mostPerRotation.toFixed(4) : `${Math.round(mostPerRotation)} B`,
    isFlat ? 'yes' : 'NO',
  ])
  const title = `the last ${measuredMinutes.toFixed(1)} min`
  return table([[title, 'first', 'last', 'slope an hour [95 %]', 'a rotation, at most', 'flat'], ...rows])
}

function renewalTable({ renewals: { first, last, least, greatest, disturbed } }: SoakRun): string {
  if (!Number.isFinite(least)) return 'Too short a run to tell how renewals drift.'
  const row = (title: string, { renewals, ratio, error, lateMs }: Part) => [
    title,
    renewals,
    `${ratio.toFixed(4)} ± ${error.toFixed(4)}`,
    `${Math.round(lateMs.median)} / ${Math.round(lateMs.worst)} ms`,
  ]
  const head = ['renewals', 'count', 'mean share of the lifetime', 'begun after due, median / worst']
  const range = `least ${least.toFixed(3)}, greatest ${greatest.toFixed(3)}; left out, as a try failed: ${disturbed}`
  return `${table([head, row('first third', first), row('last third', last)])}\n\n${range}`
}

function outcomeTable(run: SoakRun): string {
  const failures = Object.entries(run.failures).map(([reason, count]) => `${count} ${reason}`)
  return table([
    ['outcome', ''],
    ['minutes', run.minutes.toFixed(1)],
    ['rotations, proven', run.rotations],
    ['tries that failed', failures.join(', ') || 'none'],
    ['restarts of Vault, seconds away', `${run.restarts}, ${run.awaySeconds.toFixed(0)}`],
    ['issued, written, by the rule', `${run.issued}, ${run.written}, ${run.expected.join(' to ')}`],
    ['reloads of nginx', run.reloads],
    [
      'handshakes, failed, expired, slowest',
      `${run.handshakes}, ${run.failed}, ${run.expiredServed}, ${Math.round(run.slowestMs)} ms`,
    ],
    ['pairs read, mismatched', `${run.pairsRead}, ${run.mismatched}`],
    ['certferry, share of a processor', `${(100 * run.cpu).toFixed(0)} %`],
  ])
}

function figure(value: number): string {
  return Number.isInteger(value) ? String(value) : value.toFixed(2)
}

function table([head = [], ...rows]: readonly (readonly (string | number)[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}
