import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { skipReason } from '../../support/components.ts'
import {
  askForRotation,
  bundleOnce,
  createRig,
  type FaultPlan,
  filesOf,
  isWell,
  type Rig,
  type RigOptions,
  servedBy,
  survive,
} from '../../support/fault-rig.ts'
import { createStage } from '../../support/stage.ts'
import { until } from '../../support/until.ts'
import { startVault } from '../../support/vault.ts'
import { assertTidy, currentIn, generationsIn, makeVolume, readPair } from '../../support/volume.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const isRoot = process.geteuid?.() === 0
const needsRoot = { skip: isRoot ? false : 'needs root, who may give files away and make devices' }
/** Another user. */
const STRANGER = 65534

const rigWith = (options: Partial<RigOptions> = {}): Promise<Rig> => {
  assert.ok(vault)
  return createRig({ vault, program, ...options })
}

const told = ({ certferry }: Rig, name: string) => certferry.log('tamper.repaired').some(({ path }) => path === name)

const rotated = async ({ certferry }: Rig) => {
  const { serial } = await certferry.status().then(({ certificates: [web] }) => ({ serial: web?.serial }))
  await askForRotation({ certferry })
  return certferry.certificate('web', 'is rotated', (status) => isWell(status) && status.serial !== serial)
}

/** Asserts that nothing was lost: the certificate that was in service before is so now, proven, and none was issued for it. */
async function assertUnharmed(rig: Rig, fingerprint: string | null) {
  const well = await rig.certferry.certificate('web', 'is in service', isWell)
  assert.equal(well.fingerprint, fingerprint)
  assert.equal(readPair(rig.directory, rig.layout), fingerprint)
  assert.equal(await servedBy(rig.stage), fingerprint)
  assert.equal(await rig.stage.issued(), 1)
  assertTidy(rig.directory)
}

