import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createTestCa, type Issued, type TestCa } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { startVault, type TestVault, type VaultTls } from '../support/vault.ts'
import { failure, forever, openVault, request } from '../vault/support.ts'

const skip = await skipReason('vault')
const EXPIRED = { notBefore: new Date(Date.now() - 7_200_000), notAfter: new Date(Date.now() - 3_600_000) }

describe('a real Vault over TLS that wants client certificates', { skip }, () => {
  let ca: TestCa
  let server: TestVault
  let directory: string
  before(async () => {
    ca = await createTestCa()
    directory = await mkdtemp(join(tmpdir(), 'certferry-tls-'))
    const { certificatePem, keyPem } = await ca.issue({ altNames: ['127.0.0.1', 'vault.example.com'] })
    const client = await ca.issue()
    const tls: VaultTls = {
      caPem: ca.rootPem,
      certPem: certificatePem,
      keyPem,
      clientCaPem: ca.rootPem,
      client: { certPem: client.certificatePem, keyPem: client.keyPem },
    }
    server = await startVault({ tls })
    await server.setupPki()
  })
  after(async () => {
    await server?.[Symbol.asyncDispose]()
    await rm(directory, { recursive: true })
  })

  const save = async (name: string, content: string) => {
    await writeFile(join(directory, name), content)
    return join(directory, name)
  }
  const clientFiles = async (name: string, { certificatePem, keyPem }: Pick<Issued, 'certificatePem' | 'keyPem'>) => ({
    clientCertFile: await save(`${name}.crt`, certificatePem),
    clientKeyFile: await save(`${name}.key`, keyPem),
  })
  const open = (more: object) =>
    openVault(server.address, { caFile: server.caFile, auth: { kind: 'token', token: server.rootToken }, ...more })

  test('is reached with CA file and client certificate, by address and by serverName', async () => {
    const files = await clientFiles('good', await ca.issue())
    for (const more of [{}, { serverName: 'vault.example.com' }]) {
      const { vault, told } = open({ ...files, ...more })
      await using _ = vault
      assert.equal((await vault.health(forever)).usable, true)
      assert.deepEqual(told.onWarning, [])
    }
  })

  test('V11 refuses us without a client certificate, with an expired one and with a foreign one', async () => {
    const foreign = await createTestCa({ commonName: 'Foreign Root' })
    const rows = [
      {},
      await clientFiles('expired', await ca.issue(EXPIRED)),
      await clientFiles('foreign', await foreign.issue()),
    ]
    for (const more of rows) {
      const { vault } = open(more)
      await using _ = vault
      const error = await failure(vault.health(forever))
      assert.equal(error.code, 'VAULT_CLIENT_CERT', `${JSON.stringify(more)}: ${error.message}`)
    }
  })

  test('V11 is reached again once the expired client certificate was replaced, without a restart', async () => {
    const { vault } = open(await clientFiles('renewed', await ca.issue(EXPIRED)))
    await using _ = vault
    assert.equal((await failure(vault.health(forever))).code, 'VAULT_CLIENT_CERT')
    await clientFiles('renewed', await ca.issue())
    assert.equal((await vault.health(forever)).usable, true)
  })

  test('V10 is not talked to when the CA file holds another CA, or the name differs, and is when that is mended', async () => {
    const files = await clientFiles('good', await ca.issue())
    const foreign = await createTestCa({ commonName: 'Foreign Root' })
    const caFile = await save('ca.pem', foreign.rootPem)
    const { vault } = open({ ...files, caFile })
    await using _ = vault
    assert.equal((await failure(vault.sign(request, forever))).code, 'VAULT_TLS')
    await save('ca.pem', ca.rootPem)
    assert.equal((await vault.health(forever)).usable, true)
    const { vault: misnamed } = open({ ...files, serverName: 'other.example.com' })
    await using __ = misnamed
    assert.equal((await failure(misnamed.health(forever))).code, 'VAULT_TLS')
    assert.deepEqual(
      (await server.audited()).filter(({ path }) => path === 'pki/sign/web'),
      [],
    )
  })
})
