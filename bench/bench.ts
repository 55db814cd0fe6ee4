import { tmpdir } from 'node:os'
import { parseArgs } from 'node:util'
import { writeDocs } from './docs.ts'
import { describeRun } from './machine.ts'
import { type RowReport, renderReport, toJson } from './report.ts'
import type { Bench, Row, Size } from './row.ts'
import { rows } from './rows/index.ts'
import { createStand, type Stand } from './stand.ts'

const USAGE = `npm run bench                      all rows, in about 40 minutes on two cores
npm run bench -- --quick           few rounds, fewer certificates, no fleet: a minute or two, to see whether anything is far off
npm run bench -- --only ROW        one row, or several with commas: ${rows.map(({ name }) => name).join(', ')}

Measures certferry, Vault Agent and consul-template in turn, on one real Vault, and prints one table: medians with their range, how many
times of each peer's certferry needs, the target, and by how much it is met or missed. Progress is on stderr.

  --rounds N          interleaved rounds of what takes a second (15)
  --many N            certificates of the first delivery of many (1000), and --many-rounds N (5)
  --rotations N       forced rotations of a real nginx (15)
  --idle-minutes N    how long idleness is watched (10)
  --settle N          seconds without work before memory is read (10)
  --fleet N           certificates of the fleet (10000); 0 leaves it out
  --volume DIR        where certificates are written (${tmpdir()}); on a disk every sync of certferry costs what it costs there
  --json              the same as data, with every run, on stdout
  --write-docs        puts the tables into docs/performance.md as well

${rows.map(({ name, title }) => `  ${name.padEnd(10)} ${title}`).join('\n')}`

const FULL: Size = {
  rounds: 15,
  many: 1000,
  manyRounds: 5,
  rotations: 15,
  settleMs: 10_000,
  idleMinutes: 10,
  fleet: 10_000,
}
const QUICK: Size = {
  rounds: 3,
  many: 100,
  manyRounds: 2,
  rotations: 3,
  settleMs: 3_000,
  idleMinutes: 0.25,
  fleet: 0,
}

const options = readOptions()
if (!options) process.exitCode = 64
else if (options.help) console.log(USAGE)
else await main(options)

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        quick: { type: 'boolean', default: false },
        only: { type: 'string' },
        rounds: { type: 'string' },
        many: { type: 'string' },
        'many-rounds': { type: 'string' },
        rotations: { type: 'string' },
        settle: { type: 'string' },
        'idle-minutes': { type: 'string' },
        fleet: { type: 'string' },
        volume: { type: 'string', default: tmpdir() },
        json: { type: 'boolean', default: false },
        'write-docs': { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    })
    if (values['write-docs'] && (values.quick || values.only !== undefined))
      throw new Error('docs/performance.md shows a full run: --write-docs goes neither with --quick nor with --only')
    const usual = values.quick ? QUICK : FULL
    const size: Size = {
      rounds: count(values.rounds, usual.rounds),
      many: count(values.many, usual.many),
      manyRounds: count(values['many-rounds'], usual.manyRounds),
      rotations: count(values.rotations, usual.rotations),
      settleMs: 1000 * amount(values.settle, usual.settleMs / 1000),
      idleMinutes: amount(values['idle-minutes'], usual.idleMinutes),
      fleet: count(values.fleet, usual.fleet),
    }
    return { ...values, size, rows: chosen(values.only) }
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${USAGE}`)
    return undefined
  }
}

type Options = NonNullable<ReturnType<typeof readOptions>>

function amount(text: string | undefined, usual: number): number {
  const value = text === undefined ? usual : Number(text)
  if (!(value >= 0 && value <= 100_000)) throw new Error(`${text} is not a number from 0 to 100000`)
  return value
}

function count(text: string | undefined, usual: number): number {
  const value = amount(text, usual)
  if (!Number.isInteger(value)) throw new Error(`${text} is not a whole number`)
  return value
}

function chosen(only: string | undefined): Row[] {
  const names = only?.split(',')
  const unknown = names?.find((name) => !rows.some((row) => row.name === name))
  if (unknown !== undefined) throw new Error(`there is no row ${unknown}`)
  return rows.filter(({ name }) => names?.includes(name) ?? true)
}

async function main(options: Options) {
  // So that what was started is ended as well: each has an `exit` hook.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  const startedAt = performance.now()
  const progress = (text: string) =>
    console.error(`${Math.round((performance.now() - startedAt) / 1000)} s`.padStart(7), text)
  await using stand = await createStand({ size: options.size, volumeIn: options.volume, progress })
  for (const { name, why } of stand.absent) progress(`${name} is absent: ${why}`)
  const reports: RowReport[] = []
  for (const row of options.rows) reports.push(await runRow(row, stand))
  const run = { ...(await describeRun(stand)), absent: stand.absent, reports }
  console.log(options.json ? JSON.stringify(toJson(run), null, 2) : `\n${renderReport(run)}`)
  if (options['write-docs']) writeDocs(renderReport(run))
  if (reports.some(({ failure }) => failure !== undefined)) process.exitCode = 1
}

/** One that fails is told of, and does not take the others with it. */
async function runRow({ name, title, run }: Row, stand: Stand): Promise<RowReport> {
  const progress: Bench['progress'] = (text) => stand.progress(`${name}: ${text}`)
  const startedAt = performance.now()
  const findings = await run({ ...stand, progress }).catch((error: unknown) => {
    const failure = error instanceof Error ? error.message : String(error)
    progress(`FAILED: ${failure}`)
    return { figures: [], failure }
  })
  return { name, title, seconds: (performance.now() - startedAt) / 1000, ...findings }
}
