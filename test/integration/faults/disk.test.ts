import assert from 'node:assert/strict'
import { readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { skipReason } from '../../support/components.ts'
import {
  askForRotation,
  bundleOnce,
  createRig,
  type FaultPlan,
  isWell,
  type Rig,
  survive,
  untilFailed,
} from '../../support/fault-rig.ts'
import { createStage, type WebOptions } from '../../support/stage.ts'
import { attachStrace } from '../../support/strace.ts'
import { fill, fillInodes, mountsReason, mountTmpfs, type Tmpfs, type TmpfsOptions } from '../../support/tmpfs.ts'
import { startVault } from '../../support/vault.ts'
import { generationsIn, readPair } from '../../support/volume.ts'

const skip = (await skipReason('vault', 'nginx', 'strace')) || mountsReason()
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

interface DiskFault extends TmpfsOptions {
  readonly plan: (tmpfs: Tmpfs) => FaultPlan
  readonly web?: WebOptions
}

const asksForCertificate = ({ url }: { url: string }) => url.startsWith('/v1/pki/sign/')
const asked = ({ proxy }: Rig) => proxy.requests.filter(asksForCertificate).length

/** A fault that stops every rotation before Vault is asked for anything. */
function beforeVault(plan: FaultPlan): FaultPlan {
  let before = 0
  return {
    ...plan,
    inject: async (rig) => {
      before = asked(rig)
      await plan.inject(rig)
    },
    meanwhile: {
      ...plan.meanwhile,
      also: async (story) => {
        await untilFailed(story.rig.certferry, 2)
        await plan.meanwhile?.also?.(story)
        assert.equal(asked(story.rig), before, 'Vault was asked while nothing could be written')
      },
    },
  }
}

/** Where `inject` makes something that `repair` takes away. */
function undoing(make: (rig: Rig) => (() => unknown) | Promise<() => unknown>): Pick<FaultPlan, 'inject' | 'repair'> {
  let undo: () => unknown = () => {}
  return {
    inject: async (rig) => {
      undo = await make(rig)
    },
    repair: async () => {
      await undo()
    },
  }
}

/** The same for a fault that comes up once Vault was asked: the disk was found writable, and is not any more when the answer is there. */
function whileVaultAnswers(make: (rig: Rig) => (() => unknown) | Promise<() => unknown>) {
  let undo: (() => unknown) | undefined
  const plan: Pick<FaultPlan, 'inject' | 'repair'> = {
    inject: (rig) => {
      rig.proxy.onRequest = async (request) => {
        if (asksForCertificate(request)) undo ??= await make(rig)
        return undefined
      }
    },
    repair: async () => {
      await undo?.()
    },
  }
  return plan
}

/** What a call of the running certferry comes to, until it is let go of. */
const failing = async ({ certferry }: Rig, ...inject: readonly string[]) => {
  const strace = await attachStrace(certferry.pid, inject)
  return () => strace[Symbol.asyncDispose]()
}

/** A certificate longer than a page of memory. */
const LONG = { altNames: Array.from({ length: 90 }, (_, index) => `a-name-that-takes-room-${index}.example.com`) }

const FAULTS: Readonly<Record<string, DiskFault>> = {
  'F1 a full disk': {
    size: '512k',
    plan: ({ path }) => beforeVault({ reason: 'disk_full', ...undoing(() => fill(path)) }),
  },
  'F1 a quota that is used up': {
    plan: () => beforeVault({ reason: 'disk_full', ...undoing((rig) => failing(rig, 'pwrite64:error=EDQUOT')) }),
  },
  'F2 a disk that fills up with half a file written': {
    size: '512k',
    web: LONG,
    plan: ({ path }) => ({
      reason: 'disk_full',
      // ca.crt and tls.key take a page each, tls.crt two.
      ...whileVaultAnswers(() => fill(path, { pagesLeft: 3 })),
      meanwhile: { also: ({ held }) => assert.match(held.lastError?.message ?? '', /write .*tls\.crt.*ENOSPC/) },
    }),
  },
  'F3 a disk without inodes': {
    inodes: 100,
    plan: ({ path }) => beforeVault({ reason: 'disk_full', ...undoing(() => fillInodes(path)) }),
  },
  'F3 a disk whose last inode goes while Vault answers': {
    inodes: 100,
    plan: ({ path }) => ({ reason: 'disk_full', ...whileVaultAnswers(() => fillInodes(path)) }),
  },
  'F4 a volume that becomes read-only': {
    plan: (tmpfs) =>
      beforeVault({
        reason: 'volume_unavailable',
        inject: () => tmpfs.remount('ro'),
        repair: () => tmpfs.remount('rw'),
      }),
  },
  'F4 a stale file handle': {
    plan: () => beforeVault({ reason: 'volume_unavailable', ...undoing((rig) => failing(rig, 'statfs:error=ESTALE')) }),
  },
  'F7 a disk that reports an I/O error at fsync': {
    plan: () => beforeVault({ reason: 'write_failed', ...undoing((rig) => failing(rig, 'fsync:error=EIO')) }),
  },
}

describe('the disk', { skip, concurrency: 6 }, () => {
  for (const [name, { plan, web, ...options }] of Object.entries(FAULTS))
    test(`${name} is told, keeps the set in service, and does not outlive its cause`, async () => {
      assert.ok(vault)
      await using tmpfs = await mountTmpfs(options)
      await using rig = await createRig({ vault, program, volumeIn: tmpfs.path, ...(web && { web }) })
      await survive(rig, plan(tmpfs))
    })

  test('F4 a volume that is taken away, and comes back empty, gets the set that is in service, and nothing is issued', async () => {
    assert.ok(vault)
    await using tmpfs = await mountTmpfs()
    await using rig = await createRig({ vault, program, volumeIn: tmpfs.path })
    await survive(rig, {
      reason: ['volume_replaced', 'volume_unavailable'],
      inject: () => tmpfs.unmount(),
      trigger: () => {},
      repair: () => tmpfs.run('mount -t tmpfs -o mode=0755 tmpfs "$1"'),
      meanwhile: { files: 'away' },
      afterwards: { set: 'old' },
    })
    assert.equal(asked(rig), 1)
  })

  test('F5 directories on two file systems are written each by itself: nothing is moved from one to the other', async () => {
    assert.ok(vault)
    await using first = await mountTmpfs()
    await using second = await mountTmpfs()
    await using stage = await createStage({ vault, program, volumeIn: first.path })
    const directories = [join(stage.volume, 'web'), join(second.path, 'web')]
    await stage.configure({
      ...stage.web({ served: false }),
      outputs: directories.map((directory) => ({ kind: 'pem', directory })),
    })
    await using certferry = stage.certferry()
    const { serial } = await certferry.certificate('web', 'is delivered', isWell)
    await askForRotation({ certferry })
    const { fingerprint } = await certferry.certificate(
      'web',
      'is rotated',
      (now) => isWell(now) && now.serial !== serial,
    )
    for (const directory of directories) assert.equal(readPair(directory, 'generation'), fingerprint)
    assert.deepEqual(certferry.log('rotation.failed'), [])
  })

  test('F6 a single file that is mounted into the directory ends the start with 78, says what to mount, and nothing is written', async () => {
    assert.ok(vault)
    await using tmpfs = await mountTmpfs()
    await using stage = await createStage({ vault, program, volumeIn: tmpfs.path })
    await stage.configure(stage.web({ served: false }))
    const file = tmpfs.inside(join(stage.volume, 'web', 'tls.crt'))
    const mount = `touch "$1/alone" "${file}"; mount --bind "$1/alone" "${file}"`
    await tmpfs.run(mount)
    await using refused = stage.certferry({ before: tmpfs.enter })
    assert.equal((await refused.ended).code, 78)
    assert.match(refused.stderr(), /tls\.crt is a mount of a single file.*mount the directory instead/)
    assert.deepEqual(readdirSync(join(stage.volume, 'web')), ['tls.crt'])
    assert.equal(await stage.issued(), 0)

    await tmpfs.run(`umount "${file}"; rm "${file}"`)
    await using mended = stage.certferry({ before: tmpfs.enter })
    await mended.certificate('web', 'is delivered', isWell)
  })

  test('F6 a single file that is mounted over a name while certferry runs stops the rotation before Vault is asked', async () => {
    assert.ok(vault)
    await using tmpfs = await mountTmpfs()
    await using rig = await createRig({
      vault,
      program,
      volumeIn: tmpfs.path,
      web: { layout: 'flat' },
      certferry: { before: tmpfs.enter },
    })
    const file = tmpfs.inside(join(rig.directory, 'tls.crt'))
    await survive(
      rig,
      beforeVault({
        reason: 'volume_unsafe',
        inject: () => tmpfs.run(`mount --bind "${file}" "${file}"`),
        repair: () => tmpfs.run(`umount "${file}"`),
      }),
    )
  })

  test('F7 a set whose commit may not have reached the disk is not trusted: the next try makes another', async () => {
    assert.ok(vault)
    await using tmpfs = await mountTmpfs()
    const certferry = { env: { UV_THREADPOOL_SIZE: '1' } }
    await using rig = await createRig({ vault, program, volumeIn: tmpfs.path, certferry })
    const before = generationsIn(rig.directory)
    let doubtful: string[] = []
    await survive(rig, {
      reason: 'write_failed',
      ...whileVaultAnswers((rig) => failing(rig, `fsync:error=EIO:when=${SYNCS_BEFORE_COMMIT + 1}+`)),
      meanwhile: {
        files: 'away',
        also: ({ rig }) => {
          doubtful = generationsIn(rig.directory).filter((name) => !before.includes(name))
          assert.equal(doubtful.length, 1, 'the generation was complete')
        },
      },
      afterwards: {
        also: ({ rig }) => {
          const made = generationsIn(rig.directory).filter((name) => !before.includes(name))
          assert.ok(made.length > 0 && !doubtful.includes(readlinkSync(join(rig.directory, '..data'))), `${made}`)
        },
      },
    })
  })
})

/** Six files, their directory and the one above. */
const SYNCS_BEFORE_COMMIT = 8
