import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, type TestContext, test } from 'node:test'
import { skipReason } from '../../support/components.ts'
import { plantDefect } from '../../support/defect.ts'
import { type Fault, gzipBomb } from '../../support/fault-proxy.ts'
import {
  askForRotation,
  assertNoSecret,
  bundleOnce,
  createRig,
  filesOf,
  isWell,
  type Rig,
  type RigOptions,
  servedBy,
  survive,
  untilFailed,
} from '../../support/fault-rig.ts'
import { until } from '../../support/until.ts'
import { startVault } from '../../support/vault.ts'
import { assertTidy, makeVolume, readPair } from '../../support/volume.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

const rigWith = (options: Partial<RigOptions> = {}): Promise<Rig> => {
  assert.ok(vault)
  return createRig({ vault, program, ...options })
}

const inService = ({ certferry }: Rig) => certferry.certificate('web', 'is in service', isWell)

async function rotated(rig: Rig) {
  const { serial } = await inService(rig)
  await askForRotation(rig)
  const next = await rig.certferry.certificate('web', 'is rotated', (now) => isWell(now) && now.serial !== serial)
  assert.equal(readPair(rig.directory, rig.layout), next.fingerprint)
  assert.equal(await servedBy(rig.stage), next.fingerprint)
  assertTidy(rig.directory)
  return next
}

