import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, chmodSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { mkdir, readFile, rename, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { bundleCli } from '../../tools/build.ts'
import type { Certferry } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { answer, startFaultProxy } from '../support/fault-proxy.ts'
import { listeningPorts } from '../support/listening.ts'
import { createStage, type Stage, type StageOptions } from '../support/stage.ts'
import { until } from '../support/until.ts'
import { startVault } from '../support/vault.ts'
import { assertTidy, readPair } from '../support/volume.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()

const programs = mkdtempSync(join(tmpdir(), 'certferry-test-'))
after(() => rmSync(programs, { recursive: true, force: true }))
/** What is published; it also starts sooner. */
const program = join(programs, 'cli.cjs')
await bundleCli(programs)

/** A certificate that nobody serves: its state is `verified: none`. */
const ALONE = { served: false, layout: 'generation' } as const

async function stage(options: Partial<StageOptions> = {}): Promise<Stage> {
  assert.ok(vault)
  return createStage({ vault, program, ...options })
}

const ready = (certferry: Certferry, name = 'web') =>
  certferry.certificate(name, 'is delivered', ({ phase, verified }) => phase === 'ACTIVE' && verified !== 'pending')

test('P4 and X2 30 restarts with a good set on disk issue nothing', { skip }, async () => {
  await using place = await stage()
  await place.configure(place.web(ALONE))
  const serials = new Set<string | null>()
  for (let round = 0; round <= 30; round += 1) {
    await using certferry = place.certferry()
    serials.add((await ready(certferry)).serial)
    await certferry.stop(round % 2 === 0 ? 'SIGKILL' : 'SIGTERM')
  }
  assert.equal(serials.size, 1)
  assert.equal(await place.issued(), 1)
})

test('a sealed Vault: the old certificate stays, ready and told as degraded; unsealed, it renews by itself', {
  skip,
}, async () => {
  await using place = await stage()
  await place.configure(place.web({ ...ALONE, ttl: '40s', more: { renew: { before: '36s', jitter: 0 } } }))
  await using certferry = place.certferry()
  const old = await ready(certferry)
  await vault?.seal()
  try {
    const held = await certferry.certificate('web', 'is DEGRADED', ({ phase }) => phase === 'DEGRADED')
    assert.deepEqual([held.serial, held.reason], [old.serial, 'vault_sealed'])
    assert.equal((await certferry.get('/readyz')).status, 200)
    assert.equal(readPair(`${place.volume}/web`, 'generation'), old.fingerprint)
  } finally {
    await vault?.unseal()
  }
  const renewed = await certferry.certificate('web', 'is renewed', ({ serial }) => serial !== old.serial)
  assert.equal(renewed.phase, 'ACTIVE')
  assert.ok((old.notAfter ?? 0) > (renewed.lastRotationAt ?? 0), 'renewed while the old one was valid')
  assert.equal(await place.issued(), 2)
})

test('a Vault that is gone at the first start, or later: certferry waits, and needs no restart', { skip }, async () => {
  let isGone = true
  await using proxy = await startFaultProxy(() => (isGone ? { kind: 'reset' } : undefined), {
    target: vault?.address ?? '',
  })
  await using place = await stage({ address: proxy.address })
  await place.configure(place.web({ ...ALONE, ttl: '40s', more: { renew: { before: '36s', jitter: 0 } } }))
  await using certferry = place.certferry()
  const waiting = await certferry.certificate('web', 'has failed', ({ failures }) => failures > 0)
  assert.deepEqual([waiting.phase, waiting.reason], ['PENDING', 'vault_unreachable'])
  assert.equal((await certferry.get('/readyz')).status, 503)
  assert.equal((await certferry.get('/livez')).status, 200)
  isGone = false
  const first = await ready(certferry)
  proxy.onRequest = () => answer(503, { errors: ['the backend is away'] })
  const held = await certferry.certificate('web', 'fails again', ({ failures }) => failures > 0)
  assert.equal(held.serial, first.serial)
  assert.equal((await certferry.get('/readyz')).status, 200)
  proxy.onRequest = () => undefined
  await certferry.certificate('web', 'is renewed', ({ serial, phase }) => serial !== first.serial && phase === 'ACTIVE')
})

test('P1 SIGTERM in the middle of a rotation ends cleanly, and the next start issues nothing', { skip }, async (t) => {
  await using place = await stage()
  await place.configure(place.web())
  const directory = `${place.volume}/web`
  await using first = place.certferry()
  await first.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  await using _nginx = await place.nginx()
  await ready(first)
  await first.stop()
  for (let round = 0; round < 6; round += 1) {
    // Fetch and write take some 50 ms, the proof takes most of a second.
    const afterMs = Math.random() * (round % 2 === 0 ? 50 : 1_000)
    await using certferry = place.certferry()
    await ready(certferry)
    await certferry.control.rotate({ certificates: ['web'] })
    await sleep(afterMs)
    const { code, tookMs } = await certferry.stop()
    t.diagnostic(`stopped ${afterMs.toFixed(1)} ms into a rotation: ended after ${tookMs.toFixed(0)} ms`)
    assert.equal(code, 0, certferry.stderr())
    assert.ok(tookMs < 5_000, `${tookMs} ms`)
    assertTidy(directory)
    readPair(directory, 'nginx-include')
    const issued = await place.issued()
    await using next = place.certferry()
    await ready(next)
    assert.equal(await place.issued(), issued, `the start after a stop ${afterMs} ms into a rotation`)
    await next.stop()
  }
})

test('P3 SIGUSR1 does not open the inspector', { skip }, async () => {
  await using place = await stage()
  await place.configure(place.web(ALONE))
  await using certferry = place.certferry()
  await ready(certferry)
  for (let count = 0; count < 3; count += 1) {
    certferry.send('SIGUSR1')
    await certferry.status()
  }
  assert.deepEqual(listeningPorts(certferry.pid).length, 1, 'only admin.listen')
  assert.equal(certferry.stderr(), '')
})

test('P8 a command whose reader has gone ends as it would have', { skip }, async () => {
  const child = spawn(process.execPath, [program, 'validate', '-c', '/nowhere.yaml'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout.destroy()
  child.stderr.destroy()
  const tooLong = setTimeout(() => child.kill('SIGKILL'), 20_000)
  const [code] = await once(child, 'exit')
  clearTimeout(tooLong)
  assert.equal(code, 78)
})

test('G4 a config file written anew: a changed name re-issues that certificate alone, a broken file changes nothing', {
  skip,
}, async () => {
  await using place = await stage()
  const web = (altNames: string[]) => place.web({ ...ALONE, altNames })
  const api = place.web({ ...ALONE, name: 'api', commonName: 'api.example.com' })
  await place.configure(web([]), api)
  await using certferry = place.certferry()
  const [oldWeb, oldApi] = [await ready(certferry), await ready(certferry, 'api')]

  await place.configure(web(['www.example.com']), api)
  const newWeb = await certferry.certificate('web', 'has the new name', ({ names }) =>
    names.includes('www.example.com'),
  )
  assert.notEqual(newWeb.serial, oldWeb.serial)
  assert.equal((await ready(certferry, 'api')).serial, oldApi.serial)
  assert.equal(await place.issued(), 3)

  await writeFile(place.configFile, '{ "certificates": [ { "name": "web", "surce": 1 } ] }', { mode: 0o600 })
  await until('the broken config is told', async () => !(await certferry.status()).config.lastReloadOk)
  assert.match((await certferry.status()).config.error ?? '', /config\.yaml/)
  assert.equal(await certferry.metric('certferry_config_last_reload_successful'), 0)
  assert.match(JSON.stringify(certferry.log('config.rejected')), /surce/)
  assert.equal((await ready(certferry)).serial, newWeb.serial)
  assert.equal((await ready(certferry, 'api')).serial, oldApi.serial)

  await place.configure(web(['www.example.com']), api)
  await until('the mended config is told', async () => (await certferry.status()).config.lastReloadOk)
  assert.equal(await certferry.metric('certferry_config_last_reload_successful'), 1)
  await certferry.control.reloadConfig()
  assert.equal(await place.issued(), 3, 'what did not change was not issued again')
})

test('G4 a config in a ConfigMap: the swap of ..data is noticed, each time', { skip }, async () => {
  await using place = await stage()
  const map = join(place.folder, 'map')
  const put = async (version: string, ...certificates: object[]) => {
    await place.configure(...certificates)
    await mkdir(join(map, version), { recursive: true })
    await writeFile(join(map, version, 'config.yaml'), await readFile(place.configFile), { mode: 0o600 })
    await symlink(version, join(map, '..data_tmp'))
    await rename(join(map, '..data_tmp'), join(map, '..data'))
  }
  const web = (altNames: string[]) => place.web({ ...ALONE, altNames })
  const api = place.web({ ...ALONE, name: 'api', commonName: 'api.example.com' })
  await put('..2026_01', web([]), api)
  await symlink('..data/config.yaml', join(map, 'config.yaml'))
  await using certferry = place.certferry({ configFile: join(map, 'config.yaml') })
  const { serial } = await ready(certferry, 'api')
  for (const round of [2, 3]) {
    const name = `v${round}.example.com`
    await put(`..2026_0${round}`, web([name]), api)
    await certferry.certificate('web', `has the name ${name}`, ({ names }) => names.includes(name))
  }
  assert.equal((await ready(certferry, 'api')).serial, serial)
  assert.equal(await place.issued(), 4)
})

test('F13 and F16 a key that is changed, opened to others or deleted is restored, counted, and not issued again', {
  skip,
}, async () => {
  await using place = await stage()
  // Short-lived, so that it is looked at every five seconds.
  await place.configure(place.web({ ...ALONE, ttl: '100s', more: { renew: { before: '20s', jitter: 0 } } }))
  await using certferry = place.certferry()
  const { fingerprint } = await ready(certferry)
  const directory = `${place.volume}/web`
  const key = `${directory}/tls.key`
  const tamper = {
    content: () => appendFileSync(key, '\n'),
    mode: () => chmodSync(key, 0o644),
    missing: () => rmSync(key),
  }
  for (const [what, harm] of Object.entries(tamper)) {
    harm()
    await until(`the ${what} of tls.key is restored`, () =>
      certferry.log('tamper.repaired').some((line) => line.what === what && String(line.path).endsWith('/tls.key')),
    )
    assert.equal(readPair(directory, 'generation'), fingerprint)
    assert.equal(statSync(key).mode & 0o777, 0o600)
  }
  const counted = await certferry.metric('certferry_tamper_total{certificate="web"}')
  assert.equal(counted, certferry.log('tamper.repaired').length)
  assert.ok(counted >= 3)
  assert.equal(await place.issued(), 1)
})

test('F15 of two sidecars on one volume the second waits, and takes over when the first is killed', {
  skip,
}, async () => {
  await using place = await stage()
  await place.configure(place.web(ALONE))
  const socket = join(place.folder, 'second.sock')
  const configFile = join(place.folder, 'second.yaml')
  await writeFile(configFile, (await readFile(place.configFile, 'utf8')).replace(place.socket, socket), { mode: 0o600 })
  await using first = place.certferry()
  const { serial } = await ready(first)
  await using second = place.certferry({ configFile, socket })
  const waiting = await second.certificate('web', 'waits for the lock', ({ reason }) => reason === 'lock_held')
  assert.equal(waiting.phase, 'PENDING')
  assert.equal((await second.get('/livez')).status, 200)
  await first.stop('SIGKILL')
  assert.equal((await ready(second)).serial, serial)
  assert.equal(await place.issued(), 1)
})
