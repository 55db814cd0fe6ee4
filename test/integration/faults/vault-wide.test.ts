import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, renameSync, rmdirSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import * as z from 'zod'
import { skipReason } from '../../support/components.ts'
import { bundleOnce, createRig, isWell, type Rig, survive } from '../../support/fault-rig.ts'
import { createStage } from '../../support/stage.ts'
import { until } from '../../support/until.ts'
import { startVault } from '../../support/vault.ts'

// What befalls a Vault as a whole befalls all who use it: one after the other, on a Vault of their own.
const skip = await skipReason('vault', 'nginx')
const shared = skip ? undefined : await startVault({ storage: 'raft' })
after(() => shared?.[Symbol.asyncDispose]())
await shared?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const vaultOf = () => shared ?? assert.fail('no Vault')
const create = (timeouts = {}) => createRig({ vault: vaultOf(), program, stage: { vaultOptions: { timeouts } } })
const logins = ({ proxy }: Rig) => proxy.requests.filter(({ url }) => url === '/v1/auth/approle/login').length

const AuditDevices = z.object({ 'file/': z.object({ options: z.object({ file_path: z.string() }) }) })

describe('a Vault', { skip }, () => {
  test('V1 that is sealed is told, asked again without a new login, and used again once it is unsealed', async () => {
    const vault = vaultOf()
    await using rig = await create()
    await survive(rig, {
      reason: 'vault_sealed',
      inject: () => vault.seal(),
      repair: () => vault.unseal(),
      afterwards: { also: () => assert.equal(logins(rig), 1) },
    })
  })

  test('V6 that cannot write its audit log, and answers 500 to everything, is told and used again once it can', async () => {
    const { api, pid } = vaultOf()
    const file = AuditDevices.parse((await api('GET', 'sys/audit')).data)['file/'].options.file_path
    await using rig = await create()
    await survive(rig, {
      reason: 'vault_5xx',
      inject: async () => {
        renameSync(file, `${file}.kept`)
        mkdirSync(file)
        // On SIGHUP it opens its files anew.
        process.kill(pid, 'SIGHUP')
        await until('Vault refuses everything', () =>
          api('GET', 'sys/audit').then(
            () => false,
            () => true,
          ),
        )
      },
      repair: () => {
        rmdirSync(file)
        renameSync(`${file}.kept`, file)
        process.kill(pid, 'SIGHUP')
      },
    })
  })

  test('V7 that hangs, with connections that stay open, is left after a while, and what it may have issued is counted', async () => {
    const { pid } = vaultOf()
    await using rig = await create({ connect: '1s', headers: '1s', body: '1s', total: '3s' })
    await survive(rig, {
      reason: 'vault_timeout',
      inject: () => void process.kill(pid, 'SIGSTOP'),
      repair: () => void process.kill(pid, 'SIGCONT'),
      meanwhile: { also: ({ held }) => assert.ok(held.issuedRecently > 1) },
      // It may answer, once it is awake, to those who have gone.
      afterwards: { issued: [2, 8] },
    })
  })

  test('V33 that is down when certferry starts with an empty volume is waited for, and nothing pretends to be ready', async () => {
    const vault = vaultOf()
    await using stage = await createStage({ vault, program })
    await stage.configure(stage.web({ served: false }))
    await kill(vault.pid)
    await using certferry = stage.certferry()
    const { reason } = await certferry.certificate('web', 'has failed', ({ failures }) => failures >= 3)
    assert.equal(reason, 'vault_unreachable')
    assert.equal((await certferry.certificate('web', 'is pending', () => true)).phase, 'PENDING')
    assert.deepEqual(
      await Promise.all(['/livez', '/readyz', '/startupz'].map(async (path) => (await certferry.get(path)).status)),
      [200, 503, 503],
    )
    assert.deepEqual(
      readdirSync(`${stage.volume}/web`).filter((name) => !name.startsWith('..')),
      [],
    )
    await vault.restart()
    await until(
      'it has a certificate',
      async () => isWell((await certferry.status()).certificates[0] ?? assert.fail()),
      PATIENT,
    )
    assert.equal((await certferry.get('/readyz')).status, 200)
    assert.equal(certferry.log('sidecar.started').length, 1)
    assert.equal(await stage.issued(), 1)
  })

  test('V33 that is down when certferry starts with a valid set on disk is not needed: it is ready, and proves what is served', async () => {
    const vault = vaultOf()
    await using first = await create()
    await first.certferry.stop()
    await kill(vault.pid)
    await using certferry = first.stage.certferry()
    const rig = { ...first, certferry }
    const { notAfter } = await certferry.certificate('web', 'is in service', isWell)
    assert.equal((await certferry.get('/readyz')).status, 200)
    assert.ok(notAfter)
    await survive(rig, {
      reason: 'vault_unreachable',
      inject: () => undefined,
      repair: () => vault.restart(),
    })
  })
})

const PATIENT = { timeoutMs: 90_000 }

async function kill(pid: number): Promise<void> {
  process.kill(pid, 'SIGKILL')
  await until('Vault is gone', () => {
    try {
      process.kill(pid, 0)
      return false
    } catch {
      return true
    }
  })
}
