import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Contender } from '../contenders.ts'
import { launch } from '../launch.ts'
import { inRounds, type Participant, type Results, valuesOf } from '../rounds.ts'
import type { Bench, Detail, Row } from '../row.ts'
import { OWN, summaryOf } from '../table.ts'

const STEPS = ['sidecar.started', 'rotation.started', 'certificate.issued']

interface Start {
  readonly ms: number
  /** Ms from the start to each of `STEPS`, by the log of certferry. */
  readonly steps: readonly number[]
}

export const coldStart: Row = {
  name: 'start',
  title: 'cold start, one certificate',
  run: async (bench) => {
    const participants = [...bench.contenders.map((contender) => firstSet(contender, bench)), bareNode]
    const results = await inRounds(participants, bench.size.rounds, bench.progress)
    return {
      figures: [
        {
          title: 'cold start → first set on disk',
          unit: 'ms',
          digits: 0,
          values: valuesOf(results, ({ ms }) => ms),
          targets: [
            { of: 'Vault Agent', times: 1.25 },
            { of: 'Vault Agent', times: 1, isStretch: true },
          ],
        },
      ],
      details: [stepsOf(results)],
      notes: [
        'Cold start is from the start of the process until certificate and key exist, files of programs in the page cache; that they match is checked after the clock stopped. Bare node is `node -e 0` until it has ended.',
      ],
    }
  },
}

const firstSet = (contender: Contender, bench: Bench): Participant<Start> => ({
  name: contender.name,
  measure: async () => {
    await using running = await launch(contender, bench)
    const ms = await running.delivered()
    return { ms, steps: STEPS.map((event) => timeOf(event, running.log()) - running.startedAt) }
  },
})

const bareNode: Participant<Start> = {
  name: 'bare node',
  measure: async () => {
    const started = performance.now()
    await once(spawn(process.execPath, ['-e', '0'], { env: {}, stdio: 'ignore' }), 'exit')
    return { ms: performance.now() - started, steps: [] }
  },
}

/** NaN where it was not logged. */
const timeOf = (event: string, log: string) =>
  Date.parse(new RegExp(`"time":"([^"]+)","event":"${event}"`).exec(log)?.[1] ?? '')

/** What certferry had done by when; what it logs later than its first set is left out. */
function stepsOf(results: Results<Start>): Detail {
  const starts = results.get(OWN) ?? []
  const line = (step: string, times: readonly number[]) => {
    const { median, min, max } = summaryOf(times)
    return [step, ...[median, min, max].map((ms) => ms.toFixed(0))]
  }
  const steps = STEPS.map((event, index) => ({ event, times: starts.map(({ steps }) => steps[index] ?? Number.NaN) }))
  return {
    title: 'A cold start of certferry by its log, counted from the start of the process',
    head: ['until', 'ms', 'least', 'most'],
    lines: [
      ...steps.filter(({ times }) => times.every(Number.isFinite)).map(({ event, times }) => line(event, times)),
      line(
        'on disk',
        starts.map(({ ms }) => ms),
      ),
    ],
  }
}
