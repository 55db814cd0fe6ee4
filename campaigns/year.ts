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

if (options.help) console.log(USAGE)
else for (let seed = Number(options.seed); seed < Number(options.seed) + Number(options.seeds); seed++) await live(seed)

async function live(seed: number): Promise<void> {
  const startedAt = performance.now()
  const year = await liveThrough({
    lifeMs: Number(options.hours) * HOUR,
    days: Number(options.days),
    random: randomFrom(seed),
    lateMs: 0,
  })
  const seconds = Math.round((performance.now() - startedAt) / 1000)
  console.log(JSON.stringify({ seed, seconds, ...year }, undefined, 1))
  if (year.complaints.length > 0 || year.issued > year.mostIssued) process.exitCode = 1
}
