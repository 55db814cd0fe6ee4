import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, it } from 'node:test'
import { loadConfig } from '../src/config/config.ts'
import { SidecarError } from '../src/errors.ts'
import { manageRevocation } from '../src/revocation/manage.ts'
import { RevocationOptions } from '../src/revocation/options.ts'
import type { Source } from '../src/sources/source.ts'
import { createTestCa } from './support/ca.ts'
import { createWorld, type World } from './support/harness.ts'
import { isDone, never, place, run } from './support/sidecar.ts'
import { until } from './support/until.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE

const worlds: World[] = []
function begin(options?: Parameters<typeof createWorld>[0]): World {
  const world = createWorld(options)
  worlds.push(world)
  world.start()
  return world
}
afterEach(async () => {
  for (const world of worlds.splice(0)) await world.stop()
})
const count = (world: World, name: string) => world.events.filter((one) => one.name === name).length

async function rotate(world: World): Promise<void> {
  world.requests.push({ kind: 'rotate', reason: 'test', done: () => {} })
  world.ring()
  await world.clock.advance(1000)
}

describe('another edition of the certificate in service', () => {
  it('is written, told to the target and verified, once, and nothing is issued', async () => {
    const world = begin({ lookMs: MINUTE })
    await world.clock.advance(1000)
    const before = world.report().state.verifiedAt ?? 0
    world.look = (serving) => ({ ...serving, edition: 'e2' })
    await world.clock.advance(5 * MINUTE)
    assert.equal(world.disk.current?.edition, 'e2')
    assert.equal(world.disk.memory.told, 'c1 e2')
    assert.deepEqual([world.issued.length, world.reloads], [1, 2])
    assert.equal(world.report().state.verification, 'verified')
    assert.ok((world.report().state.verifiedAt ?? 0) > before)
    world.look = (serving) => ({ ...serving, edition: 'e3' })
    await world.clock.advance(MINUTE)
    assert.deepEqual([world.disk.current?.edition, world.reloads], ['e3', 3])
  })

  it('does not put the renewal off', async () => {
    const world = begin({ lookMs: MINUTE })
    world.look = (serving) => ({ ...serving, edition: String(Math.floor(world.clock.now() / MINUTE)) })
    await world.clock.advance(35 * MINUTE)
    assert.equal(world.issued.length, 2)
    assert.equal(world.target.serves, 'c2')
  })

  it('is tried again where the target was not there, as the same edition', async () => {
    const world = begin({ lookMs: MINUTE })
    await world.clock.advance(1000)
    world.look = (serving) => ({ ...serving, edition: 'e2' })
    world.target.up = false
    await world.clock.advance(2 * MINUTE)
    world.target.up = true
    await world.clock.advance(2 * MINUTE)
    assert.equal(world.disk.memory.told, 'c1 e2')
    assert.equal(world.report().state.verification, 'verified')
    assert.equal(world.issued.length, 1)
  })
})

