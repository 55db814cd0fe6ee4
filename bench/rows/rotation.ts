import { join } from 'node:path'
import type { Certferry } from '../../test/support/certferry.ts'
import { createStage, type Stage } from '../../test/support/stage.ts'
import { until } from '../../test/support/until.ts'
import { likeTheImage } from '../contenders.ts'
import { observe, startPlainNginx, WORKERS } from '../hand-over.ts'
import { inRounds, type Participant, type Results, valuesOf } from '../rounds.ts'
import type { Detail, Row } from '../row.ts'
import { OWN, summaryOf } from '../table.ts'

/** The log lines of one rotation, in order: each ends a step that began with the one before. */
const STEPS = ['rotation.started', 'certificate.issued', 'certificate.written', 'reload.finished', 'certificate.served']
const HAND_OVER = 'hand-over'

interface Rotation {
  /** From the decision to the proof. */
  readonly ms: number
  /** Ms of each step after the first. */
  readonly steps: readonly number[]
  /** From the decision until an observer met the new certificate alone; undefined for a hand-over, where that is `ms`. */
  readonly seenMs?: number
}

export const rotation: Row = {
  name: 'rotation',
  title: 'decision to rotate → proven to be served by a real nginx',
  run: async (bench) => {
    await using plain = await startPlainNginx()
    const { server, dist, volumeIn, size } = bench
    await using stage = await createStage({ vault: server, program: join(dist, 'cli.cjs'), volumeIn })
    await stage.configure(stage.web())
    await using certferry = stage.certferry(likeTheImage(bench.compileCache))
    await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
    await using _nginx = await stage.nginx({ workers: WORKERS })
    await certferry.certificate('web', 'is proven to be served', ({ verified }) => verified === 'verified')
    const participants: Participant<Rotation>[] = [
      { name: OWN, measure: () => rotate(stage, certferry) },
      { name: HAND_OVER, measure: async () => ({ ms: await plain.handOver(), steps: [] }) },
    ]
    const results = await inRounds(participants, size.rotations, bench.progress)
    return {
      figures: [
        {
          title: 'rotation: decision → proven served by nginx',
          unit: 'ms',
          digits: 0,
          values: valuesOf(results, ({ ms }) => ms),
          targets: [{ of: HAND_OVER, plus: 600 }],
        },
        {
          title: 'rotation: decision → an observer meets the new one alone',
          unit: 'ms',
          digits: 0,
          values: valuesOf(results, ({ seenMs }) => seenMs),
          targets: [],
        },
      ],
      details: [stepsOf(results)],
      notes: [
        `A rotation is forced over the control socket, with Vault, approle login and an nginx of ${WORKERS} workers; its times are those of certferry's log. Hand-over is what nginx needs by itself, in the same rounds: from SIGHUP until an observer, who connects without pause as during the rotations, meets only the new certificate. Vault Agent and consul-template prove nothing, so there is nothing to compare.`,
      ],
    }
  },
}

async function rotate({ port }: Stage, certferry: Certferry): Promise<Rotation> {
  const seen = certferry.log().length
  const lines = () => certferry.log().slice(seen)
  const { overAt } = await observe(port, async () => {
    const { results } = await certferry.control.rotate({ certificates: ['web'], wait: true })
    if (results.some(({ ok }) => !ok)) throw new Error(`a rotation failed: ${JSON.stringify(results)}`)
  })
  await until('the log tells of it', () => lines().some(({ event }) => event === STEPS.at(-1)))
  const times = STEPS.map((step) => Date.parse(lines().find(({ event }) => event === step)?.time ?? ''))
  const [startedAt = Number.NaN, ...ends] = times
  return {
    ms: (ends.at(-1) ?? Number.NaN) - startedAt,
    steps: ends.map((end, index) => end - (times[index] ?? Number.NaN)),
    seenMs: performance.timeOrigin + overAt - startedAt,
  }
}

function stepsOf(results: Results<Rotation>): Detail {
  const rotations = results.get(OWN) ?? []
  const lines = STEPS.slice(1).map((step, index) => {
    const { median, min, max } = summaryOf(rotations.map(({ steps }) => steps[index] ?? Number.NaN))
    return [`… ${step}`, ...[median, min, max].map(String)]
  })
  return { title: 'Where the time of a rotation goes, by its log', head: ['until', 'ms', 'least', 'most'], lines }
}
