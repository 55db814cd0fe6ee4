import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { startVault } from '../test/support/vault.ts'
import { bundleCli } from '../tools/build.ts'
import { crashLoop } from './crash-loop.ts'
import { certferryJobs, inTurn, killTable, peerJobs } from './kill-jobs.ts'

const USAGE = `npm run campaign:kills [-- --count N] [--seed S] [--peers N] [--at-once N]
Kills certferry with SIGKILL at N random moments (300, shared out among the layouts), and with --peers also Vault Agent and
consul-template, N times each. Says what a reader found on disk after each kill, before and after the next start, and what was issued.
Exits with 1 when certferry does not keep what it promises. The same seed draws the same moments.`

let killed = 0

const { values: options } = parseArgs({
  options: {
    count: { type: 'string', default: '300' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    peers: { type: 'string', default: '0' },
    'at-once': { type: 'string', default: '3' },
    help: { type: 'boolean', default: false },
  },
})

// So that what runs for us ends with us.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))

if (options.help) console.log(USAGE)
else await main(Number(options.count), Number(options.seed), Number(options.peers), Number(options['at-once']))

async function main(count: number, seed: number, peers: number, atOnce: number) {
  if (![count, seed, peers].every((number) => Number.isInteger(number) && number >= 0) || !(atOnce >= 1))
    throw new Error(USAGE)
  console.log(`seed ${seed}`)
  const programs = mkdtempSync(join(tmpdir(), 'certferry-campaign-'))
  try {
    await using vault = await startVault()
    await vault.setupPki()
    await bundleCli(programs)
    const program = join(programs, 'cli.cjs')
    const runs = await inTurn(
      [
        ...certferryJobs({ count, seed, vault, program, onKill }),
        ...(await peerJobs({ count: peers, seed, vault, onKill })),
      ],
      atOnce,
    )
    console.log(killTable(runs))
    const complaints = runs.flatMap((run) => run.complaints)
    if (count > 0) {
      const { starts, asked, issued } = await crashLoop(20, { vault, program })
      console.log(
        `\n${starts} starts on an empty volume, each killed before the answer: ${asked} asked, ${issued} issued (budget: 5)`,
      )
      if (issued > 5) complaints.push(`the crash loop issued ${issued}`)
    }
    for (const complaint of complaints) console.log(complaint)
    if (complaints.length > 0) process.exitCode = 1
  } finally {
    rmSync(programs, { recursive: true, force: true })
  }
}

function onKill() {
  killed += 1
  if (killed % 10 === 0) console.error(`${killed} kills`)
}