describe('a certificate that somebody revoked', () => {
  it('is asked about at the start and each ten minutes, and replaced at once', async () => {
    const world = begin({ revocation: {} })
    await world.clock.advance(9 * MINUTE)
    assert.equal(count(world, 'certificate.revocation-checked'), 1)
    world.revoked.add('c1')
    await world.clock.advance(3 * MINUTE)
    assert.equal(world.target.serves, 'c2')
    assert.equal(world.issued.length, 2)
    assert.equal(count(world, 'security.certificate-revoked'), 1)
    assert.ok(world.disk.memory.condemned.includes('c1'))
  })

  it('is not gone back to when the target refuses its successor', async () => {
    const world = begin({ revocation: {} })
    await world.clock.advance(MINUTE)
    world.target.refuses = (id) => id === 'c2'
    world.revoked.add('c1')
    await world.clock.advance(12 * MINUTE)
    assert.equal(world.disk.current?.fingerprint, 'c2')
    assert.equal(count(world, 'rotation.rolled-back'), 0)
  })

  it('is not gone back to when it is found revoked only then', async () => {
    const world = begin({ revocation: {} })
    await world.clock.advance(MINUTE)
    world.target.refuses = (id) => id === 'c2'
    world.revoked.add('c1')
    await rotate(world)
    assert.equal(world.disk.current?.fingerprint, 'c2')
    assert.equal(count(world, 'rotation.rolled-back'), 0)
    assert.ok(world.disk.memory.condemned.includes('c1'))
  })

  it('is gone back to when nobody says in time whether it is one', async () => {
    let isSilent = false
    const world = begin({
      revocation: {
        check: (_content, signal) =>
          isSilent
            ? new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
            : Promise.resolve({ status: 'good', by: 'ocsp' }),
      },
    })
    await world.clock.advance(MINUTE)
    world.target.refuses = (id) => id === 'c2'
    isSilent = true
    // A timer of the real clock is all that ends the wait.
    const alive = setInterval(() => {}, 1000)
    await rotate(world)
    await until('it is gone back to', () => count(world, 'rotation.rolled-back') > 0)
    clearInterval(alive)
    isSilent = false
    assert.equal(world.disk.current?.fingerprint, 'c1')
  })

  it('is replaced after a restart as well, though nobody can say any more', async () => {
    const world = begin({ revocation: {} })
    await world.clock.advance(MINUTE)
    world.fail.fetch = new SidecarError('VAULT_UNREACHABLE', 'connection refused')
    world.revoked.add('c1')
    await world.clock.advance(12 * MINUTE)
    assert.equal(world.target.serves, 'c1')
    await world.stop()
    world.revoked.clear()
    world.fail.fetch = undefined
    world.start()
    await world.clock.advance(MINUTE)
    assert.equal(world.target.serves, 'c2')
  })

  it('stays where onRevoked is warn, and is told of once', async () => {
    const world = begin({ revocation: { onRevoked: 'warn' }, lifeMs: 10 * HOUR })
    world.revoked.add('c1')
    await world.clock.advance(HOUR)
    assert.equal(world.target.serves, 'c1')
    assert.equal(count(world, 'security.certificate-revoked'), 1)
  })

  it('counts as good while nobody can say, with one warning', async () => {
    const check = async () => Promise.reject(new SidecarError('OCSP_UNAVAILABLE', 'connection refused'))
    const world = begin({ revocation: { check }, lifeMs: 10 * HOUR })
    await world.clock.advance(HOUR)
    const told = world.events.flatMap(({ name, event }) =>
      name === 'certificate.revocation-checked' && 'isNews' in event ? [event.isNews] : [],
    )
    assert.ok(told.length >= 5)
    assert.deepEqual(told.filter((isNews) => isNews).length, 1)
    assert.equal(world.issued.length, 1)
    assert.equal(world.report().state.failure, undefined)
  })
})

describe('revoking what was replaced', () => {
  it('happens once the new one is proven, and never to the one in service', async () => {
    const world = begin({ revocation: {} })
    await world.clock.advance(MINUTE)
    await rotate(world)
    assert.deepEqual(world.revocations.done, ['c1'])
    await rotate(world)
    assert.deepEqual(world.revocations.done, ['c1', 'c2'])
    assert.deepEqual(world.disk.memory.toRevoke, [])
  })

  it('does not happen while the new one is refused', async () => {
    const world = begin({ revocation: {} })
    await world.clock.advance(MINUTE)
    world.target.refuses = (id) => id === 'c2'
    await rotate(world)
    await world.clock.advance(10 * MINUTE)
    assert.equal(world.target.serves, 'c1')
    assert.deepEqual(world.revocations.done, [])
  })

  it('fails no rotation, is tried again later and after a restart', async () => {
    const world = begin({ revocation: {} })
    world.revocations.fails = true
    await world.clock.advance(MINUTE)
    await rotate(world)
    await world.clock.advance(5 * MINUTE)
    assert.equal(world.report().state.failure, undefined)
    const tries = count(world, 'certificate.revoke-failed')
    assert.ok(tries >= 2 && tries <= 4, `${tries} tries in five minutes`)
    await world.stop()
    world.revocations.fails = false
    world.start()
    await world.clock.advance(1000)
    assert.deepEqual(world.revocations.done, ['c1'])
  })

  it('is given up at the end of its life', async () => {
    const world = begin({ revocation: {} })
    world.revocations.fails = true
    await world.clock.advance(20 * MINUTE)
    await rotate(world)
    await world.clock.advance(20 * MINUTE)
    await world.stop()
    await world.clock.advance(HOUR)
    world.revocations.fails = false
    world.start()
    await world.clock.advance(MINUTE)
    assert.ok(!world.revocations.done.includes('c1'))
  })

  it('is done at the end to what is in service, where that is wanted, and it does not come back', async () => {
    const atExit = ({ fingerprint, serial, notAfter }: { fingerprint: string; serial: string; notAfter: number }) => ({
      fingerprint,
      serial,
      notAfter,
      der: '',
    })
    const world = begin({ revocation: { atExit } })
    await world.clock.advance(MINUTE)
    await world.stop()
    assert.deepEqual(world.revocations.done, ['c1'])
    world.start()
    await world.clock.advance(MINUTE)
    assert.equal(world.target.serves, 'c2')
  })
})

