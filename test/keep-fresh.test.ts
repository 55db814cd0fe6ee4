import assert from 'node:assert/strict'
import { afterEach, describe, it } from 'node:test'
import type { Outcome } from '../src/core/state.ts'
import { phase } from '../src/core/state.ts'
import { SidecarError } from '../src/errors.ts'
import { bundleAt, createWorld, T0, type World } from './support/harness.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

const worlds: World[] = []
function begin(options?: Parameters<typeof createWorld>[0]): World {
  const world = createWorld(options)
  worlds.push(world)
  return world
}
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.stop()
})
const phaseOf = (world: World) => phase(world.report().state, world.clock.now())
const fingerprintOnDisk = (world: World) => world.disk.current?.fingerprint
const names = (world: World) => world.events.map(({ name }) => name)
const down = new SidecarError('VAULT_UNREACHABLE', 'connection refused')

describe('the loop', () => {
  it('obtains a certificate at start and renews it at half of an hour, again and again', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(1000)
    assert.equal(world.issued.length, 1)
    assert.equal(phaseOf(world), 'ACTIVE')
    assert.equal(world.target.serves, 'c1')
    await world.clock.advance(29 * MINUTE)
    assert.equal(world.issued.length, 1)
    await world.clock.advance(5 * HOUR)
    assert.equal(world.issued.length, 11)
    assert.equal(world.reloads, 11)
    assert.equal(world.target.serves, 'c11')
  })

  it('issues nothing and tells nobody on a restart with a good set that is served', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(MINUTE)
    await world.stop()
    for (let restart = 0; restart < 30; restart++) {
      world.start()
      await world.clock.advance(2000)
      await world.stop()
    }
    assert.equal(world.asked, 1)
    assert.equal(world.reloads, 1)
    assert.ok(names(world).includes('certificate.resumed'))
  })

  it('keeps the certificate while Vault is away, and renews without a restart when it is back', async () => {
    const world = begin({ lifeMs: 3 * DAY })
    world.start()
    await world.clock.advance(DAY)
    world.fail.fetch = down
    await world.clock.advance(DAY)
    assert.equal(world.target.serves, 'c1')
    assert.equal(phaseOf(world), 'DEGRADED')
    assert.ok(world.asked < 320, `${world.asked} requests in half a day of outage`)
    world.fail.fetch = undefined
    await world.clock.advance(10 * MINUTE)
    assert.equal(world.issued.length, 2)
    assert.equal(phaseOf(world), 'ACTIVE')
    assert.ok(names(world).includes('rotation.recovered'))
  })

  it('does not wait for a certificate from the future until the one in service has ended', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(20 * MINUTE)
    world.aheadMs = 3 * HOUR
    await world.clock.advance(11 * MINUTE)
    assert.equal(world.target.serves, 'c1')
    assert.ok(world.events.some(({ event }) => 'code' in event && event.code === 'NOT_YET_VALID'))
    world.aheadMs = 0
    await world.clock.advance(10 * MINUTE)
    assert.notEqual(world.target.serves, 'c1')
    assert.equal(phaseOf(world), 'ACTIVE')
    assert.ok(world.issued.length <= 6, `${world.issued.length} issued`)
  })

  it('goes from PENDING to ACTIVE when Vault comes up after the sidecar', async () => {
    const world = begin()
    world.fail.fetch = down
    world.start()
    await world.clock.advance(5 * MINUTE)
    assert.equal(phaseOf(world), 'PENDING')
    world.fail.fetch = undefined
    await world.clock.advance(6 * MINUTE)
    assert.equal(phaseOf(world), 'ACTIVE')
  })

  it('says EXPIRED when nothing helped, and recovers from there', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(MINUTE)
    world.fail.fetch = down
    await world.clock.advance(HOUR)
    assert.equal(phaseOf(world), 'EXPIRED')
    world.fail.fetch = undefined
    await world.clock.advance(MINUTE)
    assert.equal(phaseOf(world), 'ACTIVE')
  })
})