describe('the files', { skip, concurrency: 6 }, () => {
  test('F10 links planted at the names of readers, at the commit link and at a temporary name are taken away, told and counted; where they lead nothing changes', async (t) => {
    await using rig = await rigWith({ web: { layout: 'generation' } })
    const { directory, certferry } = rig
    const { fingerprint } = await certferry.certificate('web', 'is in service', isWell)
    const elsewhere = makeVolume(t)
    fs.cpSync(currentIn(directory), join(elsewhere, 'evil'), { recursive: true })
    fs.writeFileSync(join(elsewhere, 'victim'), 'precious', { mode: 0o644 })
    const untouched = filesOf({ directory: join(elsewhere, 'evil') })
    const plant = (name: string, target: string) => {
      fs.rmSync(join(directory, name), { force: true })
      fs.symlinkSync(target, join(directory, name))
    }
    plant('tls.key', join(elsewhere, 'victim'))
    plant('..data', join(elsewhere, 'evil'))
    await until('both are told', () => ['tls.key', '..data'].every((name) => told(rig, join(directory, name))))
    await assertUnharmed(rig, fingerprint)
    assert.ok(((await certferry.metric('certferry_tamper_total{certificate="web"}')) ?? 0) >= 2)

    plant('tls.crt', join(elsewhere, 'victim'))
    plant('..tmp-0123456789abcdef', join(elsewhere, 'victim'))
    const next = await rotated(rig)
    assert.equal(readPair(directory, 'generation'), next.fingerprint)
    assertTidy(directory)
    assert.equal(fs.readFileSync(join(elsewhere, 'victim'), 'utf8'), 'precious')
    assert.equal(fs.statSync(join(elsewhere, 'victim')).mode & 0o777, 0o644)
    assert.deepEqual(filesOf({ directory: join(elsewhere, 'evil') }), untouched)
  })

  /** The directory under another name, and what stands in its place. */
  const replaced = (put: (directory: string) => void): Pick<FaultPlan, 'inject' | 'repair' | 'trigger'> => ({
    inject: ({ directory }) => {
      fs.renameSync(directory, `${directory}-moved`)
      put(directory)
    },
    // The look between two rotations finds it.
    trigger: () => {},
    repair: ({ directory }) => {
      fs.rmSync(directory, { recursive: true })
      fs.renameSync(`${directory}-moved`, directory)
    },
  })

  test('F11 a directory that is moved away, with a link to another one in its place, is not written to; put back, it goes on', async (t) => {
    await using rig = await rigWith()
    const evil = makeVolume(t)
    await survive(rig, {
      reason: ['volume_replaced', 'volume_unsafe'],
      ...replaced((directory) => fs.symlinkSync(evil, directory)),
      meanwhile: {
        files: 'away',
        also: ({ held }) => {
          assert.deepEqual(fs.readdirSync(evil), [])
          assert.equal(readPair(`${rig.directory}-moved`, 'generation'), held.fingerprint)
        },
      },
      afterwards: { set: 'old' },
    })
  })

  test('F11 a directory of somebody else in its place is not written to either', needsRoot, async () => {
    await using rig = await rigWith()
    await survive(rig, {
      reason: ['volume_replaced', 'volume_unsafe'],
      ...replaced((directory) => {
        fs.mkdirSync(directory, { mode: 0o700 })
        fs.chownSync(directory, STRANGER, STRANGER)
      }),
      meanwhile: { files: 'away', also: () => assert.deepEqual(fs.readdirSync(rig.directory), []) },
      afterwards: { set: 'old' },
    })
  })

  test('F11 a directory of our own in its place is told, and gets the certificate that is in service', async () => {
    await using rig = await rigWith()
    const { fingerprint } = await rig.certferry.certificate('web', 'is in service', isWell)
    fs.rmSync(rig.directory, { recursive: true })
    fs.mkdirSync(rig.directory, { mode: 0o700 })
    await until('it is told', () =>
      rig.certferry.log('rotation.failed').some((line) => line.reason === 'volume_replaced'),
    )
    await assertUnharmed(rig, fingerprint)
    assert.ok(rig.certferry.log('rotation.recovered').length > 0)
  })

  const FOREIGN: Readonly<Record<string, [name: string, make: (path: string) => void]>> = {
    'a FIFO': ['tls.key', (path) => execFileSync('mkfifo', [path])],
    'a directory': ['tls.crt', (path) => fs.mkdirSync(path)],
    'a socket': ['..prev', (path) => spawnSync(process.execPath, ['-e', LISTEN_AND_DIE, path])],
    'a device': ['..state.json', (path) => execFileSync('mknod', [path, 'c', '1', '3'])],
  }
  for (const [what, [name, make]] of Object.entries(FOREIGN)) {
    const only = what === 'a device' ? needsRoot : {}
    test(
      `F12 ${what} at ${name} is named, neither opened nor removed, and costs no certificate; taken away, all goes on`,
      only,
      async () => {
        await using rig = await rigWith()
        const path = join(rig.directory, name)
        const asked = () => rig.proxy.requests.filter(({ url }) => url.startsWith('/v1/pki/sign/')).length
        let foreign: fs.Stats | undefined
        await survive(rig, {
          reason: 'foreign_object',
          inject: () => {
            fs.rmSync(path, { force: true })
            make(path)
            foreign = fs.lstatSync(path)
          },
          repair: () => fs.rmSync(path, { recursive: true }),
          meanwhile: {
            files: 'away',
            also: ({ held }) => {
              assert.ok(held.lastError?.message.includes(path), held.lastError?.message)
              const { ino, mode, mtimeMs } = fs.lstatSync(path)
              assert.deepEqual([ino, mode, mtimeMs], [foreign?.ino, foreign?.mode, foreign?.mtimeMs])
              assert.equal(asked(), 1)
            },
          },
        })
      },
    )
  }

  for (const umask of ['0', '0277'])
    test(`F13 under umask ${umask} every file, directory and socket gets its mode`, async () => {
      const before = ['sh', '-c', `umask ${umask}; exec "$@"`, 'sh']
      await using rig = await rigWith({ certferry: { before } })
      await rotated(rig)
      assertTidy(rig.directory)
      assert.equal(fs.statSync(rig.directory).mode & 0o7777, 0o700)
      assert.equal(fs.statSync(rig.stage.socket).mode & 0o777, 0o600)
    })

  test(
    'F13 a file given to somebody else, and a directory opened to others, are put right, told and counted',
    needsRoot,
    async () => {
      await using rig = await rigWith()
      const { fingerprint } = await rig.certferry.certificate('web', 'is in service', isWell)
      const generation = currentIn(rig.directory)
      fs.chownSync(join(generation, 'tls.key'), STRANGER, STRANGER)
      fs.chmodSync(generation, 0o755)
      await until('both are told', () => told(rig, generation) && told(rig, join(generation, 'tls.key')))
      await assertUnharmed(rig, fingerprint)
      assert.ok(((await rig.certferry.metric('certferry_tamper_total{certificate="web"}')) ?? 0) >= 2)
    },
  )

  test('F14 temporary files, links and half-made generations of a crash go before the next write, and at the next start', async () => {
    await using rig = await rigWith()
    leaveBehind(rig.directory)
    await rotated(rig)
    assertTidy(rig.directory)
    assert.deepEqual(leftIn(rig.directory), [])

    await rig.certferry.stop()
    const { fingerprint } = leaveBehind(rig.directory)
    await using next = rig.stage.certferry()
    const well = await next.certificate('web', 'is in service', isWell)
    assert.equal(well.fingerprint, fingerprint)
    assert.deepEqual(leftIn(rig.directory), [])
    assert.equal(await rig.stage.issued(), 2)
  })

  test('F16 a directory that somebody empties is filled again, with the certificate that is in service', async () => {
    await using rig = await rigWith()
    const { fingerprint } = await rig.certferry.certificate('web', 'is in service', isWell)
    for (const name of fs.readdirSync(rig.directory)) fs.rmSync(join(rig.directory, name), { recursive: true })
    await until('it is told', () => told(rig, join(rig.directory, '..data')))
    await until('it is filled', () => readPair(rig.directory, rig.layout) === fingerprint)
    await assertUnharmed(rig, fingerprint)
  })

  for (const layout of ['nginx-include', 'flat'] as const)
    test(`F16 a certificate and key exchanged for a pair of somebody else do not stay (${layout})`, async () => {
      await using rig = await rigWith({ web: { layout } })
      await using other = await rigWith({ web: { layout } })
      const { fingerprint } = await rig.certferry.certificate('web', 'is in service', isWell)
      for (const name of ['tls.crt', 'tls.key'])
        fs.writeFileSync(join(rig.directory, name), fs.readFileSync(join(other.directory, name)))
      await until('it is told', () => rig.certferry.log('tamper.repaired').length >= 2)
      rig.nginx?.reload()
      await assertUnharmed(rig, fingerprint)
    })

  test('F17 a hard link and an open descriptor to the old key never see the new one', async (t) => {
    await using rig = await rigWith()
    const { directory, certferry } = rig
    const link = join(makeVolume(t), 'kept')
    const key = () => fs.readFileSync(join(directory, 'tls.key'), 'utf8')
    const old = { key: key(), ...fs.statSync(join(directory, 'tls.key')) }
    const open = fs.openSync(join(directory, 'tls.key'), 'r')
    t.after(() => fs.closeSync(open))
    fs.linkSync(join(currentIn(directory), 'tls.key'), link)
    await until('the link is told', () => certferry.log('tamper.repaired').some(({ what }) => what === 'links'))
    await until('the key has an inode of its own', () => fs.statSync(join(directory, 'tls.key')).ino !== old.ino)
    await rotated(rig)
    assert.notEqual(key(), old.key)
    assert.equal(fs.readFileSync(link, 'utf8'), old.key)
    assert.equal(fs.readFileSync(open, 'utf8'), old.key)
    assertTidy(directory)
  })
})

