import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { skipReason } from '../../support/components.ts'
import {
  askForRotation,
  bundleOnce,
  createRig,
  isWell,
  type Rig,
  type RigOptions,
  servedBy,
  survive,
} from '../../support/fault-rig.ts'
import { until } from '../../support/until.ts'
import { startVault, type TestVault, WEB_ROLE } from '../../support/vault.ts'
import { assertTidy, makeVolume, readPair } from '../../support/volume.ts'
import { createWallClock, type WallClock } from '../../support/wall-clock.ts'

const skip = await skipReason('vault', 'nginx', 'faketime')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

/** A rig whose certferry alone has a wall clock of its own. */
async function rigWithClock(t: TestContext, web: RigOptions['web'] = {}): Promise<Rig & { readonly clock: WallClock }> {
  assert.ok(vault)
  const clock = await createWallClock(join(makeVolume(t), 'clock'))
  return Object.assign(await createRig({ vault, program, web, certferry: { env: clock.env } }), { clock })
}

const asked = ({ proxy }: Rig) => proxy.requests.filter(({ url }) => url.startsWith('/v1/pki/sign/')).length

/** The set that follows `serial`: proven, whole, and what clients get. */
async function assertRenewed(rig: Rig, serial: string | null) {
  const { certferry, directory, layout, stage } = rig
  const renewed = await certferry.certificate('web', 'is renewed', (now) => isWell(now) && now.serial !== serial)
  assert.equal(readPair(directory, layout), renewed.fingerprint)
  assert.equal(await servedBy(stage), renewed.fingerprint)
  assertTidy(directory)
  assert.equal((await certferry.get('/readyz')).status, 200)
  assert.deepEqual(certferry.log('rotation.failed'), [])
  return renewed
}

/** 40 minutes, renewed after ten: 20 are more than enough to make it due, and leave it valid. With so short a life the scheduler ticks each 12 s. */
const MINUTES = { ttl: '40m', more: { renew: { after: 0.25, jitter: 0 } } } as const

const stepped = ({ certferry }: Rig, times: number) =>
  until(`${times} steps of the clock are counted`, async () => {
    return ((await certferry.metric('certferry_clock_step_total')) ?? 0) >= times
  })

/** A hangup makes every loop look at what is due. */
async function lookedAgain({ certferry }: Rig) {
  const before = certferry.log('config.loaded').length
  certferry.send('SIGHUP')
  await until('the config was loaded again', () => certferry.log('config.loaded').length > before)
}

