import assert from 'node:assert/strict'
import { appendFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createTestCa } from '../../support/ca.ts'
import { skipReason } from '../../support/components.ts'
import {
  assertNoFailure,
  bundleOnce,
  createRig,
  type Rig,
  rotateWell,
  servedBy,
  survive,
} from '../../support/fault-rig.ts'
import { type Haproxy, startHaproxy } from '../../support/haproxy.ts'
import type { Stage } from '../../support/stage.ts'
import { until } from '../../support/until.ts'
import { startVault } from '../../support/vault.ts'

const skip = await skipReason('vault', 'haproxy')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const COMMIT = fileURLToPath(new URL('../../fixtures/haproxy-commit.ts', import.meta.url))
const other = await (await createTestCa()).issue({ commonName: 'other.example.com' })

interface Place extends Rig {
  readonly haproxy: Haproxy
  /** A second HAProxy from the same files, once the first one has ended. */
  readonly startAgain: () => Promise<Haproxy>
}

interface PlaceOptions {
  readonly bind?: (stage: Stage) => string
  readonly reload: (stage: Stage) => object
}

const pemOf = ({ volume }: Stage) => join(volume, 'haproxy', 'tls.pem')
const socketOf = ({ folder }: Stage) => join(folder, 'stats.sock')
const otherOf = ({ folder }: Stage) => join(folder, 'other.pem')

/** certferry with the combined file, served by a HAProxy that began with it. */
async function place({ bind = () => '', reload }: PlaceOptions): Promise<Place> {
  assert.ok(vault)
  const running: Haproxy[] = []
  const start = async (stage: Stage) => {
    const { port, pidFile } = stage
    const options = { port, pidFile, certificate: pemOf(stage), socket: socketOf(stage), bind: bind(stage) }
    const haproxy = await startHaproxy(options)
    running.push(haproxy)
    return haproxy
  }
  const rig = await createRig({
    vault,
    program,
    serve: start,
    web: (stage) => ({
      verify: { deadline: '2s' },
      more: {
        outputs: [
          { kind: 'pem', directory: join(stage.volume, 'web'), layout: 'nginx-include' },
          { kind: 'combined', directory: join(stage.volume, 'haproxy') },
        ],
        reload: [reload(stage)],
      },
    }),
    prepare: async (stage) => {
      await stage.place('other.pem', `${other.keyPem}${other.certificatePem}`)
      script(stage, commit(stage))
    },
  })
  const [haproxy] = running
  assert.ok(haproxy)
  const dispose = async () => {
    for (const one of running) await one[Symbol.asyncDispose]()
    await rig[Symbol.asyncDispose]()
  }
  return { ...rig, haproxy, startAgain: () => start(rig.stage), [Symbol.asyncDispose]: dispose }
}

const bySignal = ({ pidFile }: Stage) => ({ kind: 'signal', pidFile, signal: 'SIGUSR2' })

const scriptOf = ({ folder }: Stage) => join(folder, 'reload')
const byRuntimeApi = (stage: Stage) => ({ kind: 'exec', command: ['/bin/sh', scriptOf(stage)] })

/** What the reload runs; replaced by rename. */
function script(stage: Stage, text: string) {
  writeFileSync(`${scriptOf(stage)}.new`, `${text}\n`)
  renameSync(`${scriptOf(stage)}.new`, scriptOf(stage))
}

const commit = (stage: Stage, { name = pemOf(stage), file = pemOf(stage) } = {}) =>
  `${process.execPath} ${COMMIT} ${socketOf(stage)} ${name} ${file}`

/** The script fails like this for any but the certificate in service. */
const refusing = (text: (stage: Stage) => string) => async (place: Place) => {
  const { serial } = await place.certferry.certificate('web', 'is told', () => true)
  script(
    place.stage,
    `if [ "$CERTFERRY_SERIAL" != ${serial} ]; then\n${text(place.stage)}\nelse\n${commit(place.stage)}\nfi`,
  )
}
const mend = ({ stage }: Place) => script(stage, commit(stage))

interface Refusal {
  readonly reason: 'reload_failed' | 'rollback_failed'
  readonly says: RegExp
  readonly inject: (place: Place) => unknown
  readonly repair: (place: Place) => unknown
}

