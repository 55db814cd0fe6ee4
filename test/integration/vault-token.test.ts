import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { createCsr } from '../../src/core/csr.ts'
import { generateKey } from '../../src/core/key.ts'
import { writeToken } from '../../src/outputs/token-sink.ts'
import { createVault } from '../../src/vault/client.ts'
import { skipReason } from '../support/components.ts'
import { createStage } from '../support/stage.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault, WEB_ROLE } from '../support/vault.ts'
import { makeVolume } from '../support/volume.ts'
import { forever, recorder, vaultOptions } from '../vault/support.ts'

const skip = await skipReason('vault')
const server = skip ? undefined : await startVault()
after(() => server?.[Symbol.asyncDispose]())
await server?.setupPki({ roles: { web: WEB_ROLE, leased: { ...WEB_ROLE, generate_lease: true } } })

const vaultOf = (): TestVault => server ?? assert.fail('no Vault')

/** A client that logs in with an approle which may sign, and keeps its token in `file`. */
async function open(file: string, more: object = {}, sink: object = {}) {
  const policy = 'path "pki/sign/*" { capabilities = ["update"] }'
  const { roleId, secretId } = await vaultOf().setupApprole({ policy, role: { token_ttl: '1h' } })
  const auth = { kind: 'approle', roleId, secretId: await secretId() }
  const options = vaultOptions(vaultOf().address, { auth, tokenSink: { file, ...sink }, ...more })
  const { deps, told } = recorder()
  return { vault: createVault(options, { ...deps, writeToken }), told }
}

const lookup = (token: string) => vaultOf().api('GET', 'auth/token/lookup-self', undefined, { token })
const inFile = (file: string) => until('the token is in its file', () => readFileSync(file, 'utf8'))

describe('the token of a login, with a real Vault', { skip }, () => {
  test('is shared by a file, and works for whoever reads it', async (t) => {
    const file = join(makeVolume(t), 'token')
    const { vault, told } = await open(file)
    await using _ = vault
    await vault.lookupSelf(forever)
    const { data } = await lookup(await inFile(file))
    assert.ok(String(data?.display_name).startsWith('approle'))
    assert.deepEqual(told.onWarning.slice(1), [])
  })

  test('is shared wrapped, and given once', async (t) => {
    const file = join(makeVolume(t), 'token')
    const { vault } = await open(file, {}, { wrapTtl: '1m' })
    await using _ = vault
    await vault.lookupSelf(forever)
    const wrapping = await inFile(file)
    const unwrap = () => vaultOf().api('POST', 'sys/wrapping/unwrap', {}, { token: wrapping })
    const { data } = await unwrap()
    assert.ok(await lookup(String(data?.token)))
    await assert.rejects(unwrap(), /wrapping token is not valid or does not exist/)
  })

  for (const [signal, isRevoked] of [
    ['SIGTERM', true],
    ['SIGKILL', false],
  ] as const)
    test(`is shared while certferry runs, and ${isRevoked ? 'revoked when it stops' : 'lives on when it is killed'}`, async () => {
      const vaultOptions = (folder: string) => ({
        revokeOnExit: true,
        tokenSink: { file: join(folder, 'shared', 'token') },
      })
      await using stage = await createStage({ vault: vaultOf(), vaultOptions })
      await stage.configure(stage.web({ served: false }))
      await using certferry = stage.certferry()
      await certferry.certificate('web', 'is delivered', ({ serial }) => serial !== null)
      const token = await inFile(join(stage.folder, 'shared', 'token'))
      assert.ok(await lookup(token))
      await certferry.stop(signal)
      if (isRevoked) await assert.rejects(lookup(token), /403/)
      else assert.ok(await lookup(token))
      assert.deepEqual(
        certferry.log('vault.warning').filter(({ msg }) => String(msg).includes('revoked')),
        [],
      )
    })

  test('is revoked at a clean stop, with what was leased by it, and not before', async (t) => {
    const file = join(makeVolume(t), 'token')
    const { vault, told } = await open(file, { revokeOnExit: true })
    await using _ = vault
    const names = { commonName: 'a.example.com', dns: ['a.example.com'], ip: [], uri: [], email: [] }
    const csr = await createCsr(names, await generateKey('ecdsa-p256'))
    const body = { csr, common_name: 'a.example.com' }
    const serials: string[] = []
    for (const role of ['web', 'leased']) {
      await vault.sign({ mount: 'pki', role, body }, forever)
      const { data } = await vaultOf().api('GET', 'pki/certs?list=true')
      serials.push(...(Array.isArray(data?.keys) ? data.keys.map(String) : []).filter((one) => !serials.includes(one)))
    }
    const token = await inFile(file)
    assert.ok(await lookup(token))
    const revoked = async (serial: string | undefined) =>
      Number((await vaultOf().api('GET', `pki/cert/${serial}`)).data?.revocation_time) > 0
    assert.deepEqual(
      await Promise.all(serials.map(revoked)),
      serials.map(() => false),
    )

    await vault.revokeToken()
    await assert.rejects(lookup(token), /403/)
    await until('the leased certificate is revoked', () => revoked(serials.at(-1)))
    assert.equal(await revoked(serials.at(-2)), false)
    assert.match(told.onWarning.map(({ message }) => message).join('\n'), /leases its certificates.*ends at every stop/)
  })
})
