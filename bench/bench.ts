import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { cpus, release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type ComponentName, component } from '../test/support/components.ts'
import { startVault } from '../test/support/vault.ts'
import { type Contender, certferry, consulTemplate, vaultAgent } from './contenders.ts'
import { measure, type Run } from './measure.ts'
import { type Row, renderTable, summaryOf } from './table.ts'

const USAGE = `npm run bench [-- --runs N] [--certificates N] [--json]
Compares certferry with Vault Agent and consul-template on one real Vault: time to the first certificate, time to many, memory.`
const ROOT = join(import.meta.dirname, '..')
const ROLE = 'bench'
const POLICY = `path "pki/issue/${ROLE}" { capabilities = ["update"] }\npath "pki/sign/${ROLE}" { capabilities = ["update"] }`
const SETTLE_MS = 5_000
const MEGABYTE = 1e6

const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '7' },
    certificates: { type: 'string', default: '100' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})

if (options.help) console.log(USAGE)
else await main(Number(options.runs), Number(options.certificates))

async function main(runs: number, certificates: number) {
  if (!(runs >= 1 && runs <= 100 && certificates >= 1 && certificates <= 1000)) throw new Error(USAGE)
  const build = spawnSync(process.execPath, [join(ROOT, 'tools/build.ts')], { cwd: ROOT, stdio: ['ignore', 2, 2] })
  if (build.status !== 0) throw new Error('the bundle does not build')
  const compileCache = await mkdtemp(join(tmpdir(), 'certferry-bench-cache-'))
  try {
    const vaultProgram = await component('vault')
    const contenders = [
      certferry(process.execPath, join(ROOT, 'dist/cli.cjs'), compileCache),
      vaultAgent(vaultProgram),
      await unlessMissing('consul-template', consulTemplate),
    ]
    await using server = await startVault()
    await server.setupPki({ roles: { [ROLE]: { allow_any_name: true, key_type: 'ec', key_bits: 256, ttl: '720h' } } })
    const token = await server.createToken({ policy: POLICY, body: { period: '24h' } })
    const vault = { address: server.address, token }
    const results = await runAll(contenders, { vault, role: ROLE, runs, certificates })
    report(contenders, rowsOf(results, certificates), { runs, results })
  } finally {
    rmSync(compileCache, { recursive: true, force: true })
  }
}

type Present = Contender | undefined

async function unlessMissing(name: ComponentName, create: (program: string) => Contender): Promise<Present> {
  try {
    return create(await component(name))
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    return undefined
  }
}

interface Series {
  readonly one: Run[]
  readonly many: Run[]
}

interface Plan extends Pick<Parameters<typeof measure>[1], 'vault' | 'role'> {
  readonly runs: number
  readonly certificates: number
}

/** Turn by turn, each round starting with another contender, so that a change in the machine's load meets all of them. Round 0 warms up. */
async function runAll(contenders: readonly Present[], { vault, role, runs, certificates }: Plan): Promise<Series[]> {
  const results = contenders.map((): Series => ({ one: [], many: [] }))
  for (let round = 0; round <= runs; round += 1) {
    for (let turn = 0; turn < contenders.length; turn += 1) {
      const index = (round + turn) % contenders.length
      const contender = contenders[index]
      if (!contender) continue
      console.error(round === 0 ? `warm-up: ${contender.name}` : `round ${round} of ${runs}: ${contender.name}`)
      const one = await measure(contender, { vault, role, certificates: 1, settleMs: SETTLE_MS })
      const many = await measure(contender, { vault, role, certificates, settleMs: SETTLE_MS })
      if (round === 0) continue
      results[index]?.one.push(one)
      results[index]?.many.push(many)
    }
  }
  return results
}

function rowsOf(results: readonly Series[], certificates: number): Row[] {
  const row = (title: string, unit: string, digits: number, pick: (series: Series) => number[]): Row => ({
    title,
    unit,
    digits,
    cells: results.map((series) => (series.one.length > 0 ? summaryOf(pick(series)) : undefined)),
  })
  const times = (runs: readonly Run[], unitMs: number) => runs.map(({ readyMs }) => readyMs / unitMs)
  const memory = (runs: readonly Run[], part: 'residentBytes' | 'anonymousBytes') =>
    runs.flatMap((run) => (run.memory ? [run.memory[part] / MEGABYTE] : []))
  return [
    row('start to 1 certificate', 'ms', 0, ({ one }) => times(one, 1)),
    row(`start to ${certificates} certificates`, 's', 2, ({ many }) => times(many, 1000)),
    row('1 certificate: resident', 'MB', 1, ({ one }) => memory(one, 'residentBytes')),
    row('1 certificate: anonymous', 'MB', 1, ({ one }) => memory(one, 'anonymousBytes')),
    row(`${certificates} certificates: resident`, 'MB', 1, ({ many }) => memory(many, 'residentBytes')),
    row(`${certificates} certificates: anonymous`, 'MB', 1, ({ many }) => memory(many, 'anonymousBytes')),
  ]
}

function report(
  contenders: readonly Present[],
  rows: readonly Row[],
  { runs, results }: { runs: number; results: readonly Series[] },
) {
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, Linux ${release()}, ${process.arch}`
  const columns = contenders.map((contender) =>
    contender ? `${contender.name} ${contender.version}` : 'consul-template',
  )
  if (options.json)
    return console.log(JSON.stringify({ machine, node: process.version, runs, columns, rows, results }, null, 2))
  console.log(
    `\n${machine}; Node ${process.version}; ${runs} runs each, taken in turn: median (least–most) ×ratio to certferry\n`,
  )
  console.log(renderTable(columns, rows))
  console.log(
    `\nA certificate counts when tls.crt and tls.key exist, parse and match; ECDSA P-256 keys, all files in ${tmpdir()}; one Vault with an intermediate CA and its audit log on.` +
      `\ncertferry makes keys itself, has Vault sign them and syncs what it writes to the disk; the others have Vault make the keys and do not sync. certferry runs with the settings of the Dockerfile.` +
      `\nMemory is read from smaps_rollup ${SETTLE_MS / 1000} s after the last certificate; resident includes the file-backed program itself.`,
  )
}
