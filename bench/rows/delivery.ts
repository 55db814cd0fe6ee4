import { setTimeout as sleep } from 'node:timers/promises'
import type { Contender } from '../contenders.ts'
import { launch } from '../launch.ts'
import { type Memory, memoryOf } from '../proc.ts'
import { inRounds, type Participant, valuesOf } from '../rounds.ts'
import { type Bench, MEGABYTE, type Row, type Target } from '../row.ts'
import { makeCsrs, signAll } from '../signing.ts'

interface Delivery {
  readonly ms: number
  /** undefined for Vault, of which only the time is of interest. */
  readonly memory?: Memory
}

/** Who signs for a client that does nothing else: no program that needs these certificates can be done sooner. */
const VAULT_ALONE = 'Vault alone'

export const delivery: Row = {
  name: 'many',
  title: 'first delivery of many certificates',
  run: async (bench) => {
    const { many, manyRounds } = bench.size
    bench.progress(`making ${many} requests`)
    const csrs = await makeCsrs(many)
    const vaultAlone = { name: VAULT_ALONE, measure: async () => ({ ms: await signAll(csrs, bench) }) }
    const participants = [...bench.contenders.map((contender) => deliver(contender, bench)), vaultAlone]
    const results = await inRounds<Delivery>(participants, manyRounds, bench.progress)
    const memory = (title: string, part: keyof Memory, targets: readonly Target[]) => ({
      title: `${many} certificates, ${title}`,
      unit: 'MB',
      digits: 1,
      values: valuesOf(results, ({ memory }) => memory && memory[part] / MEGABYTE),
      targets,
    })
    return {
      figures: [
        {
          title: `${many} certificates, first delivery`,
          unit: 's',
          digits: 2,
          values: valuesOf(results, ({ ms }) => ms / 1000),
          targets: [
            { of: 'Vault Agent', times: 0.5 },
            { of: VAULT_ALONE, times: 1.5 },
          ],
        },
        memory('resident', 'residentBytes', [{ of: 'Vault Agent', times: 1 }]),
        memory('anonymous', 'anonymousBytes', [{ of: 'Vault Agent', times: 1 }]),
        memory('most ever resident', 'peakBytes', []),
      ],
      notes: [
        `All keys are ECDSA P-256. certferry makes them itself, has Vault sign, and syncs every file and folder; Vault Agent and consul-template have Vault make the keys, as \`pkiCert\` can do nothing else, and sync the certificate alone. Vault alone signs ${many} requests made beforehand, 8 at a time on kept connections, through the same role, and nothing is written. Memory is read ${bench.size.settleMs / 1000} s after the last certificate.`,
      ],
    }
  },
}

const deliver = (contender: Contender, bench: Bench): Participant<Delivery> => ({
  name: contender.name,
  measure: async () => {
    await using running = await launch(contender, bench, { certificates: bench.size.many })
    const ms = await running.delivered()
    await sleep(bench.size.settleMs)
    return { ms, memory: memoryOf(running.pid) }
  },
})
