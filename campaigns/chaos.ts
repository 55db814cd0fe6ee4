import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { startVault } from '../test/support/vault.ts'
import { bundleCli } from '../tools/build.ts'
import { chaosTables, figuresLine, violationsOf } from './chaos/report.ts'
import { runChaos } from './chaos/run.ts'
import { createStory } from './chaos/story.ts'
import { certferryJobs, inTurn, killTable, peerJobs } from './kill-jobs.ts'

const USAGE = `npm run campaign:chaos [-- --minutes N] [--seed S] [--sidecars K] [--storm SECONDS] [--peers N]
Disturbs Vault, volume, clock, nginx and certferry itself at random, in storms of up to 30 s, for 15 minutes, with 3 sidecars, while an
observer in a process of its own connects without pause and reads the pairs on disk. After each storm everything has to come back by
itself. The same seed draws the same faults at the same times. With --peers, certferry, Vault Agent and consul-template are also killed
N times each. Exits with 1 at the first thing that is not as promised, and says where the logs are.`

const { values: options } = parseArgs({
  options: {
    minutes: { type: 'string', default: '15' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    sidecars: { type: 'string', default: '3' },
    storm: { type: 'string', default: '30' },
    peers: { type: 'string', default: '0' },
    /** Set by ourselves, once volumes can be mounted: where logs and timeline go. */
    inside: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
const minutes = Number(options.minutes)
const seed = Number(options.seed)
const sidecars = Number(options.sidecars)
const storm = Number(options.storm)
const peers = Number(options.peers)

if (options.help) console.log(USAGE)
else if (![minutes, seed, sidecars, storm, peers].every((number) => number >= 0) || sidecars < 1 || storm < 5) {
  console.error(USAGE)
  process.exitCode = 64
} else if (options.inside !== undefined) await main(options.inside)
else await runInside()

/**
 * Again, in a mount namespace of its own, where volumes can be mounted that nobody else sees; without root also in a user namespace. All
 * its files are in one folder, so that nothing is left of it, however it ends.
 */
async function runInside() {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-chaos-'))
  const how = process.getuid?.() === 0 ? '-m' : '-Urm'
  const self = [process.execPath, fileURLToPath(import.meta.url), ...process.argv.slice(2)]
  const child = spawn('unshare', [how, ...self, '--seed', String(seed), '--inside', folder], {
    stdio: 'inherit',
    env: { ...process.env, TMPDIR: folder },
  })
  // A terminal tells both; whoever sends a signal to us alone means it too.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill('SIGTERM'))
  const [code] = await once(child, 'exit')
  process.exitCode = typeof code === 'number' ? code : 1
  if (code === 1) console.log(`Logs and timeline are in ${folder}`)
  else rmSync(folder, { recursive: true, force: true })
}

async function main(folder: string) {
  // So that what runs for us ends with us: each of many has a listener for that.
  process.setMaxListeners(100)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  const command = `npm run campaign:chaos -- --minutes ${minutes} --seed ${seed} --sidecars ${sidecars} --storm ${storm}`
  console.log(command)
  const story = createStory(folder)
  await using vault = await startVault()
  await vault.setupPki()
  await bundleCli(join(folder, 'program'))
  const program = join(folder, 'program', 'cli.cjs')
  const plan = { minutes, seed, sidecars, stormSeconds: storm, vault, program, story }
  const run = await runChaos({ ...plan, onRound: (line) => console.error(line) })
  const jobs = { count: peers, seed, vault, onKill: () => {} }
  const kills = peers > 0 ? await inTurn([...certferryJobs({ ...jobs, program }), ...(await peerJobs(jobs))], 3) : []
  console.log(`\n${chaosTables(run)}`)
  if (kills.length > 0) console.log(`\n${killTable(kills)}`)
  console.log(`\n${figuresLine(run, kills)}`)
  const complaints = kills.flatMap((one) => one.complaints)
  for (const complaint of complaints) console.log(complaint)
  if (run.violations.length > 0) {
    console.log(violationsOf(run, story))
    console.log(`\nAgain: ${command}`)
  }
  if (run.violations.length + complaints.length > 0) process.exitCode = 1
}
