import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { skipReason } from '../../support/components.ts'
import { startFaultProxy } from '../../support/fault-proxy.ts'
import {
  askForRotation,
  assertNoSecret,
  bundleOnce,
  createRig,
  isWell,
  servedBy,
  survive,
} from '../../support/fault-rig.ts'
import { createStage, type Stage } from '../../support/stage.ts'
import { fill, mountsReason, mountTmpfs } from '../../support/tmpfs.ts'
import { startVault } from '../../support/vault.ts'
import { assertTidy, readPair } from '../../support/volume.ts'

const skip = (await skipReason('vault', 'nginx')) || mountsReason()
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
// Other users run it as well.
fs.chmodSync(join(program, '..'), 0o755)
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

// A start that is not refused would never end.
describe('a container', { skip, concurrency: 5, timeout: 300_000 }, () => {
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
    assert.equal((await refused.ended).code, 78, refused.stderr())
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

  test('X6 probes that cannot reach loopback are answered at the address that is told, there alone, without a secret', async () => {
    assert.ok(vault)
    await using stage = await createStage({ vault, program })
    await stage.configure(stage.web({ served: false }))
    // Any address that is not 127.0.0.1 will do for that of a pod.
    await editConfig(stage, (config) => config.replace('127.0.0.1:0', '127.0.0.2:0'))
    await using certferry = stage.certferry()
    await certferry.certificate('web', 'is delivered', isWell)
    const [, listening] = certferry.log('admin.listening')
    const address = new URL(String(listening?.address))
    assert.equal(address.hostname, '127.0.0.2')
    for (const path of ['/livez', '/readyz', '/startupz', '/status', '/metrics']) {
      const { status, body } = await certferry.get(path)
      assert.equal(status, 200, path)
      assertNoSecret(body, stage)
    }
    await assert.rejects(fetch(`http://127.0.0.1:${address.port}/livez`), 'nobody listens elsewhere')
  })

  test('X6 without a port, "wait" is the exec probe: it fails until a valid set is on disk, and passes then', async () => {
    assert.ok(vault)
    await using proxy = await startFaultProxy(() => ({ kind: 'reset' }), { target: vault.address })
    await using stage = await createStage({ vault, program, address: proxy.address })
    await stage.configure(stage.web({ served: false }))
    await editConfig(stage, (config) => config.replace('"listen": "127.0.0.1:0",', ''))
    const probe = () =>
      promisify(execFile)(process.execPath, [program, 'wait', '--timeout', '1s', '-c', stage.configFile])
    await assert.rejects(probe(), { code: 69 }, 'not started')
    await using certferry = stage.certferry()
    await certferry.certificate('web', 'has failed', ({ failures }) => failures > 0)
    await assert.rejects(probe(), { code: 69, stderr: /web is PENDING \(vault_/ }, 'nothing on disk')
    proxy.onRequest = () => undefined
    await certferry.certificate('web', 'is delivered', isWell)
    await probe()
    assert.equal(certferry.log('admin.listening').length, 1, 'the control socket alone')
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

  test('X8 a target that mounts a single file keeps the old one: the proof tells, the disk goes back, and mounting the directory mends it', async () => {
    assert.ok(vault)
    // Where the target sees what it has mounted.
    await using mounts = await mountTmpfs()
    const seen = (...names: string[]) => join(mounts.inside(mounts.path), 'seen', ...names)
    const mount = (from: string, to: string) => mounts.run(`mount --bind "${from}" "${to}"`)
    await using rig = await createRig({
      vault,
      program,
      web: { layout: 'generation', verify: { deadline: '2s' } },
      nginx: { directory: join(mounts.path, 'seen') },
      prepare: async ({ volume }) => {
        await mounts.run(`mkdir "${seen()}"`)
        await mount(join(volume, 'web'), seen())
      },
    })
    await survive(rig, {
      reason: 'reload_not_effective',
      inject: async ({ directory }) => {
        await mounts.run(`mount -t tmpfs tmpfs "${seen()}"`)
        for (const name of ['tls.crt', 'tls.key']) {
          await mounts.run(`touch "${seen(name)}"`)
          await mount(join(directory, name), seen(name))
        }
      },
      meanwhile: {
        also: ({ rig: { certferry } }) => assert.ok(certferry.log('rotation.rolled-back').length >= 1),
      },
      repair: () => mounts.run(`umount -l "${seen()}"`),
    })
  })
})

const editConfig = async (stage: Stage, edit: (config: string) => string) =>
  stage.place('config.yaml', edit(fs.readFileSync(stage.configFile, 'utf8')))
