import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../test/support/nginx.ts'
import { bareNode } from '../bare-node.ts'
import type { Contender } from '../contenders.ts'
import { launch } from '../launch.ts'
import { type Memory, memoryOf } from '../proc.ts'
import { type Participant, type Results, valuesOf } from '../rounds.ts'
import { type Bench, MEGABYTE, type Row } from '../row.ts'

const SCRAPES = 30

export const memory: Row = {
  name: 'memory',
  title: 'memory, idle, one certificate',
  run: async (bench) => {
    const results = await sideBySide(
      [...bench.contenders.map((contender) => idle(contender, bench)), waiting(bench)],
      bench,
    )
    const figure = (title: string, part: keyof Memory) => ({
      title,
      unit: 'MB',
      digits: 1,
      values: valuesOf(results, (seen) => seen[part] / MEGABYTE),
    })
    return {
      figures: [
        {
          ...figure('resident memory, idle, one certificate', 'residentBytes'),
          targets: [{ of: 'Vault Agent', times: 0.8 }],
        },
        {
          ...figure('anonymous memory, same', 'anonymousBytes'),
          targets: [{ plus: 28 }, { plus: 20, isStretch: true }],
        },
      ],
      notes: [
        `Memory is read from smaps_rollup ${bench.size.settleMs / 1000} s after the last of ${SCRAPES} scrapes of /metrics: of certferry's admin listener, and of a listener of Vault Agent for metrics only; consul-template is not scraped. Resident includes the pages of the program itself. The processes of a round idle at the same time.`,
      ],
    }
  },
}

/** Memory does not depend on who else is idle: all of a round wait together. */
async function sideBySide(
  participants: readonly Participant<Memory>[],
  { size, progress }: Bench,
): Promise<Results<Memory>> {
  const results = new Map(participants.map(({ name }): [string, Memory[]] => [name, []]))
  for (let round = 0; round <= size.rounds; round += 1) {
    progress(round === 0 ? 'warm-up' : `round ${round} of ${size.rounds}`)
    const all = await Promise.all(participants.map((one) => one.measure()))
    if (round > 0)
      for (const [index, { name }] of participants.entries()) results.get(name)?.push(...all.slice(index, index + 1))
  }
  return results
}

const idle = (contender: Contender, bench: Bench): Participant<Memory> => ({
  name: contender.name,
  measure: async () => {
    await using running = await launch(contender, bench, { metricsPort: await freePort() })
    await running.delivered()
    await running.scrape(SCRAPES)
    await sleep(bench.size.settleMs)
    return memoryOf(running.pid)
  },
})

/** A Node that waits for nothing. */
const waiting = ({ size }: Bench): Participant<Memory> => ({
  name: 'bare node',
  measure: async () => {
    await using node = bareNode(['-e', 'setInterval(() => {}, 1e9)'])
    await sleep(size.settleMs)
    return memoryOf(node.pid)
  },
})
