import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Contender } from '../contenders.ts'
import { launch } from '../launch.ts'
import { inRounds, type Participant, valuesOf } from '../rounds.ts'
import type { Bench, Row } from '../row.ts'

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
          values: valuesOf(results, (ms) => ms),
          targets: [
            { of: 'Vault Agent', times: 1.25 },
            { of: 'Vault Agent', times: 1, isStretch: true },
          ],
        },
      ],
      notes: [
        'Cold start is from the start of the process until certificate and key exist, files of programs in the page cache; that they match is checked after the clock stopped. Bare node is `node -e 0` until it has ended.',
      ],
    }
  },
}

const firstSet = (contender: Contender, bench: Bench): Participant<number> => ({
  name: contender.name,
  measure: async () => {
    await using running = await launch(contender, bench)
    return await running.delivered()
  },
})

const bareNode: Participant<number> = {
  name: 'bare node',
  measure: async () => {
    const started = performance.now()
    await once(spawn(process.execPath, ['-e', '0'], { env: {}, stdio: 'ignore' }), 'exit')
    return performance.now() - started
  },
}
