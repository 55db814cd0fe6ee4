import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { isUnable } from '../../src/vault/replies.ts'
import type { Certferry } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { bundleOnce } from '../support/fault-rig.ts'
import { createStage, type Stage } from '../support/stage.ts'
import { until } from '../support/until.ts'
import { startVaultCluster, type VaultCluster } from '../support/vault-cluster.ts'
import { readPair } from '../support/volume.ts'

const CERTIFICATES = 50
/** No more requests than that can be on their way when the leader dies. */
const CONCURRENCY = 8

const skip = await skipReason('vault')
const cluster = skip ? undefined : await startVaultCluster()
after(() => cluster?.[Symbol.asyncDispose]())
const { program, remove } = await bundleOnce()
after(remove)

const clusterOf = () => cluster ?? assert.fail('no cluster')

const names = Array.from({ length: CERTIFICATES }, (_, n) => `c${n}`)

/** Fifty certificates that nobody serves, each in a directory of its own. */
async function fifty(stage: Stage, altName: string): Promise<void> {
  const certificates = names.map((name) =>
    stage.web({ name, commonName: `${name}.example.com`, altNames: [altName], layout: 'generation', served: false }),
  )
  await stage.configure(...certificates)
}

/** The serials of all that Vault issued from the role of the stage, by its audit log, in the order of issue. */
async function issuedBy(vault: VaultCluster, { mount, role }: Stage) {
  const lines = (await vault.audited()).filter(({ path }) => path === `${mount}/sign/${role}`)
  return lines.flatMap(({ serial, at }) => (serial === undefined ? [] : [{ serial, at }]))
}

describe('a cluster of three Vaults, all of whose addresses are listed', { skip }, () => {
  test('V1 the leader is killed while 50 certificates rotate: each gets its new one, and none is issued but for those and the answers lost', async (t) => {
    const vault = clusterOf()
    await vault.setupPki()
    await vault.api('POST', 'sys/mounts/pki/tune', { audit_non_hmac_response_keys: ['serial_number'] })
    const leader = await vault.leader()
    const others = vault.nodes().filter(({ address }) => address !== leader.address)
    const address = [leader, ...others].map((node) => node.address)
    const vaultOptions = { address, caFile: vault.caFile, concurrency: CONCURRENCY }
    await using stage = await createStage({ vault, program, vaultOptions })
    for (const name of names) await mkdir(join(stage.volume, name), { mode: 0o700 })
    await fifty(stage, 'one.example.com')
    await using certferry = stage.certferry()
    const before = await all(certferry, 'are delivered', () => true)

    await fifty(stage, 'two.example.com')
    await certferry.control.reloadConfig()
    const fewHaveRotated = async () => (await issuedBy(vault, stage)).length >= CERTIFICATES + 5
    await until('a few have rotated', fewHaveRotated, { everyMs: 5 })
    await leader.kill()
    const killedAt = Date.now()
    const now = await all(certferry, 'have a new one', (serial, name) => serial !== before.get(name))

    const issued = await issuedBy(vault, stage)
    const late = issued.filter(({ at }) => at > killedAt)
    assert.ok(late.length > 0, 'all had rotated before the leader was killed')
    const serials = new Set(issued.map(({ serial }) => serial))
    for (const serial of [...before.values(), ...now.values()]) assert.ok(serials.has(serial), serial)
    const lost = serials.size - 2 * CERTIFICATES
    t.diagnostic(`${late.length} issued by the next leader, ${lost} without an answer`)
    assert.ok(lost >= 0 && lost <= CONCURRENCY, `${lost} issued in vain`)
    for (const name of names) readPair(join(stage.volume, name), 'generation')
    assert.equal(certferry.log('sidecar.started').length, 1)
  })

  test('V3 a node that has lost the others says so in the words by which it is passed over', async () => {
    const vault = clusterOf()
    const last = await vault.leader()
    for (const node of vault.nodes().filter(({ address }) => address !== last.address)) await node.kill()
    await until('the words are known', async () => {
      const error = await vault.api('POST', 'pki/sign/web', {}).catch((error: unknown) => error)
      const [, status, body] = / (\d+) (\{.*\})\s*$/s.exec(String(error)) ?? []
      const reply = { status: Number(status), body: JSON.parse(body ?? 'null') }
      assert.ok(isUnable({ ...reply, contentType: '', date: undefined, retryAfter: undefined }), String(error))
      return true
    })
  })
})

/** The serial of each certificate, once all are in service and as wanted. */
function all(certferry: Certferry, claim: string, isSo: (serial: string, name: string) => boolean) {
  const ask = async () => {
    const { certificates } = await certferry.status()
    const isDone = certificates.every(
      ({ phase, serial, name }) => phase === 'ACTIVE' && serial !== null && isSo(serial, name),
    )
    return isDone && new Map(certificates.map(({ name, serial }) => [name, serial ?? '']))
  }
  return until(`all ${CERTIFICATES} certificates ${claim}`, ask, { timeoutMs: 60_000, everyMs: 100 })
}
