import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { LAYOUTS, type Layout } from '../../../src/outputs/output.ts'
import type { Certferry } from '../../support/certferry.ts'
import { skipReason } from '../../support/components.ts'
import { askForRotation, bundleOnce, createRig, isWell, type Rig, servedBy } from '../../support/fault-rig.ts'
import { attachStrace, callsIn, numbered } from '../../support/strace.ts'
import { startVault } from '../../support/vault.ts'
import { assertTidy, readPair } from '../../support/volume.ts'

const skip = await skipReason('vault', 'nginx', 'strace')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

/** All file work in one thread, so that the calls of two rotations are the same ones. */
const ENV = { UV_THREADPOOL_SIZE: '1' }

describe('the whole process', { skip, concurrency: 3 }, () => {
  for (const layout of LAYOUTS)
    test(`F8 killed at the first and at the last call of each kind that a rotation makes: whole sets on disk and in service, and the next start goes on without issuing (${layout})`, async (t) => {
      assert.ok(vault)
      const web = { layout, ttl: '2h', more: {} }
      await using rig = await createRig({ vault, program, web, certferry: { env: ENV } })
      const points = await pointsOfRotation(rig)
      const mixed: string[] = []
      await using stack = new AsyncDisposableStack()
      let { certferry } = rig
      for (const point of points) {
        const { wasMixed, next } = await killAt(rig, certferry, point)
        certferry = stack.use(next)
        if (wasMixed) mixed.push(`${point.name} ${point.when}`)
      }
      // Between the rename of the key and that of the certificate, plain files cannot match; the next start mends it.
      assert.ok(mixed.length <= (layout === 'flat' ? 1 : 0), `mixed after ${mixed}`)
      t.diagnostic(`killed at ${points.map(({ name, when }) => `${name} ${when}`).join(', ')}`)
    })
})

type Point = ReturnType<typeof numbered>[number]

/** The first and the last call of each kind in a rotation that nothing disturbs. */
async function pointsOfRotation(rig: Rig): Promise<readonly Point[]> {
  const logPath = join(rig.stage.folder, 'calls')
  const strace = await attachStrace(rig.certferry.pid, [], logPath)
  await rotated(rig.certferry)
  await strace[Symbol.asyncDispose]()
  const kinds = Map.groupBy(numbered(callsIn(logPath)), ({ name }) => name)
  const points = [...kinds.values()].flatMap((calls) => [...new Set([calls[0], calls.at(-1)])])
  return points.filter((point) => point !== undefined)
}

async function rotated(certferry: Certferry) {
  const { serial } = await certferry.certificate('web', 'is in service', isWell)
  await askForRotation({ certferry })
  return certferry.certificate('web', 'is rotated', (status) => isWell(status) && status.serial !== serial)
}

/** Kills a certferry before this call of a rotation, looks at what it left, and sees the next one take over. */
async function killAt({ stage, directory, layout }: Rig, killed: Certferry, { name, when }: Point) {
  const where = `killed before ${name} ${when}`
  const old = await killed.certificate('web', `${where}: is in service before`, isWell)
  await using strace = await attachStrace(killed.pid, [`${name}:signal=KILL:when=${when}`])
  await askForRotation({ certferry: killed })
  assert.equal((await killed.ended).signal, 'SIGKILL', where)
  await strace[Symbol.asyncDispose]()
  const found = fingerprintIn(directory, layout)
  const [served, issued] = [await servedBy(stage), await stage.issued()]
  assert.ok(served === old.fingerprint || served === found, `${where}: clients get neither the old set nor the new one`)

  const next = stage.certferry({ env: ENV })
  const well = await next.certificate('web', `${where}: is in service after`, isWell)
  assert.equal(readPair(directory, layout), well.fingerprint, where)
  assert.equal(await servedBy(stage), well.fingerprint, where)
  if (found !== undefined && found !== old.fingerprint) assert.equal(well.fingerprint, found, `${where}: it went back`)
  assertTidy(directory)
  assert.equal(await stage.issued(), issued, `${where}: the start issued one more`)
  return { wasMixed: found === undefined, next }
}

/** undefined where certificate and key do not match. */
function fingerprintIn(directory: string, layout: Layout): string | undefined {
  try {
    return readPair(directory, layout)
  } catch {
    return undefined
  }
}
