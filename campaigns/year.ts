import { parseArgs } from 'node:util'
import { HOUR, liveThrough } from '../test/support/year.ts'
import { randomFrom } from './kill-run.ts'

const USAGE = `npm run campaign:year [-- --seeds N] [--seed S] [--days N] [--hours H]
The real loop on a fake clock through N seeds of N days (365), with certificates of H hours (24): stepped clocks, suspends, outages of
Vault, full disks, targets that are down or refuse, restarts. Exits with 1 when something is not as promised.`

const { values: options } = parseArgs({
  options: {
    seeds: { type: 'string', default: '3' },
    seed: { type: 'string', default: '1' },
    days: { type: 'string', default: '365' },
    hours: { type: 'string', default: '24' },
    help: { type: 'boolean', default: false },
  },
})

const COLUMNS = [
  'seed',
  'issued / most allowed',
  'expired in service',
  'undisturbed renewals, after halves of a life',
  'met',
]

if (options.help) console.log(USAGE)
else await main()

async function main(): Promise<void> {
  console.log(row(COLUMNS))
  console.log(row(COLUMNS.map(() => '---')))
  for (let seed = Number(options.seed); seed < Number(options.seed) + Number(options.seeds); seed++) await live(seed)
}

async function live(seed: number): Promise<void> {
  const lifeMs = Number(options.hours) * HOUR
  const year = await liveThrough({ lifeMs, days: Number(options.days), random: randomFrom(seed), lateMs: 0 })
  const { count, least, most } = year.intervals
  const met = Object.entries(year.troubles)
    .map(([what, times]) => `${times} ${what}`)
    .sort()
    .join(', ')
  const renewals = `${count}, ${least.toFixed(3)} to ${most.toFixed(3)}`
  console.log(row([seed, `${year.issued} / ${year.mostIssued}`, year.expired, renewals, met]))
  for (const complaint of year.complaints) console.log(complaint)
  if (year.complaints.length > 0 || year.issued > year.mostIssued) process.exitCode = 1
}

function row(cells: readonly unknown[]): string {
  return `| ${cells.join(' | ')} |`
}