describe('the clock', { skip, concurrency: 6 }, () => {
  test('C1 set ahead by twenty minutes: what is due is renewed at once, the step is told, and set right again it issues nothing more', async (t) => {
    await using rig = await rigWithClock(t, MINUTES)
    const { serial } = await rig.certferry.certificate('web', 'is in service', isWell)
    rig.clock.set('+20m')
    await stepped(rig, 1)
    const { serial: renewed } = await assertRenewed(rig, serial)
    const [step] = rig.certferry.log('clock.stepped')
    assert.equal(step?.level, 'warn')
    assert.ok(Math.abs(Number(step.byMs) - 1_200_000) < 60_000, `${step.byMs}`)

    rig.clock.set('+0')
    await stepped(rig, 2)
    await lookedAgain(rig)
    const still = await rig.certferry.certificate('web', 'is in service', isWell)
    assert.equal(still.serial, renewed)
    assert.equal(await rig.stage.issued(), 2)
  })

  test('C2 set back by two days: what is due by the monotonic clock is asked for once, the set in service stays, and set right again it is delivered', async (t) => {
    // Due after 20 seconds.
    await using rig = await rigWithClock(t, { ttl: '100s', more: { renew: { before: '80s', jitter: 0 } } })
    await survive(rig, { ...notYetValid(rig, '-2d'), trigger: () => {} })
  })

  test('C3 suspended past the renewal: it renews when it wakes up', async (t) => {
    await using rig = await rigWithClock(t, MINUTES)
    const { serial, fingerprint } = await rig.certferry.certificate('web', 'is in service', isWell)
    rig.certferry.send('SIGSTOP')
    await until('it is stopped', () => stateOf(rig.certferry.pid) === 'T')
    rig.clock.set('+20m')
    assert.equal(await servedBy(rig.stage), fingerprint, 'clients are served meanwhile')
    assert.equal(await rig.stage.issued(), 1)
    rig.certferry.send('SIGCONT')
    await assertRenewed(rig, serial)
    assert.equal(await rig.stage.issued(), 2)
    assert.equal((await rig.certferry.get('/livez')).status, 200)
  })

  test('C4 five minutes ahead of Vault: the difference is measured and told, and certificates are delivered', async (t) => {
    assert.ok(vault)
    const clock = await createWallClock(join(makeVolume(t), 'clock'))
    clock.set('+5m')
    await using rig = await createRig({ vault, program, web: MINUTES, certferry: { env: clock.env } })
    const { serial } = await rig.certferry.certificate('web', 'is in service', isWell)
    await assertSkew(rig, -300)
    await askForRotation(rig)
    await assertRenewed(rig, serial)
    assert.equal(await rig.stage.issued(), 2)
  })

  test('C4 five minutes behind Vault: the difference is measured and told, and the next certificate is held back until it is valid here too', async (t) => {
    await using rig = await rigWithClock(t, MINUTES)
    const plan = notYetValid(rig, '-5m')
    await survive(rig, {
      ...plan,
      meanwhile: {
        ...plan.meanwhile,
        also: async (story) => {
          await plan.meanwhile.also(story)
          await assertSkew(rig, 300)
        },
      },
    })
  })

  test('C6 certificates that live ten seconds follow each other without a storm', async () => {
    assert.ok(vault)
    const web = { ttl: '10s', more: { check: { minTtl: '1s' }, renew: { after: 0.5, jitter: 0 } } }
    await using rig = await createRig({ vault, program, web })
    const { certferry } = rig
    const issues = () => certferry.log('certificate.issued').map(({ time }) => Date.parse(time))
    await until('five of them were issued', () => issues().length >= 5)
    const [first = 0, ...others] = issues()
    // Half of ten seconds, less what whole seconds cut off.
    for (const [index, at] of others.entries()) assert.ok(at - (issues()[index] ?? first) >= 2_000, `${issues()}`)
    const { fingerprint } = await certferry.certificate('web', 'is in service', isWell)
    assert.ok([fingerprint, readPair(rig.directory, rig.layout)].includes((await servedBy(rig.stage)) ?? ''))
  })

  test('C6 a certificate that ends in the year 9999 is delivered, shown and left alone', async () => {
    await using old = await vaultOfOldAge()
    await using rig = await createRig({
      vault: old,
      program,
      // The role says until when; a request may not.
      web: { source: { ttl: undefined } },
      prepare: async ({ role }) => {
        await old.api('POST', `pki/roles/${role}`, { ...WEB_ROLE, not_after: END_OF_TIME })
      },
    })
    const { certferry } = rig
    const well = await certferry.certificate('web', 'is in service', isWell)
    assert.equal(well.notAfter, Date.parse(END_OF_TIME))
    assert.ok((well.renewAt ?? 0) > Date.parse('5000-01-01'))
    assert.equal(
      await certferry.metric('certferry_certificate_not_after_timestamp_seconds{certificate="web"}'),
      Date.parse(END_OF_TIME) / 1000,
    )
    await assertCalm(certferry.pid)
    assert.equal(certferry.log('rotation.started').length, 1)
    assert.equal(await rig.stage.issued(), 1)
    await askForRotation(rig)
    await assertRenewed(rig, well.serial)
  })

  test('C6 a certificate shorter than the time before its end at which it is to be renewed is renewed at half its life, not without end', async () => {
    assert.ok(vault)
    const web = { ttl: '100s', more: { renew: { before: '10m', jitter: 0 } } }
    await using rig = await createRig({ vault, program, web })
    const { notAfter, renewAt } = await rig.certferry.certificate('web', 'is in service', isWell)
    assert.ok(Math.abs(Number(notAfter) - Number(renewAt) - 50_000) < 2_000, `${notAfter} ${renewAt}`)
    await assertCalm(rig.certferry.pid)
    assert.equal(await rig.stage.issued(), 1)
  })
})

/** A clock so far behind that Vault's certificates begin in the future; what is in service is valid by it for longer than ever. */
const notYetValid = (rig: Rig & { readonly clock: WallClock }, offset: string) => ({
  reason: 'not_yet_valid',
  inject: () => rig.clock.set(offset),
  repair: () => rig.clock.set('+0'),
  meanwhile: {
    phase: 'ACTIVE' as const,
    also: async (_: unknown) => {
      await stepped(rig, 1)
      assert.equal(asked(rig), 2, 'asked for once')
    },
  },
})

/** How far Vault's clock is ahead, in the metric and, as it is much, in the log. */
async function assertSkew({ certferry }: Rig, seconds: number) {
  const measured = await certferry.metric('certferry_vault_clock_skew_seconds')
  assert.ok(measured !== undefined && Math.abs(measured - seconds) < 10, `${measured}`)
  const [warning] = certferry.log('vault.clock-skew')
  assert.equal(warning?.level, 'warn')
  assert.ok(Math.abs(Number(warning.byMs) / 1000 - seconds) < 10, `${warning.byMs}`)
}

const stateOf = (pid: number) => statOf(pid)[0]

/** From the state on (proc_pid_stat(5)): the name before it may hold anything. */
const statOf = (pid: number) => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
}

/** Asserts that a process is idle most of the time, which a loop of timers that fire at once is not. */
async function assertCalm(pid: number) {
  const TICKS_PER_SECOND = 100
  const busyMs = () => ((Number(statOf(pid)[11]) + Number(statOf(pid)[12])) * 1000) / TICKS_PER_SECOND
  const [busy, began] = [busyMs(), performance.now()]
  await sleep(3_000)
  const share = (busyMs() - busy) / (performance.now() - began)
  assert.ok(share < 0.5, `busy for ${Math.round(share * 100)} % of the time`)
}

const END_OF_TIME = '9999-12-31T23:59:59Z'

/** A Vault whose CA outlives everything. */
async function vaultOfOldAge(): Promise<TestVault> {
  const old = await startVault()
  await old.setupPki()
  const root = { common_name: 'root of old age', key_type: 'ec', key_bits: 256, not_after: END_OF_TIME }
  const { data } = await old.api('POST', 'pki/root/rotate/internal', root)
  await old.api('POST', 'pki/config/issuers', { default: data?.issuer_id })
  return old
}
