import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { skipReason } from '../../support/components.ts'
import { askForRotation, bundleOnce, createRig, isWell, type Rig, servedBy } from '../../support/fault-rig.ts'
import { attachStrace } from '../../support/strace.ts'
import { until } from '../../support/until.ts'
import { startVault } from '../../support/vault.ts'
import { assertTidy, readPair } from '../../support/volume.ts'

const skip = await skipReason('vault', 'nginx', 'strace')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

/** All file work in one thread, so that calls can be counted. */
const ENV = { UV_THREADPOOL_SIZE: '1' }

interface Stop {
  /** Brings a rotation to the moment at which it is to be stopped. */
  readonly reach: (rig: Rig) => Promise<AsyncDisposable | undefined>
  /** Certificates issued by then, or left in hand by the stop. */
  readonly issued: number
}

const isSign = ({ url }: { url: string }) => url.startsWith('/v1/pki/sign/')

/** In a call of the write that takes its time, of the kind that `rule` delays. */
const inSlow =
  (rule: string): Stop['reach'] =>
  async (rig) => {
    const logPath = join(rig.stage.folder, 'calls')
    let strace: Promise<AsyncDisposable> | undefined
    // Once Vault is asked, the probe of the disk lies behind.
    rig.proxy.onRequest = async (request) => {
      if (isSign(request)) strace ??= attachStrace(rig.certferry.pid, [rule], logPath)
      await strace
      return undefined
    }
    await askForRotation(rig)
    const name = rule.slice(0, rule.indexOf(':'))
    await until(`${name} is slow`, () => readFileSync(logPath, 'utf8').includes(`${name}(`))
    return strace
  }

const STOPS: Readonly<Record<string, Stop>> = {
  'while Vault is asked': {
    reach: async (rig) => {
      const arrived = Promise.withResolvers<void>()
      rig.proxy.onRequest = (request) => {
        if (!isSign(request)) return undefined
        arrived.resolve()
        return { kind: 'silence' }
      }
      await askForRotation(rig)
      await arrived.promise
      return undefined
    },
    issued: 1,
  },
  'while the files are written to a slow disk': { reach: inSlow('fchmod:delay_enter=300000'), issued: 2 },
  'while the files are written to a disk that is too slow for it': {
    reach: inSlow('fsync:delay_enter=900000'),
    issued: 2,
  },
  'at the commit': { reach: inSlow('rename:delay_enter=200000'), issued: 2 },
  'while clients are looked for that get the new certificate': {
    reach: async (rig) => {
      await askForRotation(rig)
      await until('the target is told', () => rig.certferry.log('reload.finished').some(({ ok }) => ok))
      return undefined
    },
    issued: 2,
  },
}

describe('SIGTERM', { skip, concurrency: 5 }, () => {
  for (const [when, { reach, issued }] of Object.entries(STOPS))
    test(`P1 and X1 ${when}: ends within five seconds, whole sets and clients served, and the next start issues nothing more`, async (t) => {
      assert.ok(vault)
      // A disk is reached by threads, a volume in memory at once.
      const volumeIn = /\bdisk\b/.test(when) ? tmpdir() : undefined
      await using rig = await createRig({ vault, program, certferry: { env: ENV }, ...(volumeIn && { volumeIn }) })
      const { certferry, directory, layout, stage } = rig
      const { fingerprint: old } = await certferry.certificate('web', 'is in service', isWell)
      await using _slow = await reach(rig)
      const { code, signal, tookMs } = await certferry.stop()
      t.diagnostic(`ended after ${tookMs.toFixed(0)} ms`)
      // In a call that is slow at the deadline it is killed, for Node would wait for the end of that call.
      if (signal !== 'SIGKILL' || !when.endsWith('too slow for it')) assert.equal(code, 0, certferry.stderr())
      assert.ok(tookMs < 5_000, `${tookMs} ms`)
      assert.equal(certferry.stderr(), '')
      const found = readPair(directory, layout)
      const served = await servedBy(stage)
      assert.ok(served === old || served === found, 'clients get neither the old set nor the new one')

      rig.proxy.onRequest = () => undefined
      await using next = stage.certferry()
      const well = await next.certificate('web', 'is in service', isWell)
      assert.equal(readPair(directory, layout), well.fingerprint)
      assert.equal(await servedBy(stage), well.fingerprint)
      assertTidy(directory)
      assert.equal(await stage.issued(), issued)
    })
})