const LISTEN_AND_DIE = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`

/** What a writer may leave that is stopped in the middle, by hand. */
function leaveBehind(directory: string): { readonly fingerprint: string } {
  const half = join(directory, '..gen-1-01234567')
  fs.cpSync(currentIn(directory), half, { recursive: true })
  fs.rmSync(join(half, '..manifest.json'))
  fs.writeFileSync(join(directory, '..tmp-0123456789abcdef'), 'half a key', { mode: 0o600 })
  fs.symlinkSync('..gen-1-01234567', join(directory, '..tmp-0123456789abcde0'))
  return { fingerprint: readPair(directory, 'nginx-include') }
}

const leftIn = (directory: string) =>
  [...fs.readdirSync(directory), ...generationsIn(directory)].filter((name) => /^\.\.tmp-|^\.\.gen-1-/.test(name))

// A start that is not refused would never end.
describe('F18 names in the config', { skip, concurrency: 4, timeout: 300_000 }, () => {
  const rows: Readonly<Record<string, [outputs: (volume: string) => object[], says: RegExp]>> = {
    'a directory with ..': [(volume) => [{ directory: `${volume}/web/../../etc` }], /must not contain "." or ".."/],
    'a relative directory': [() => [{ directory: 'web' }], /must be an absolute path/],
    'the root directory': [() => [{ directory: '/' }], /must be a directory of its own/],
    'a name with a path in it': [
      (volume) => [{ directory: `${volume}/web`, files: { key: '../tls.key' } }],
      /without "\/"/,
    ],
    'an absolute name': [(volume) => [{ directory: `${volume}/web`, files: { key: '/etc/passwd' } }], /without "\/"/],
    "a name of certferry's own": [
      (volume) => [{ directory: `${volume}/web`, files: { key: '..data' } }],
      /certferry's own/,
    ],
    'a name of more than 255 bytes': [
      (volume) => [{ directory: `${volume}/web`, files: { key: 'k'.repeat(256) } }],
      /not be longer than 200 bytes/,
    ],
    'a name with NUL': [
      (volume) => [{ directory: `${volume}/web`, files: { key: 'tls\0.key' } }],
      /control characters/,
    ],
    'a name with a line break': [
      (volume) => [{ directory: `${volume}/web`, files: { key: 'tls.key\nssl_certificate_key /etc/x' } }],
      /control characters/,
    ],
    "the name of certferry's state": [
      (volume) => [{ directory: `${volume}/web`, files: { key: '..state.json' } }],
      /certferry's own/,
    ],
    'two files of one name': [
      (volume) => [{ directory: `${volume}/web`, files: { certificate: 'tls.pem', key: 'tls.pem' } }],
      /names a file twice/,
    ],
    'a directory with NUL': [(volume) => [{ directory: `${volume}/web\0` }], /control characters/],
    'one file of two outputs': [
      (volume) => [{ directory: `${volume}/web` }, { directory: `${volume}/web/` }],
      /another output writes .*\/web\/ca\.crt already/,
    ],
    'outputs that would be moved to another directory': [
      (volume) => [{ directory: `${volume}/web`, files: { certificate: 'other/tls.crt' } }],
      /the place is given by directory/,
    ],
  }
  for (const [what, [outputs, says]] of Object.entries(rows)) {
    const ids = what.startsWith('outputs') ? 'F5, F18' : 'F18'
    test(`${ids} ${what}: the start ends with 78 and says where; nothing is written, nobody asked; mended, it starts`, () =>
      refusedAtStart(outputs, says))
  }

  for (const [written, read] of Object.entries({ '0600': 600, '0640': 640, '0o600': 0o600, '600': 600 })) {
    const says = new RegExp(`mode: must be a quoted octal string such as '0600', not the number ${read} `)
    test(`G2 mode: ${written} without quotes: the start ends with 78, and says what YAML made of it; mended, it starts`, () =>
      refusedAtStart(
        (volume) => [{ directory: `${volume}/web`, mode: 'here' }],
        says,
        (config) => config.replace('"here"', written),
      ))
  }

  async function refusedAtStart(
    outputs: (volume: string) => object[],
    says: RegExp,
    edit: (config: string) => string = (config) => config,
  ) {
    assert.ok(vault)
    await using stage = await createStage({ vault, program })
    fs.rmdirSync(join(stage.volume, 'web'))
    const bad = outputs(stage.volume).map((output) => ({ kind: 'pem', ...output }))
    const good = { ...stage.web({ name: 'good', served: false }) }
    await stage.configure({ ...stage.web({ served: false }), outputs: bad }, good)
    await stage.place('config.yaml', edit(fs.readFileSync(stage.configFile, 'utf8')))
    await using certferry = stage.certferry()
    assert.equal((await certferry.ended).code, 78)
    assert.match(certferry.stderr(), says)
    assert.match(certferry.stderr(), /config\.yaml:\d+:\d+/)
    assert.deepEqual(fs.readdirSync(stage.volume), [])
    assert.equal(fs.existsSync(stage.socket), false)
    assert.equal(await stage.issued(), 0)
    await stage.configure(stage.web({ served: false }), good)
    await using mended = stage.certferry()
    for (const name of ['web', 'good']) await mended.certificate(name, 'is delivered', isWell)
  }
})
