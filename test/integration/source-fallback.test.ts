import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { certificateStatus } from '../../src/snapshot.ts'
import { skipReason } from '../support/components.ts'
import { fallbacksOf, seal, servesFrom, startWithFallback } from '../support/fallback.ts'
import { startVault } from '../support/vault.ts'

const skip = await skipReason('vault')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())

describe('a certificate with a fallback', { skip }, () => {
  test('S3 comes from it at once while Vault is sealed, and from Vault at the next renewal after that', async () => {
    const server = vault ?? assert.fail()
    const { start } = await startWithFallback(server)
    await seal(server)
    await using running = start()
    const loop = await servesFrom(running, 'dev-ca')
    const [told, ...more] = fallbacksOf(running)
    assert.ok(told && 'instead' in told && 'code' in told && more.length === 0)
    assert.equal(told.code, 'VAULT_SEALED')
    assert.match(told.instead, /^vault-pki http:\/\/127/)
    const status = certificateStatus(loop, Date.now())
    assert.equal(status.fallback, true)
    assert.match(status.origin ?? '', /^dev-ca /)
    assert.equal(status.failures, 0)
    assert.equal(loop.cert.store.memory.issuedAt.length, 1)
    await server.unseal()
    const { serving } = (await servesFrom(running, 'vault-pki')).report?.state ?? assert.fail()
    assert.ok(serving)
    assert.equal(certificateStatus(loop, Date.now()).fallback, false)
    const names = running.events.map(({ name }) => name)
    assert.equal(names.filter((name) => name === 'certificate.issued').length, 2, 'nothing is forced')
  })
})
