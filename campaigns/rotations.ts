import { parseArgs } from 'node:util'
import { createStage } from '../test/support/stage.ts'
import { startVault } from '../test/support/vault.ts'
import { type RotationRun, rotateUnderLoad } from './rotate.ts'

const USAGE = `npm run campaign:rotations [-- --count N] [--clients N]
Rotates a certificate N times (100) in layouts nginx-include and generation, under a real nginx with 2 workers, while clients (3) open
TLS connections without pause. Prints a table; exits with 1 when anything is not as promised.`

const { values: options } = parseArgs({
  options: {
    count: { type: 'string', default: '100' },
    clients: { type: 'string', default: '3' },
    help: { type: 'boolean', default: false },
  },
})

// So that what runs for us ends with us.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))

if (options.help) console.log(USAGE)
else await main(Number(options.count), Number(options.clients))

async function main(count: number, clients: number) {
  if (!(count >= 1 && count <= 10_000 && clients >= 1 && clients <= 50)) throw new Error(USAGE)
  await using vault = await startVault()
  await vault.setupPki()
  const runs: RotationRun[] = []
  for (const layout of ['nginx-include', 'generation'] as const) {
    await using stage = await createStage({ vault })
    const onRotation = (done: number) => {
      if (done % 10 === 0) console.error(`${layout}: ${done} of ${count}`)
    }
    runs.push(await rotateUnderLoad(stage, { count, layout, clients, onRotation }))
  }
  console.log(tableOf(runs))
  for (const { layout, complaints } of runs) for (const complaint of complaints) console.log(`${layout}: ${complaint}`)
  if (runs.some(({ complaints }) => complaints.length > 0)) process.exitCode = 1
}

function tableOf(runs: readonly RotationRun[]): string {
  const rows = runs.map((run) => [
    run.layout,
    run.rotations,
    run.issued,
    run.handshakes,
    run.failed,
    `${Math.round(run.slowestMs)} ms`,
    run.pairsRead,
    run.mismatched,
    `${Math.round(run.medianMs)} / ${Math.round(run.longestMs)} ms`,
  ])
  const head = [
    'layout',
    'rotations, verified',
    'issued',
    'handshakes',
    'failed',
    'slowest',
    'pairs read',
    'mismatched',
  ]
  return [[...head, 'request to proof, median / longest'], head.concat('').map(() => '---'), ...rows]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}
