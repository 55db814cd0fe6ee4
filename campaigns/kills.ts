import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { LAYOUTS } from '../src/outputs/output.ts'
import { startVault, type TestVault } from '../test/support/vault.ts'
import { bundleCli } from '../tools/build.ts'
import { crashLoop } from './crash-loop.ts'
import { killCertferry } from './kill.ts'
import type { KillRun } from './kill-run.ts'
import { consulTemplate, killPeer, vaultAgent } from './peers.ts'

const USAGE = `npm run campaign:kills [-- --count N] [--seed S] [--peers N] [--at-once N]
Kills certferry with SIGKILL at N random moments (300, shared out among the layouts), and with --peers also Vault Agent and
consul-template, N times each. Says what a reader found on disk after each kill, before and after the next start, and what was issued.
Exits with 1 when certferry does not keep what it promises. The same seed draws the same moments.`

const COLUMNS = [
  ['kills', 'kills'],
  ['old', 'old set'],
  ['new', 'new set'],
  ['mixed', 'mixed or torn pair'],
  ['halfDone', 'half-done work found'],
  ['mixedLater', 'mixed after the next start'],
  ['issued', 'issued'],
  ['extra', 'issued unasked'],
] as const

/** Kills of one job: a row is made of several, so that they can run side by side. */
const SHARE = 25
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

type Job = () => Promise<KillRun>

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
      [...certferryJobs({ count, seed, vault, program }), ...(await peerJobs(peers, seed, vault))],
      atOnce,
    )
    console.log(tableOf(runs))
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

function certferryJobs({
  count,
  seed,
  vault,
  program,
}: {
  count: number
  seed: number
  vault: TestVault
  program: string
}): Job[] {
  return LAYOUTS.flatMap((layout, index) => {
    const kills = Math.floor(count / LAYOUTS.length) + (index < count % LAYOUTS.length ? 1 : 0)
    return shares(kills).map((share, part) => () => {
      const plan = { layout, kills: share, seed: seed + index * 1000 + part, vault, program, onKill }
      return killCertferry(plan)
    })
  })
}

async function peerJobs(count: number, seed: number, vault: TestVault): Promise<Job[]> {
  if (count === 0) return []
  const jobs: Job[] = []
  for (const [index, peer] of [vaultAgent, consulTemplate].entries()) {
    try {
      await peer.find()
    } catch (error) {
      console.log(`${peer.name} is absent: ${error instanceof Error ? error.message : error}`)
      continue
    }
    for (const [part, kills] of shares(count).entries())
      jobs.push(() => killPeer(peer, vault, { kills, seed: seed + 10_000 * (index + 1) + part, onKill }))
  }
  return jobs
}

function shares(count: number): number[] {
  return Array.from({ length: Math.ceil(count / SHARE) }, (_, part) => Math.min(SHARE, count - part * SHARE))
}

function onKill() {
  killed += 1
  if (killed % 10 === 0) console.error(`${killed} kills`)
}

/** One by one for each of so many workers; what comes out is in the order of the jobs. */
async function inTurn(jobs: readonly Job[], atOnce: number): Promise<KillRun[]> {
  const queue = jobs.entries()
  const runs = new Map<number, KillRun>()
  const work = async () => {
    for (const [index, job] of queue) runs.set(index, await job())
  }
  await Promise.all(Array.from({ length: atOnce }, work))
  return jobs.flatMap((_, index) => runs.get(index) ?? [])
}

/** One row for each subject, which may be of several runs. */
function tableOf(runs: readonly KillRun[]): string {
  const rows = [...Map.groupBy(runs, ({ subject }) => subject)].map(([subject, group]) => [
    subject,
    ...COLUMNS.map(([column]) => sumOf(group.map((run) => run[column]))),
  ])
  const head = ['program', ...COLUMNS.map(([, title]) => title)]
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

function sumOf(numbers: readonly (number | undefined)[]): string {
  if (numbers.includes(undefined)) return '–'
  return String(numbers.reduce<number>((total, number = 0) => total + number, 0))
}
