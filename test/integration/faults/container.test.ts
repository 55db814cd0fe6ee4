import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { skipReason } from '../../support/components.ts'
import { askForRotation, bundleOnce, createRig, isWell, servedBy, survive } from '../../support/fault-rig.ts'
import { createStage, type Stage } from '../../support/stage.ts'
import { fill, mountsReason, mountTmpfs } from '../../support/tmpfs.ts'
import { startVault } from '../../support/vault.ts'
import { assertTidy, readPair } from '../../support/volume.ts'

const skip = (await skipReason('vault', 'nginx')) || mountsReason()
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const needsRoot = { skip: process.geteuid?.() === 0 ? false : 'needs root to become somebody else' }
/** As a cluster picks them: in no table of users, without a home. */
const RANDOM = 1_000_730_000

/** Neither root nor a capability, nor a way to gain one. */
const unprivileged = [
  'setpriv',
  `--reuid=${RANDOM}`,
  `--regid=${RANDOM}`,
  '--clear-groups',
  '--bounding-set=-all',
  '--no-new-privs',
]

/** Everything of a stage belongs to that user then, as a pod gives it to its own. */
function give({ folder, volume }: Stage) {
  for (const top of [folder, volume])
    for (const name of ['', ...fs.readdirSync(top, { recursive: true }).map(String)])
      fs.lchownSync(join(top, name), RANDOM, RANDOM)
}

describe('a container', { skip, concurrency: 5 }, () => {
  test('X2 killed and started again on the same volume it issues nothing, and clients are served all the while', async () => {
    assert.ok(vault)
    await using rig = await createRig({ vault, program })
    const { fingerprint } = await rig.certferry.certificate('web', 'is in service', isWell)
    await rig.certferry.stop('SIGKILL')
    assert.equal(await servedBy(rig.stage), fingerprint)
    await using next = rig.stage.certferry()
    assert.equal((await next.certificate('web', 'is in service', isWell)).fingerprint, fingerprint)
    assert.equal(readPair(rig.directory, rig.layout), fingerprint)
    assertTidy(rig.directory)
    assert.equal(await rig.stage.issued(), 1)
  })

  test(
    'X3 as a random user without capabilities and home, with all but its volumes read-only, it rotates',
    needsRoot,
    async () => {
      assert.ok(vault)
      await using stage = await createStage({ vault, program })
      await stage.configure(stage.web({ served: false }))
      give(stage)
      fs.chmodSync(join(program, '..'), 0o755)
      const writable = [stage.volume, stage.folder].map((path) => `mount --bind "${path}" "${path}"`).join('; ')
      const readOnly = `${writable}; mount -o remount,ro,bind /; exec "$@"`
      await using certferry = stage.certferry({
        before: ['unshare', '-m', 'sh', '-ec', readOnly, 'sh', ...unprivileged],
      })
      const { serial } = await certferry.certificate('web', 'is delivered', isWell)
      await askForRotation({ certferry })
      const next = await certferry.certificate('web', 'is rotated', (now) => isWell(now) && now.serial !== serial)
      assert.equal(readPair(join(stage.volume, 'web'), 'nginx-include'), next.fingerprint)
      assert.equal(fs.statSync(join(stage.volume, 'web', 'tls.key')).uid, RANDOM)
      assertTidy(join(stage.volume, 'web'))
      assert.equal(certferry.stderr(), '')
    },
  )

  test(
    'X4 a volume that everybody may write to ends the start with 78, and a directory in it is what to use',
    needsRoot,
    async () => {
      assert.ok(vault)
      await using stage = await createStage({ vault, program })
      const top = join(stage.volume, 'empty-dir')
      fs.mkdirSync(top)
      fs.chmodSync(top, 0o777)
      await stage.configure(stage.web({ served: false, directory: top }))
      {
        await using refused = stage.certferry()
        assert.equal((await refused.ended).code, 78)
        assert.match(refused.stderr(), /writable by everybody.*use a directory in it, such as/)
        assert.deepEqual(fs.readdirSync(top), [])
      }
      await stage.configure(stage.web({ served: false, directory: join(top, 'certs') }))
      give(stage)
      await using mended = stage.certferry({ before: unprivileged })
      await mended.certificate('web', 'is delivered', isWell)
      assert.equal(fs.statSync(join(top, 'certs')).mode & 0o7777, 0o700)
    },
  )

  test('X4 a directory of somebody else ends the start with 78, and nothing is written', needsRoot, async () => {
    assert.ok(vault)
    await using stage = await createStage({ vault, program })
    await stage.configure(stage.web({ served: false }))
    give(stage)
    fs.chownSync(join(stage.volume, 'web'), 65534, 65534)
    fs.chmodSync(join(stage.volume, 'web'), 0o755)
    await using refused = stage.certferry({ before: unprivileged })
    assert.equal((await refused.ended).code, 78)
    assert.deepEqual(fs.readdirSync(join(stage.volume, 'web')), [])
    assert.equal(await stage.issued(), 0)
  })

  test('X5 as an init container, once ends with the files in place, and wait lets the target start then', async () => {
    assert.ok(vault)
    await using stage = await createStage({ vault, program })
    await stage.configure(stage.web())
    const command = (...args: string[]) =>
      promisify(execFile)(process.execPath, [program, ...args, '-c', stage.configFile])
    await using certferry = stage.certferry()
    await command('wait', '--timeout', '60s')
    await using _nginx = await stage.nginx()
    const well = await certferry.certificate('web', 'is in service', isWell)
    assert.equal(await servedBy(stage), well.fingerprint)
    await certferry.stop()
    await command('once')
    assert.equal(await stage.issued(), 1)
  })

  test('X7 a volume in memory at its limit is told before Vault is asked, and keeps the set in service', async () => {
    assert.ok(vault)
    await using tmpfs = await mountTmpfs({ size: '512k' })
    await using rig = await createRig({ vault, program, volumeIn: tmpfs.path })
    let free = () => {}
    await survive(rig, {
      reason: 'disk_full',
      inject: () => {
        free = fill(tmpfs.path)
      },
      repair: () => free(),
    })
  })
})