const REFUSALS: Readonly<Record<string, Refusal>> = {
  'knows the file by another name': {
    reason: 'reload_failed',
    says: /is not referenced by the configuration/,
    inject: refusing((stage) => commit(stage, { name: '/nowhere/tls.pem' })),
    repair: mend,
  },
  'is given a key of something else': {
    reason: 'reload_failed',
    says: /inconsistencies between private key and certificate/,
    inject: refusing((stage) => {
      const mixed = join(stage.folder, 'mixed.pem')
      return [
        `sed '/BEGIN CERTIFICATE/,$d' ${otherOf(stage)} > ${mixed}`,
        `sed -n '/BEGIN CERTIFICATE/,$p' ${pemOf(stage)} >> ${mixed}`,
        commit(stage, { file: mixed }),
      ].join('\n')
    }),
    repair: mend,
  },
  'is given a payload that a blank line cuts short': {
    reason: 'reload_failed',
    // What follows the blank line is taken for commands, so HAProxy explains its own.
    says: /show acl/,
    inject: refusing((stage) => {
      const cut = join(stage.folder, 'cut.pem')
      return `sed 's/^-----BEGIN CERTIFICATE/\\n&/' ${pemOf(stage)} > ${cut}\n${commit(stage, { file: cut })}`
    }),
    repair: mend,
  },
  'is in a transaction of somebody else': {
    // Nor can the old one be put back by the same way.
    reason: 'rollback_failed',
    says: /ongoing transaction is about/,
    inject: async ({ haproxy, stage }) => {
      const file = otherOf(stage)
      const answer = await haproxy.ask(`set ssl cert ${file} <<\n${readFileSync(file, 'utf8')}`)
      assert.match(answer, /Transaction created/)
    },
    repair: async ({ haproxy, stage }) => {
      assert.match(await haproxy.ask(`abort ssl cert ${otherOf(stage)}`), /aborted/)
    },
  },
}

describe('a HAProxy that is given certificates through its stats socket', { skip, concurrency: 6 }, () => {
  for (const [claim, { reason, says, inject, repair }] of Object.entries(REFUSALS))
    test(`R18 a HAProxy that ${claim} refuses, serves the old certificate, and takes the same new one afterwards`, async () => {
      await using rig = await place({ reload: byRuntimeApi, bind: (stage) => `crt ${otherOf(stage)}` })
      await survive(rig, {
        reason,
        inject: async () => void (await inject(rig)),
        meanwhile: {
          files: reason === 'rollback_failed' ? 'new' : 'old',
          served: 'old',
          also: ({ held }) => assert.match(held.lastError?.message ?? '', says),
        },
        repair: async () => void (await repair(rig)),
      })
    })

  test('R19 what was committed to memory only is on disk as well, so that a HAProxy that is reloaded or starts again serves it', async () => {
    await using rig = await place({ reload: byRuntimeApi })
    const { haproxy, stage, certferry, startAgain } = rig
    // Before HAProxy was there the first certificate could not be told.
    const failures = () => certferry.log('rotation.failed').length
    const before = failures()
    const worker = await workerOf(haproxy)
    const { fingerprint } = await rotateWell(rig)
    assert.equal(await workerOf(haproxy), worker, 'nothing was reloaded')
    assert.equal(await servedBy(stage), fingerprint)

    process.kill(Number(readFileSync(stage.pidFile, 'utf8')), 'SIGUSR2')
    await until('another worker serves', async () => (await workerOf(haproxy)) !== worker)
    assert.equal(await servedBy(stage), fingerprint, 'after a reload')

    await haproxy.stop('SIGKILL')
    const again = await startAgain()
    assert.equal(await servedBy(stage), fingerprint, 'after a start')
    assert.notEqual(await workerOf(again), worker)
    const next = await rotateWell(rig)
    assert.equal(await servedBy(stage), next.fingerprint)
    assert.equal(failures(), before, 'nothing failed')
  })
})

async function workerOf(haproxy: Haproxy): Promise<string> {
  const [, pid] = /^Pid: (\d+)$/m.exec(await haproxy.ask('show info')) ?? []
  assert.ok(pid)
  return pid
}

describe('a HAProxy that is reloaded by a signal to its master', { skip, concurrency: 6 }, () => {
  for (const version of ['TLSv1.2', 'TLSv1.3'])
    test(`R16 a HAProxy that refuses clients without a certificate by ${version} is proven all the same`, async () => {
      await using rig = await place({
        reload: bySignal,
        bind: ({ caFile }) => `verify required ca-file ${caFile} ssl-max-ver ${version} ssl-min-ver ${version}`,
      })
      const { fingerprint } = await rotateWell(rig)
      assertNoFailure(rig)
      assert.equal(await servedBy(rig.stage), fingerprint)
    })

  test('R9, R17 a HAProxy that resumes sessions and does not obey is found out, and serves the new one once it can', async () => {
    await using rig = await place({ reload: bySignal })
    const { configFile } = rig.haproxy
    const config = readFileSync(configFile, 'utf8')
    await survive(rig, {
      reason: 'reload_not_effective',
      inject: () => appendFileSync(configFile, '\nbogus on\n'),
      meanwhile: { also: () => assert.match(rig.haproxy.log(), /bogus/) },
      repair: () => writeFileSync(configFile, config),
    })
  })
})