describe('a target that refuses the new certificate', () => {
  it('gets the proven one back, and the new one again later, without another issuance', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(MINUTE)
    world.target.refuses = (id) => id === 'c2'
    await world.clock.advance(31 * MINUTE)
    assert.equal(world.disk.current?.fingerprint, 'c1')
    assert.equal(world.target.serves, 'c1')
    assert.equal(phaseOf(world), 'DEGRADED')
    assert.equal(world.issued.length, 2)
    assert.ok(names(world).includes('rotation.rolled-back'))
    world.target.refuses = () => false
    await world.clock.advance(2 * MINUTE)
    assert.equal(world.target.serves, 'c2')
    assert.equal(phaseOf(world), 'ACTIVE')
    assert.equal(world.issued.length, 2)
  })

  it('is never given back a certificate that was rotated for compromise', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(MINUTE)
    world.target.refuses = (id) => id === 'c2'
    world.requests.push({ kind: 'rotate', reason: 'compromise of the key', done: () => {} })
    world.ring()
    await world.clock.advance(MINUTE)
    assert.equal(world.disk.current?.fingerprint, 'c2')
    assert.ok(!names(world).includes('rotation.rolled-back'))
  })

  it('has the newest set left on disk when it refuses the old one too', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(MINUTE)
    world.target.refuses = () => true
    world.target.serves = 'foreign'
    world.requests.push({ kind: 'rotate', reason: 'test', done: () => {} })
    world.ring()
    await world.clock.advance(1000)
    assert.equal(world.disk.current?.fingerprint, 'c2')
    assert.equal(world.report().state.failure?.code, 'ROLLBACK_FAILED')
  })
})

describe('a target that is not there', () => {
  it('is waited for after the start: files are in place, nothing counts as failed', async () => {
    const world = begin()
    world.target.up = false
    world.start()
    await world.clock.advance(MINUTE)
    assert.equal(phaseOf(world), 'ACTIVE')
    assert.equal(world.report().state.verification, 'pending')
    assert.ok(names(world).includes('rotation.waiting') && !names(world).includes('rotation.failed'))
    world.target.up = true
    await world.clock.advance(10_000)
    assert.equal(world.report().state.verification, 'verified')
    assert.equal(world.issued.length, 1)
  })

  it('is trouble after the grace, and healed when it comes', async () => {
    const world = begin()
    world.target.up = false
    world.start()
    await world.clock.advance(3 * MINUTE)
    assert.equal(phaseOf(world), 'DEGRADED')
    world.target.up = true
    await world.clock.advance(2 * MINUTE)
    assert.equal(phaseOf(world), 'ACTIVE')
    assert.equal(world.issued.length, 1)
  })

  it('is told again when it comes back with another certificate: a foreign reload, an old image', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(MINUTE)
    world.target.serves = 'foreign'
    await world.clock.advance(2 * MINUTE)
    assert.equal(world.target.serves, 'c1')
    assert.equal(world.issued.length, 1)
  })
})

describe('the issue budget', () => {
  it('stops a loop that never gets a certificate delivered, and a person may still ask', async () => {
    const world = begin({ lifeMs: 3 * DAY })
    world.start()
    await world.clock.advance(MINUTE)
    const restart = async () => {
      await world.stop()
      world.disk.current = undefined
      world.start()
      await world.clock.advance(2000)
    }
    for (let crash = 0; crash < 30; crash++) await restart()
    assert.equal(world.issued.length, 5)
    assert.equal(world.report().state.failure?.code, 'BUDGET_SPENT')
    let outcome: Outcome | undefined
    world.requests.push({ kind: 'rotate', reason: 'by hand', done: (result) => (outcome = result) })
    world.ring()
    await world.clock.advance(1000)
    assert.equal(outcome?.kind, 'served')
    assert.equal(world.issued.length, 6)
  })

  it('holds nothing back once what is in service has expired', async () => {
    const world = begin({ lifeMs: DAY })
    const ended = { receivedAt: T0 - DAY, notBefore: T0 - DAY, notAfter: T0 }
    world.disk.current = { ...bundleAt(world.clock, 'ended', DAY), ...ended }
    world.disk.memory = { ...world.disk.memory, issuedAt: [T0 - 3_000, T0 - 2_000, T0 - 1_000] }
    world.start()
    await world.clock.advance(MINUTE)
    assert.equal(world.issued.length, 1)
  })

  it('is not charged for a request that certainly issued nothing', async () => {
    const world = begin({ lifeMs: 3 * DAY })
    world.fail.fetch = down
    world.start()
    await world.clock.advance(HOUR)
    assert.ok(world.asked > 10)
    assert.deepEqual(world.disk.memory.issuedAt, [])
  })

  it('is charged for a request whose answer was lost', async () => {
    const world = begin({ lifeMs: 3 * DAY })
    world.fail.fetch = new SidecarError('VAULT_TIMEOUT', 'no answer', { mayHaveIssued: true })
    world.start()
    await world.clock.advance(HOUR)
    assert.equal(world.asked, 5)
  })
})

