import { setTimeout as sleep } from 'node:timers/promises'
import type { Contender } from '../contenders.ts'
import { launch } from '../launch.ts'
import { type Memory, memoryOf } from '../proc.ts'
import { inRounds, type Participant, valuesOf } from '../rounds.ts'
import { type Bench, MEGABYTE, type Row } from '../row.ts'

interface Delivery {
  readonly ms: number
  readonly memory: Memory
}

export const secrets: Row = {
  name: 'secrets',
  title: 'first delivery of many secrets and certificates',
  run: async (bench) => {
    const { many, manyRounds } = bench.size
    const half = Math.floor(many / 2)
    await fill(half, bench)
    const participants = bench.contenders.map((contender) => deliver(contender, half, bench))
    const results = await inRounds<Delivery>(participants, manyRounds, bench.progress)
    const title = `${half} secrets and ${half} certificates`
    const memory = (what: string, part: keyof Memory) => ({
      title: `${title}, ${what}`,
      unit: 'MB',
      digits: 1,
      values: valuesOf(results, ({ memory }) => memory[part] / MEGABYTE),
      targets: [],
    })
    return {
      figures: [
        {
          title: `${title}, first delivery`,
          unit: 's',
          digits: 2,
          values: valuesOf(results, ({ ms }) => ms / 1000),
          targets: [{ of: 'Vault Agent', times: 1 }],
        },
        memory('resident', 'residentBytes'),
        memory('most ever resident', 'peakBytes'),
      ],
      notes: [
        `${title}: each secret is a path of its own in a key-value engine of version 2, written by a template of one field; certificates as above. One process for all.`,
      ],
    }
  },
}

/** One password below each of `kv/bench/<index>`. */
async function fill(count: number, { server, progress }: Bench): Promise<void> {
  progress(`writing ${count} secrets`)
  const { data } = await server.api('GET', 'sys/mounts')
  if (!data?.['kv/']) await server.api('POST', 'sys/mounts/kv', { type: 'kv', options: { version: '2' } })
  // A new engine of version 2 makes itself ready first.
  for (let index = 0; index < count; index += 1) {
    const write = () => server.api('POST', `kv/data/bench/${index}`, { data: { password: `password-${index}` } })
    await write().catch(async () => {
      await sleep(500)
      await write()
    })
  }
}

const deliver = (contender: Contender, half: number, bench: Bench): Participant<Delivery> => ({
  name: contender.name,
  measure: async () => {
    await using running = await launch(contender, bench, { certificates: half, secrets: half })
    const ms = await running.delivered()
    await sleep(bench.size.settleMs)
    return { ms, memory: memoryOf(running.pid) }
  },
})
