import { once } from 'node:events'
import { Agent, type IncomingMessage, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { createCsr } from '../src/core/csr.ts'
import { generateKey } from '../src/core/key.ts'
import { requestedNames } from '../src/core/names.ts'
import type { Bench } from './row.ts'

/** Requests that Vault has in work at a time. */
const AT_A_TIME = 8

/** Certification requests of the key type that all use here, each with a key of its own. */
export async function makeCsrs(count: number): Promise<string[]> {
  const csrs: string[] = []
  for (let index = 0; index < count; index += 1) {
    const commonName = `bench-${index}.internal`
    csrs.push(
      await createCsr(
        requestedNames({ commonName, altNames: [], excludeCnFromSans: false }),
        await generateKey('ecdsa-p256'),
      ),
    )
  }
  return csrs
}

/** How long Vault takes to sign them all for a client that does nothing else, in ms. */
export async function signAll(
  csrs: readonly string[],
  { vault, role }: Pick<Bench, 'vault' | 'role'>,
): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: AT_A_TIME })
  const queue = csrs.entries()
  const started = performance.now()
  const work = async () => {
    for (const [index, csr] of queue) await sign({ csr, common_name: `bench-${index}.internal` })
  }
  try {
    await Promise.all(Array.from({ length: AT_A_TIME }, work))
    return performance.now() - started
  } finally {
    agent.destroy()
  }

  async function sign(body: object) {
    const headers = { 'X-Vault-Token': vault.token, 'Content-Type': 'application/json' }
    const sent = request(`${vault.address}/v1/pki/sign/${role}`, { method: 'POST', agent, headers })
    sent.end(JSON.stringify(body))
    const [reply]: IncomingMessage[] = await once(sent, 'response')
    const answer = reply ? await text(reply) : ''
    if (reply?.statusCode !== 200) throw new Error(`Vault answers ${reply?.statusCode}: ${answer}`)
  }
}