describe('an OCSP response that ends', () => {
  it('is told of once', async () => {
    let end: number | undefined
    const world = begin({ revocation: { stapleEnd: () => end }, lifeMs: 10 * HOUR })
    end = world.clock.now() + 30 * MINUTE
    await world.clock.advance(29 * MINUTE)
    assert.equal(count(world, 'certificate.staple-ended'), 0)
    await world.clock.advance(HOUR)
    assert.equal(count(world, 'certificate.staple-ended'), 1)
  })
})

describe('what a config wants done', () => {
  const source: Source = {
    origin: 'test-ca',
    issues: true,
    ttlMs: undefined,
    names: undefined,
    algorithm: undefined,
    fetch: async () => assert.fail(),
    examine: async () => [],
  }
  const revoking = { ...source, revoke: async () => {} }
  const now = () => Date.now()
  const asked = { revocation: undefined, revokePrevious: true, revokeOnExit: false }

  it('is refused where the source revokes nothing', () => {
    assert.throws(() => manageRevocation(asked, { sources: [source], now }), {
      code: 'CONFIG_INVALID',
      message: 'revokePrevious: a source of this kind (test-ca) revokes nothing',
    })
  })

  it('is never to revoke what has the key of its successor, or came from another issuer', async () => {
    const ca = await createTestCa()
    const [one, other] = [(await ca.issue()).bundle, (await ca.issue()).bundle]
    const { outdated, check } = manageRevocation(asked, { sources: [revoking], now })
    assert.equal(check, undefined)
    assert.equal(outdated?.(one, other)?.fingerprint, one.fingerprint)
    assert.equal(outdated?.(one, one), undefined)
    assert.equal(outdated?.({ ...one, origin: 'elsewhere' }, other), undefined)
    assert.equal(manageRevocation({ ...asked, revokePrevious: false }, { sources: [source], now }).outdated, undefined)
  })

  it('is asked of the one of source and fallback that issued the certificate', async () => {
    const ca = await createTestCa()
    const issue = async (origin: string) => (await ca.issue({ origin })).bundle
    const calls: string[] = []
    const vault = (origin: string): Source => ({
      ...source,
      origin,
      revoke: async () => void calls.push(`revoke ${origin}`),
      revokedAt: async () => {
        calls.push(`ask ${origin}`)
        return 0
      },
    })
    const managed = manageRevocation(
      { ...asked, revocation: RevocationOptions.parse({ check: ['vault'] }), revokeOnExit: true },
      { sources: [vault('one'), source, vault('two')], now },
    )
    const [one, two, files] = [await issue('one'), await issue('two'), await issue('test-ca')]
    await managed.check?.(two, never)
    await managed.revoke(managed.outdated?.(two, one) ?? assert.fail(), 'superseded', never)
    await managed.revoke(managed.atExit?.(one) ?? assert.fail(), 'cessationOfOperation', never)
    assert.deepEqual(calls, ['ask two', 'revoke two', 'revoke one'])
    assert.equal(managed.outdated?.(files, one), undefined, 'there is nobody who could revoke it')
    assert.equal(managed.atExit?.(files), undefined)
  })

  it('may be wanted beside a fallback, and not of those who can do nothing of it', async () => {
    const { folder } = place()
    const config = (more: object) => {
      const devCa = { kind: 'dev-ca', directory: join(folder, 'ca'), commonName: 'web.test' }
      const outputs = [{ kind: 'pem', directory: join(folder, 'out') }]
      const vault = { address: 'http://127.0.0.1:1', auth: { kind: 'token', token: 't' } }
      writeFileSync(
        join(folder, 'c.yaml'),
        JSON.stringify({ vault, certificates: [{ name: 'web', source: devCa, outputs, ...more }] }),
        { mode: 0o600 },
      )
      return loadConfig(join(folder, 'c.yaml'), {})
    }
    const vaultPki = { kind: 'vault-pki', role: 'web', commonName: 'web.test' }
    const revocation = { check: ['vault'] }
    await using running = run(config({ fallback: [vaultPki], revokePrevious: true, revocation }))
    await running.once('web', 'is delivered', isDone)
    assert.throws(() => run(config({ revocation })), {
      code: 'CONFIG_INVALID',
      message: /^certificate "web": revocation\.check: vault: a source of this kind \(dev-ca .*\) is no Vault/,
    })
  })
})
