import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { rotateUnderLoad } from '../../campaigns/rotate.ts'
import { fingerprintOf } from '../../src/core/bundle.ts'
import { handshake } from '../../src/verifiers/handshake.ts'
import { skipReason } from '../support/components.ts'
import { createStage, SERVER_NAME, type Stage } from '../support/stage.ts'
import { until } from '../support/until.ts'
import { startVault } from '../support/vault.ts'
import { readPair } from '../support/volume.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()

const run = promisify(execFile)
const never = new AbortController().signal

async function stage(): Promise<Stage> {
  assert.ok(vault)
  return createStage({ vault })
}

for (const [layout, count] of [
  ['nginx-include', 20],
  ['generation', 10],
] as const) {
  test(`R10 ${count} rotations of a busy nginx in layout ${layout}: no handshake fails, no pair is mixed`, {
    skip,
  }, async (t) => {
    await using place = await stage()
    const { complaints, ...figures } = await rotateUnderLoad(place, { count, layout, clients: 3 })
    t.diagnostic(JSON.stringify(figures))
    assert.deepEqual(complaints, [])
    assert.equal(figures.failed + figures.mismatched, 0)
    assert.equal(figures.rotations, count)
  })
}

test('R9 an nginx that refuses the new certificate keeps the old one; the same new one is served once nginx is mended', {
  skip,
}, async () => {
  await using place = await stage()
  await place.configure(place.web({ verify: { deadline: '1s' } }))
  await using certferry = place.certferry()
  await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  await using nginx = await place.nginx()
  const old = await certferry.certificate('web', 'is proven', ({ verified }) => verified === 'verified')
  const mended = await readFile(nginx.configFile, 'utf8')
  await writeFile(nginx.configFile, `${mended}\nbogus_directive on;\n`)

  const { results } = await certferry.control.rotate({ certificates: ['web'], wait: true })
  assert.equal(results[0]?.error?.code, 'RELOAD_NOT_EFFECTIVE')
  const refused = await certferry.certificate('web', 'failed twice', ({ failures }) => failures >= 2)
  assert.deepEqual([refused.phase, refused.reason], ['DEGRADED', 'reload_not_effective'])
  assert.equal(refused.serial, old.serial, 'the disk is rolled back')
  assert.equal(readPair(`${place.volume}/web`, 'nginx-include'), old.fingerprint)
  assert.equal(await servedBy(place), old.fingerprint)
  assert.equal((await certferry.get('/readyz')).status, 200)
  assert.ok(((await certferry.metric('certferry_rollback_total{certificate="web"}')) ?? 0) >= 2)
  const [, fetched] = certferry.log('certificate.issued').map(({ serial }) => serial)
  assert.ok(fetched)
  assert.equal(await place.issued(), 2, 'nothing is issued again')

  await writeFile(nginx.configFile, mended)
  const served = await certferry.certificate('web', 'is ACTIVE again', ({ phase }) => phase === 'ACTIVE')
  assert.deepEqual([served.serial, served.verified, served.reason], [fetched, 'verified', null])
  assert.equal(await servedBy(place), served.fingerprint)
  assert.equal(await place.issued(), 2)
})

test('R1 an nginx that starts later is waited for: ready at once, verified when it is there, nothing issued again', {
  skip,
}, async () => {
  await using place = await stage()
  await place.configure(place.web())
  await using certferry = place.certferry()
  await until('certferry looked for nginx twice', () => certferry.log('rotation.waiting').length >= 2)
  const pending = await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  assert.deepEqual([pending.phase, pending.verified], ['ACTIVE', 'pending'])
  for (const path of ['/readyz', '/startupz', '/livez']) assert.equal((await certferry.get(path)).status, 200, path)
  await using _nginx = await place.nginx()
  const verified = await certferry.certificate('web', 'is proven', (one) => one.verified === 'verified')
  assert.equal(verified.serial, pending.serial)
  assert.equal(await servedBy(place), pending.fingerprint)
  assert.equal(await place.issued(), 1)
})

test('R14 whoever else makes nginx read its files in the middle of a rotation, gets a whole pair', {
  skip,
}, async (t) => {
  await using place = await stage()
  await place.configure(place.web())
  await using certferry = place.certferry()
  await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  await using nginx = await place.nginx()
  await certferry.certificate('web', 'is proven', ({ verified }) => verified === 'verified')
  const [program, ...args] = nginx.command
  let isOver = false
  let reads = 0
  const readAgain = async () => {
    for (; !isOver; reads += 1) await run(program, [...args, '-t'])
  }
  const readers = Promise.all([readAgain(), readAgain()])
  // Awaited below; until then a refusal is not forgotten, but not "unhandled" either.
  readers.catch(() => {})
  try {
    for (let count = 0; count < 5; count += 1) {
      const { results } = await certferry.control.rotate({ certificates: ['web'], wait: true })
      assert.ok(results[0]?.ok, results[0]?.error?.message)
    }
  } finally {
    isOver = true
    await readers
  }
  t.diagnostic(`${reads} reads of the files by nginx -t`)
  assert.ok(reads > 10)
})

async function servedBy({ port }: Stage): Promise<string | undefined> {
  const look = await handshake({ host: '127.0.0.1', port, serverName: SERVER_NAME, timeoutMs: 5_000 }, never)
  return look.up ? fingerprintOf(look.chain[0]) : undefined
}
