import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { skipReason } from '../support/components.ts'
import { failureOf, fallbacksOf, seal, servesFrom, startWithFallback } from '../support/fallback.ts'
import { until } from '../support/until.ts'
import { startVault } from '../support/vault.ts'

const skip = await skipReason('vault')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())

const ROUNDS = 5

describe('a certificate of Vault with a fallback', { skip }, () => {
  test('is left to Vault until the last twentieth of its life, then comes from the fallback, and goes back', async () => {
    const server = vault ?? assert.fail()
    const { start } = await startWithFallback(server)
    await using running = start()
    for (let round = 1; round <= ROUNDS; round++) {
      await servesFrom(running, 'vault-pki')
      await seal(server)
      const isTold = () => /dev-ca \S+ is asked from/.test(failureOf(running).message)
      await until('it is told from when on the other is asked', isTold)
      assert.equal(fallbacksOf(running).length, round - 1)
      await servesFrom(running, 'dev-ca')
      assert.equal(fallbacksOf(running).length, round)
      await server.unseal()
    }
    await servesFrom(running, 'vault-pki')
    console.log(JSON.stringify({ fallback: { rounds: ROUNDS, delivered: fallbacksOf(running).length } }))
  })
})
