import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { skipReason } from '../../support/components.ts'
import {
  askForRotation,
  askThrice,
  assertNoFailure,
  bundleOnce,
  createRig,
  isWell,
  type Rig,
  rotateWell,
  servedBy,
  survive,
} from '../../support/fault-rig.ts'
import { startVaultCluster, type VaultCluster } from '../../support/vault-cluster.ts'

const skip = await skipReason('vault', 'nginx')
const cluster = skip ? undefined : await startVaultCluster()
after(() => cluster?.[Symbol.asyncDispose]())
await cluster?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const clusterOf = () => cluster ?? assert.fail('no cluster')

/** With this header a standby does not forward a request to the leader, but answers 307. */
const NOT_FORWARDED = { 'X-Vault-No-Request-Forwarding': 'true' }

/** certferry talks to a standby, by TLS like everybody. */
async function rigBefore(vault: VaultCluster, vaultOptions: object): Promise<Rig & { readonly standby: string }> {
  const leader = await vault.leader()
  const standby = vault.nodes().find(({ address }) => address !== leader.address)?.address ?? assert.fail('no standby')
  const { certificatePem: cert, keyPem: key } = vault.issued
  const rig = await createRig({
    vault,
    program,
    proxy: { target: standby, targetCa: vault.caPem, tls: { cert, key } },
    stage: { vaultOptions: { caFile: vault.caFile, ...vaultOptions } },
  })
  return { ...rig, standby }
}

describe('a cluster of three Vaults', { skip }, () => {
  test('V2 a standby that redirects to a leader which is not listed is not followed, and no token leaves', async () => {
    await using rig = await rigBefore(clusterOf(), {})
    await survive(rig, {
      reason: 'redirect_refused',
      inject: ({ proxy }) => {
        proxy.headers = NOT_FORWARDED
      },
      trigger: askThrice,
      repair: ({ proxy }) => {
        proxy.headers = {}
      },
    })
  })

  test('V2 a standby that redirects to a leader which is listed is followed, through step-downs and the death of the leader', async () => {
    const vault = clusterOf()
    await using rig = await rigBefore(vault, { redirectHosts: ['127.0.0.1'] })
    rig.proxy.headers = NOT_FORWARDED
    await rotateWell(rig)
    assertNoFailure(rig)

    const disturbances = {
      'the leader steps down': () => vault.stepDown(),
      'the leader is killed': async () => {
        // The standby in front of us is to live on.
        for (let leader = await vault.leader(); ; leader = await vault.leader()) {
          if (leader.address !== rig.standby) return leader.kill()
          await vault.stepDown()
        }
      },
    }
    for (const [claim, disturb] of Object.entries(disturbances)) {
      const { serial } = await rig.certferry.certificate('web', 'is in service', isWell)
      await Promise.all([disturb(), askForRotation(rig)])
      const { fingerprint } = await rig.certferry.certificate(
        'web',
        `has a new one although ${claim}`,
        (status) => isWell(status) && status.serial !== serial,
      )
      assert.equal(await servedBy(rig.stage), fingerprint)
    }
    assert.equal(rig.certferry.log('sidecar.started').length, 1)
    assert.equal(vault.nodes().length, 2)
  })
})