describe('the process', { skip, concurrency: 6 }, () => {
  test('P2 fifty SIGHUPs at once load the config a few times, reload no target and issue nothing', async (t) => {
    await using rig = await rigWith()
    const { certferry } = rig
    const { fingerprint } = await inService(rig)
    const reloads = certferry.log('reload.finished').length
    for (let count = 0; count < 50; count += 1) certferry.send('SIGHUP')
    await until('the config is loaded', () => certferry.log('config.loaded').length > 0)
    await certferry.control.reloadConfig()
    t.diagnostic(`${certferry.log('config.loaded').length} loads`)
    // One for each burst that finds another one running; a busy machine may break the signals into several.
    assert.ok(certferry.log('config.loaded').length <= 10, `${certferry.log('config.loaded').length} loads`)
    assert.equal((await inService(rig)).fingerprint, fingerprint)
    assert.equal(await servedBy(rig.stage), fingerprint)
    assert.equal(certferry.log('reload.finished').length, reloads)
    assert.equal(await rig.stage.issued(), 1)
  })

  test('P6 a defect in one certificate is told as one and leaves the others alone; where it passes, all goes on', async (t) => {
    const defect = plantDefect(t, BROKEN_DISK)
    await using rig = await rigWith({
      certferry: { env: defect.env },
      web: { more: { renew: { before: '10s', jitter: 0 } } },
    })
    const api = { name: 'api', commonName: 'api.example.com', served: false }
    await rig.stage.configure(
      rig.stage.web({ ttl: '100s', more: { renew: { before: '10s', jitter: 0 } } }),
      rig.stage.web(api),
    )
    const first = await rig.certferry.certificate('api', 'is added', isWell)
    await survive(rig, {
      reason: 'bug',
      inject: () => defect.begin(),
      repair: () => defect.end(),
      meanwhile: {
        also: async () => {
          await rig.certferry.control.rotate({ certificates: ['api'] })
          const isNew = ({ serial }: { serial: string | null }) => serial !== first.serial
          await rig.certferry.certificate('api', 'is rotated meanwhile', (now) => isWell(now) && isNew(now))
        },
      },
      afterwards: { issued: 4 },
    })
  })

  test('P5 bodies without end and gzip bombs from Vault are borne within 128 MiB', async (t) => {
    const env = { NODE_OPTIONS: SMALL_HEAP, MALLOC_ARENA_MAX: '1' }
    await using rig = await rigWith({ certferry: { env } })
    const faults: readonly Fault[] = [{ kind: 'flood' }, gzipBomb()]
    let met = 0
    await survive(rig, {
      reason: 'bad_response',
      inject: ({ proxy }) => {
        proxy.onRequest = ({ url }) => (url.includes('/sign/') ? faults[met++ % faults.length] : undefined)
      },
      trigger: async () => {
        for (let times = 1; times <= 6; times += 1) {
          await askForRotation(rig)
          await untilFailed(rig.certferry, times)
        }
      },
      repair: ({ proxy }) => {
        proxy.onRequest = () => undefined
      },
    })
    const peak =
      Number(/VmHWM:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${rig.certferry.pid}/status`, 'utf8'))?.[1]) / 1024
    t.diagnostic(`${Math.round(peak)} MiB at most`)
    assert.ok(peak < 128, `${peak} MiB`)
  })

  /** What readers find after the end, what the next start puts into service, and how many were issued for it. */
  const OUT_OF_MEMORY: Readonly<Record<string, { at: string; found: Which; later: Which; issued: number }>> = {
    'before Vault is asked': { at: 'fs.statfsSync', found: 'old', later: 'old', issued: 1 },
    'with a new certificate in hand': { at: 'fs.mkdirSync', found: 'old', later: 'old', issued: 2 },
    'with a new set on disk, at the commit': { at: 'fs.renameSync ..data', found: 'old', later: 'new', issued: 2 },
    'between the commit and the reload': { at: 'process.kill SIGHUP', found: 'new', later: 'new', issued: 2 },
  }
  for (const [moment, { at, found, later, issued }] of Object.entries(OUT_OF_MEMORY))
    test(`P5 memory that runs out ${moment} ends the process; clients are served all the while, and the next start goes on with what is on disk`, async (t) => {
      const defect = plantDefect(t, hungryAt(at))
      const env = { NODE_OPTIONS: `${defect.env.NODE_OPTIONS} ${SMALL_HEAP}` }
      await using rig = await rigWith({ certferry: { env } })
      const { fingerprint } = await inService(rig)
      const which = (other: string | null | undefined): Which => (other === fingerprint ? 'old' : 'new')
      defect.begin()
      // It may end before it has answered.
      await askForRotation(rig).catch(() => {})
      const { code, signal } = await rig.certferry.ended
      assert.notEqual(code, 0)
      assert.match(`${signal} ${rig.certferry.stderr()}`, /^SIG(?:ABRT|TRAP|SEGV|ILL) .*heap out of memory/s)
      assertNoSecret(rig.certferry.stderr(), rig.stage)
      assert.equal(await servedBy(rig.stage), fingerprint, 'clients are served')
      assert.equal(which(readPair(rig.directory, rig.layout)), found, 'never a mixed pair')
      await using next = rig.stage.certferry()
      const well = await next.certificate(
        'web',
        `has the ${later} one in service`,
        (now) => isWell(now) && which(now.fingerprint) === later,
      )
      assert.equal(readPair(rig.directory, rig.layout), well.fingerprint)
      assert.equal(await servedBy(rig.stage), well.fingerprint)
      assertTidy(rig.directory)
      assert.equal(await rig.stage.issued(), issued)
    })

  test('P7 a blocked event loop answers no probe for as long as it lasts; clients are served, and all goes on after it', async (t) => {
    const defect = plantDefect(t, BLOCKED_LOOP)
    await using rig = await rigWith({ certferry: { env: defect.env } })
    const { fingerprint } = await inService(rig)
    const address = rig.certferry
      .log('admin.listening')
      .map((line) => String(line.address))
      .find((one) => one.startsWith('http'))
    const probe = async () =>
      fetch(`${address}/livez`, { signal: AbortSignal.timeout(2_000) }).then(
        ({ status }) => status,
        () => 'no answer',
      )
    assert.equal(await probe(), 200)
    defect.begin()
    await until('it is blocked', async () => (await probe()) === 'no answer')
    // As often as a kubelet asks by default before it restarts a container.
    for (let count = 0; count < 3; count += 1) assert.equal(await probe(), 'no answer')
    assert.equal(await servedBy(rig.stage), fingerprint)
    defect.end()
    await until('it is live again', async () => (await probe()) === 200)
    await rotated(rig)
    assert.deepEqual(rig.certferry.log('rotation.failed'), [])
  })

  test('P8 a log that nobody reads costs lines, which are counted and told; rotations go on', async (t) => {
    const relay = await relayedOutput(t)
    await using rig = await rigWith({ certferry: { before: relay.before } })
    await inService(rig)
    process.kill(relay.pid(), 'SIGSTOP')
    for (let count = 0; count < 3; count += 1) await rotated(rig)
    await overflow(rig)
    assert.equal((await rig.certferry.get('/livez')).status, 200)
    process.kill(relay.pid(), 'SIGCONT')
    await until('the loss is told', async () => {
      await rotated(rig)
      return rig.certferry.log('log.dropped').length > 0
    })
    assert.ok(Number(rig.certferry.log('log.dropped')[0]?.lines) > 0)
  })

  test('P8 a log whose reader is gone costs its lines and nothing else', async (t) => {
    const relay = await relayedOutput(t)
    await using rig = await rigWith({ certferry: { before: relay.before } })
    await inService(rig)
    process.kill(relay.pid(), 'SIGKILL')
    for (let count = 0; count < 3; count += 1) await rotated(rig)
    await until(
      'lines are counted as lost',
      async () => ((await rig.certferry.metric('certferry_log_dropped_total')) ?? 0) > 0,
    )
    assert.equal((await rig.certferry.get('/readyz')).status, 200)
    assert.equal((await rig.certferry.stop()).code, 0)
  })

  test('P8 started with its output closed it works the same', async () => {
    await using stage = await (async () => {
      const rig = await rigWith()
      await rig.certferry.stop()
      return rig
    })()
    await using next = stage.stage.certferry({ before: ['sh', '-c', 'exec "$@" >&- 2>&-', 'sh'] })
    const { serial } = await next.certificate('web', 'is in service', isWell)
    await askForRotation({ certferry: next })
    await next.certificate('web', 'is rotated', (now) => isWell(now) && now.serial !== serial)
    assert.equal((await next.stop()).code, 0)
  })

  test('P1 a call into a file system that hangs does not hold up the stop, and clients are served', async (t) => {
    const defect = plantDefect(t, HANGING_DISK)
    await using rig = await rigWith({ certferry: { env: defect.env }, volumeIn: tmpdir() })
    const { fingerprint } = await inService(rig)
    defect.begin()
    await askForRotation(rig)
    await until('it hangs', () => fs.existsSync(defect.reached))
    const { code, signal, tookMs } = await rig.certferry.stop()
    // Node would wait for its thread: nobody but the kernel can end that.
    assert.deepEqual([code, signal], [null, 'SIGKILL'])
    assert.ok(tookMs < 5_000, `${tookMs} ms`)
    assert.equal(await servedBy(rig.stage), fingerprint)
    defect.end()
    await using next = rig.stage.certferry()
    assert.equal((await next.certificate('web', 'is in service', isWell)).fingerprint, fingerprint)
    assert.equal(await rig.stage.issued(), 1)
  })

  test('P8 no descriptor left: the set in service stays, it is told, and with room again all goes on', async () => {
    await using rig = await rigWith()
    const { certferry, stage } = rig
    const { fingerprint } = await inService(rig)
    const before = filesOf(rig)
    const limit = limitOf(certferry.pid)
    await until('it is told', () => {
      // Again and again, as connections that come to their end leave room.
      setLimit(certferry.pid, `${nextDescriptor(certferry.pid)}:${limit}`)
      return certferry.log('rotation.failed').some(({ reason }) => reason === 'write_failed')
    })
    assert.match(String(certferry.log('rotation.failed')[0]?.detail), /too many open files/)
    assert.deepEqual(filesOf(rig), before)
    assert.equal(await servedBy(stage), fingerprint)
    setLimit(certferry.pid, `${limit}:${limit}`)
    assert.equal((await inService(rig)).fingerprint, fingerprint)
    assert.ok(certferry.log('rotation.recovered').length > 0)
    assert.equal(await stage.issued(), 1)
    await rotated(rig)
  })
})

/** The disk of certificate web is found out of order by a TypeError, that of the others is not. */
const BROKEN_DISK = (flag: string) => `
  const fs = require('node:fs')
  const { statfsSync } = fs
  fs.statfsSync = (path, ...rest) => {
    if (fs.existsSync(${flag}) && fs.readlinkSync(path).endsWith('/web')) throw new TypeError('a defect made by the test')
    return statfsSync(path, ...rest)
  }
`
/** The disk is looked at by opening a FIFO that nobody writes to: a thread of Node is in that call for ever. */
const HANGING_DISK = (flag: string) => `
  const fs = require('node:fs')
  const { statfs } = fs
  const fifo = ${flag} + '.fifo'
  fs.statfs = (...args) => {
    if (!fs.existsSync(${flag})) return statfs(...args)
    require('node:child_process').execFileSync('mkfifo', [fifo])
    fs.writeFileSync(${flag} + '.reached', '')
    fs.open(fifo, args.at(-1))
  }
`
type Which = 'old' | 'new'

/** As the soak has it; a container with 128 MiB has room for more. */
const SMALL_HEAP = '--max-semi-space-size=1 --max-old-space-size=36'

/** The function of this name takes all the memory there is, when it gets such an argument. */
function hungryAt(place: string) {
  const [path = '', argument = ''] = place.split(' ')
  const [name = '', ...owner] = path.split('.').reverse()
  return (flag: string) => `
  const fs = require('node:fs')
  const owner = ${owner.reverse().join('.')}
  const { ${name}: whole } = owner
  owner.${name} = (...args) => {
    if (fs.existsSync(${flag}) && args.some((one) => String(one).endsWith('${argument}')))
      for (const kept = []; ; ) kept.push(new Array(10_000).fill(kept.length + 0.5))
    return whole.apply(owner, args)
  }
`
}

/** No target can be looked at any more. */
/** Nothing else gets a turn, for two minutes at most. */
const BLOCKED_LOOP = (flag: string) => `
  const isThere = () => require('node:fs').existsSync(${flag})
  setInterval(() => {
    const until = Date.now() + 120_000
    while (isThere() && Date.now() < until);
  }, 200).unref()
`

/** Output that goes through a process of its own, which may be held or ended. */
async function relayedOutput(t: TestContext) {
  const folder = makeVolume(t)
  const script = 'mkfifo "$0/out"; cat "$0/out" & echo $! > "$0/pid"; exec "$@" > "$0/out"'
  return {
    before: ['sh', '-c', script, folder],
    pid: () => Number(fs.readFileSync(join(folder, 'pid'), 'utf8')),
  }
}

/** More log than anybody would keep: requests to change something over TCP are told. */
async function overflow({ certferry }: Rig) {
  await until(
    'lines are dropped',
    async () => {
      await Promise.all(Array.from({ length: 50 }, () => certferry.control.rotate({ certificates: ['web'] })))
      return ((await certferry.metric('certferry_log_dropped_total')) ?? 0) > 0
    },
    { timeoutMs: 60_000 },
  )
}

/** The lowest number that no descriptor has yet: what is opened next gets it, or fails where it is the limit. */
function nextDescriptor(pid: number): number {
  const taken = new Set(fs.readdirSync(`/proc/${pid}/fd`).map(Number))
  for (let number = 0; ; number += 1) if (!taken.has(number)) return number
}

const limitOf = (pid: number) =>
  Number(/^Max open files +(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1])

const setLimit = (pid: number, limit: string) => execFileSync('prlimit', ['--pid', `${pid}`, `--nofile=${limit}`])