describe('trouble with the disk', () => {
  it('is met before Vault is asked, and costs no certificate', async () => {
    const world = begin()
    world.fail.write = new SidecarError('DISK_FULL', 'no space')
    world.start()
    await world.clock.advance(HOUR)
    assert.equal(world.asked, 0)
    world.fail.write = undefined
    await world.clock.advance(2 * MINUTE)
    assert.equal(world.issued.length, 1)
    assert.equal(phaseOf(world), 'ACTIVE')
  })

  it('delivers from memory into a directory that was replaced, and issues nothing for it', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(MINUTE)
    world.disk.current = undefined
    world.disk.previous = undefined
    world.fail.write = new SidecarError('VOLUME_REPLACED', 'another directory')
    await world.clock.advance(3 * MINUTE)
    assert.equal(fingerprintOnDisk(world), 'c1')
    assert.equal(phaseOf(world), 'ACTIVE')
    assert.equal(world.issued.length, 1)
  })

  it('stays DEGRADED, not PENDING, while a directory that is gone cannot be opened again', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(MINUTE)
    world.fail.write = new SidecarError('VOLUME_REPLACED', 'gone')
    world.fail.open = new SidecarError('VOLUME_UNAVAILABLE', 'away')
    await world.clock.advance(3 * MINUTE)
    assert.equal(phaseOf(world), 'DEGRADED')
    assert.equal(world.report().state.failure?.code, 'VOLUME_UNAVAILABLE')
    assert.equal(world.report().state.serving?.fingerprint, 'c1', 'the target still has it')
    world.fail.open = undefined
    await world.clock.advance(3 * MINUTE)
    assert.equal(phaseOf(world), 'ACTIVE')
    assert.equal(world.issued.length, 1)
  })

  it('waits for a lock and takes over when it is free', async () => {
    const world = begin()
    world.fail.open = new SidecarError('LOCK_HELD', 'held')
    world.start()
    await world.clock.advance(MINUTE)
    assert.equal(world.report().state.failure?.code, 'LOCK_HELD')
    assert.equal(world.asked, 0)
    world.fail.open = undefined
    await world.clock.advance(2000)
    assert.equal(phaseOf(world), 'ACTIVE')
  })
})

describe('clocks', () => {
  it('C3 a suspend past the renewal is noticed at the next tick', async () => {
    const world = begin({ lifeMs: DAY })
    world.start()
    await world.clock.advance(MINUTE)
    world.clock.step(13 * HOUR)
    await world.clock.advance(31_000)
    assert.equal(world.issued.length, 2)
    assert.ok(names(world).includes('clock.stepped'))
  })

  it('C2 a clock set back by two days does not put a renewal off, and causes no storm', async () => {
    const world = begin({ lifeMs: DAY })
    world.start()
    await world.clock.advance(MINUTE)
    world.clock.step(-2 * DAY)
    await world.clock.advance(11 * HOUR)
    assert.equal(world.issued.length, 1)
    await world.clock.advance(2 * HOUR)
    assert.equal(world.issued.length, 2)
  })
})

it('an issuer that repeats the certificate in service is not believed', async () => {
  const world = begin()
  world.start()
  await world.clock.advance(MINUTE)
  world.repeats = world.issued[0]
  await world.clock.advance(31 * MINUTE)
  assert.equal(world.report().state.failure?.code, 'STALE_RESPONSE')
  assert.equal(world.reloads, 1)
  world.repeats = undefined
  await world.clock.advance(2 * MINUTE)
  assert.equal(world.target.serves, 'c2')
})

describe('requests', () => {
  it('that arrive together are served by one rotation', async () => {
    const world = begin()
    world.start()
    await world.clock.advance(MINUTE)
    let done = 0
    for (let count = 0; count < 50; count++)
      world.requests.push({ kind: 'rotate', reason: 'test', done: () => (done += 1) })
    world.ring()
    await world.clock.advance(1000)
    assert.equal(done, 50)
    assert.equal(world.issued.length, 2)
  })

  it('to rotate that met a Vault which was away are tried again until one was issued', async () => {
    const world = begin({ lifeMs: 3 * DAY })
    world.start()
    await world.clock.advance(MINUTE)
    world.fail.fetch = down
    let outcome: Outcome | undefined
    world.requests.push({ kind: 'rotate', reason: 'compromise', done: (result) => (outcome = result) })
    world.ring()
    await world.clock.advance(MINUTE)
    assert.equal(outcome?.kind, 'failed')
    assert.equal(world.issued.length, 1)
    world.fail.fetch = undefined
    await world.clock.advance(5 * MINUTE)
    assert.equal(world.target.serves, 'c2')
    assert.equal(world.issued.length, 2)
    await world.clock.advance(DAY)
    assert.equal(world.issued.length, 2, 'and once only')
  })

  it('to retry put the backoff aside', async () => {
    const world = begin({ lifeMs: 3 * DAY })
    world.fail.fetch = new SidecarError('PERMISSION_DENIED', 'denied')
    world.start()
    await world.clock.advance(HOUR)
    world.fail.fetch = undefined
    world.requests.push({ kind: 'retry' })
    world.ring()
    await world.clock.advance(100)
    assert.equal(world.issued.length, 1)
  })
})

