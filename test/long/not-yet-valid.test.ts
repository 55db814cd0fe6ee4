import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { skipReason } from '../support/components.ts'
import { bundleOnce, createRig, survive } from '../support/fault-rig.ts'
import { until } from '../support/until.ts'
import { startVault } from '../support/vault.ts'
import { makeVolume } from '../support/volume.ts'
import { createWallClock } from '../support/wall-clock.ts'

const skip = await skipReason('vault', 'nginx', 'faketime')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

test('V25 a certificate that begins in the future, by a clock a minute behind, is kept and delivered once valid', {
  skip,
}, async (t) => {
  assert.ok(vault)
  const clock = await createWallClock(join(makeVolume(t), 'clock'))
  await using rig = await createRig({ vault, program, web: { ttl: '72h' }, certferry: { env: clock.env } })
  await survive(rig, {
    reason: 'not_yet_valid',
    inject: () => clock.set('-63s'),
    meanwhile: { phase: 'ACTIVE' },
    // The clock stays wrong; time passes.
    repair: () =>
      until('it is delivered', () => rig.certferry.log('rotation.recovered').length > 0, { timeoutMs: 90_000 }).then(
        () => undefined,
      ),
    afterwards: { also: ({ rig: { certferry } }) => assert.equal(certferry.log('certificate.issued').length, 2) },
  })
})
