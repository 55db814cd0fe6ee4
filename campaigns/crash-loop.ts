import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { startFaultProxy } from '../test/support/fault-proxy.ts'
import { createStage } from '../test/support/stage.ts'
import { until } from '../test/support/until.ts'
import type { CertferryPlan } from './kill.ts'

/** Long enough to be killed in. */
const ANSWER_MS = 300

/**
 * The worst crash loop: no set on disk, and each start is killed after Vault was asked and before its answer arrives. Gives how many
 * certificates that cost, and how many starts asked for one.
 */
export async function crashLoop(starts: number, { vault, program }: Pick<CertferryPlan, 'vault' | 'program'>) {
  let hasAsked = false
  await using proxy = await startFaultProxy(
    ({ url }) => {
      if (!url.startsWith('/v1/pki/sign/')) return undefined
      hasAsked = true
      return { kind: 'delay', ms: ANSWER_MS }
    },
    { target: vault.address },
  )
  await using stage = await createStage({ vault, address: proxy.address, volumeIn: tmpdir(), program })
  await stage.configure(stage.web({ served: false }))
  let asked = 0
  for (let count = 0; count < starts; count += 1) {
    hasAsked = false
    await using certferry = stage.certferry()
    const isSpent = async () => (await certferry.status()).certificates[0]?.reason === 'budget_spent'
    await until('it asked, or may not ask', async () => hasAsked || (await isSpent()), { everyMs: 5 })
    await certferry.stop('SIGKILL')
    if (hasAsked) asked += 1
  }
  // What was asked for is issued, whether or not anybody waits for it.
  await sleep(ANSWER_MS)
  await until('Vault issued what was asked for', async () => (await stage.issued()) >= asked)
  return { starts, asked, issued: await stage.issued() }
}