it('a target without verifier is told once per certificate, and the state does not pretend', async () => {
  const world = begin({ verifies: false })
  world.start()
  await world.clock.advance(MINUTE)
  assert.equal(world.report().state.verification, 'none')
  await world.stop()
  world.start()
  await world.clock.advance(MINUTE)
  assert.equal(world.reloads, 1)
})

it('a target that shows a part only is told of each new content, and once', async () => {
  const world = begin({ seesPart: true })
  world.start()
  await world.clock.advance(31 * MINUTE)
  assert.equal(world.target.serves, 'c2')
  await world.stop()
  world.start()
  await world.clock.advance(MINUTE)
  assert.equal(world.reloads, 2)
})

describe('a copy elsewhere', () => {
  const denied = new SidecarError('KUBERNETES_DENIED', 'cannot patch secrets shop/web')
  const away = new SidecarError('KUBERNETES_UNREACHABLE', 'no answer')
  const copied = (world: World) => world.events.filter(({ name }) => name === 'certificate.published').length

  it('is made of each certificate, once', async () => {
    const world = begin({ copies: true })
    world.start()
    await world.clock.advance(4 * HOUR)
    assert.equal(world.copy.holds, fingerprintOnDisk(world))
    assert.equal(world.copy.written, world.issued.length)
    assert.equal(copied(world), world.issued.length)
    assert.equal(names(world).includes('tamper.repaired'), false)
  })

  for (const holds of [undefined, 'of somebody else'])
    it(`is put right by the look between rotations where it is ${holds ?? 'gone'}`, async () => {
      const world = begin({ copies: true })
      world.start()
      await world.clock.advance(MINUTE)
      world.copy.holds = holds
      await world.clock.advance(2 * MINUTE)
      assert.equal(world.copy.holds, 'c1')
      const repaired = world.events.find(({ name }) => name === 'tamper.repaired')?.event
      const what = holds === undefined ? 'missing' : 'content'
      assert.deepEqual(repaired, { certificate: 'web', path: 'Secret shop/web', what })
      assert.equal(world.reloads, 1)
    })

  it('is that of the previous certificate again when the target refuses the new one', async () => {
    const world = begin({ copies: true })
    world.start()
    await world.clock.advance(MINUTE)
    world.target.refuses = (id) => id === 'c2'
    await world.clock.advance(30 * MINUTE)
    assert.ok(names(world).includes('rotation.rolled-back'))
    assert.ok(world.copy.written >= 3)
    assert.equal(world.copy.holds, fingerprintOnDisk(world))
  })

  it('that cannot be made is told and tried again, and who reads it is told only after that', async () => {
    const world = begin({ copies: true, verifies: false })
    world.start()
    await world.clock.advance(MINUTE)
    world.fail.copy = denied
    await world.clock.advance(40 * MINUTE)
    assert.equal(fingerprintOnDisk(world), 'c2')
    assert.equal(world.reloads, 1)
    const failed = world.events.find(({ name }) => name === 'rotation.failed')?.event
    assert.ok(failed && 'code' in failed && 'stage' in failed)
    assert.deepEqual([failed.code, failed.stage], ['KUBERNETES_DENIED', 'reload'])
    assert.equal(world.report().state.serving?.fingerprint, 'c2')
    world.fail.copy = undefined
    await world.clock.advance(5 * MINUTE)
    assert.equal(world.copy.holds, 'c2')
    assert.equal(world.reloads, 2)
    assert.equal(phaseOf(world), 'ACTIVE')
    assert.equal(world.issued.length, 2)
  })

  it('is not in doubt while nobody answers between rotations', async () => {
    const world = begin({ copies: true })
    world.start()
    await world.clock.advance(MINUTE)
    world.fail.copy = away
    await world.clock.advance(20 * MINUTE)
    assert.equal(names(world).includes('rotation.failed'), false)
    world.fail.copy = denied
    await world.clock.advance(5 * MINUTE)
    assert.ok(names(world).includes('rotation.failed'))
  })
})

describe('the target', () => {
  it('is told which set is its first', async () => {
    const world = begin({ verifies: false })
    world.target.up = false
    world.start()
    await world.clock.advance(MINUTE)
    assert.ok(world.reloads > 1, 'tried again')
    assert.equal(world.toldAsFirst, true)
    world.target.up = true
    await world.clock.advance(10 * MINUTE)
    await world.stop()
    assert.equal(world.toldAsFirst, true)
    world.start()
    await world.clock.advance(30 * MINUTE)
    assert.equal(fingerprintOnDisk(world), 'c2')
    assert.equal(world.toldAsFirst, false)
  })
})
