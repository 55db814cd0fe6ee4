import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { loadConfig } from '../../src/config/config.ts'
import { createFakeClock } from '../support/clock.ts'
import { skipReason } from '../support/components.ts'
import { run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'
import { startVault, WEB_ROLE } from '../support/vault.ts'

const skip = await skipReason('vault')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki({ roles: { web: WEB_ROLE } })
await vault?.api('POST', 'sys/mounts/kv', { type: 'kv', options: { version: '2' } })
await vault?.api('POST', 'sys/mounts/old', { type: 'kv', options: { version: '1' } })
const root = mkdtempSync(join(tmpdir(), 'certferry-requests-'))
after(() => rmSync(root, { recursive: true, force: true }))

const HOUR_MS = 3_600_000

describe('requests to Vault, counted from its audit log', { skip }, () => {
  /** By operation and path, of those sent since `from` by whoever is no test. */
  const counted = async (paths: RegExp) =>
    (await (vault ?? assert.fail()).audited()).filter(({ path }) => paths.test(path)).length

  const load = (config: object) => {
    const file = join(mkdtempSync(join(root, 'f-')), 'c.yaml')
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
    return loadConfig(file, {})
  }
  const connection = () => {
    const { address, rootToken: token } = vault ?? assert.fail()
    return { address, auth: { kind: 'token', token } }
  }

  for (const [engine, mount, path] of [
    ['version 2', 'kv', 'kv/data/poll'],
    ['version 1', 'old', 'old/poll'],
  ] as const)
    test(`a look at a key-value engine of ${engine} that finds nothing new is one request, and nothing else is asked`, async () => {
      const body = { n: 1 }
      await vault?.api('POST', path, mount === 'kv' ? { data: body } : body)
      const values = { v: { kind: 'vault-kv', mount, path: 'poll', poll: '1s' } }
      await using running = run(load({ vault: connection(), secrets: [{ name: 'app', values }] }))
      const looks = () =>
        running.events.filter(({ event }) => 'operation' in event && event.operation === 'kv-read').length
      await until('it was looked at', () => looks() >= 2)
      const [own, all, told] = [await counted(new RegExp(`^${path}$`)), await counted(/./), looks()]
      await until('it was looked at four times more', () => looks() >= told + 4)
      const [ownNow, allNow, toldNow] = [await counted(new RegExp(`^${path}$`)), await counted(/./), looks()]
      assert.equal(ownNow - own, toldNow - told)
      assert.equal(allNow - all, ownNow - own, 'nothing else was asked')
      assert.equal(
        await counted(new RegExp(`^sys/internal/ui/mounts/${mount}/poll$`)),
        1,
        'the engine is asked for once',
      )
    })

  test('a day of one certificate and ten secrets stays within its budget', async (t) => {
    const { roleId, secretId } = await (vault ?? assert.fail()).setupApprole({
      policy: 'path "pki/sign/web" { capabilities = ["update"] } path "kv/data/day/*" { capabilities = ["read"] }',
      role: { token_ttl: '1h', token_max_ttl: '768h' },
    })
    const names = Array.from({ length: 10 }, (_, index) => `s${index}`)
    for (const name of names) await vault?.api('POST', `kv/data/day/${name}`, { data: { n: name } })
    const place = mkdtempSync(join(root, 'd-'))
    const config = load({
      vault: { address: vault?.address, auth: { kind: 'approle', roleId, secretId: await secretId() } },
      certificates: [
        {
          name: 'web',
          source: { kind: 'vault-pki', role: 'web', commonName: 'web.example.com', ttl: '72h' },
          outputs: [{ kind: 'pem', directory: join(place, 'web') }],
        },
      ],
      secrets: names.map((name) => ({ name, values: { v: { kind: 'vault-kv', mount: 'kv', path: `day/${name}` } } })),
    })
    // Our clock runs through the day; Vault's stands still, as far as its tokens and certificates go.
    let seed = 1
    const random = () => {
      seed = (seed * 16807) % 2147483647
      return seed / 2147483647
    }
    const clock = createFakeClock(Date.now(), { random, settle: () => sleep(2) })
    const before = await counted(/./)
    await using running = run(config, { clock })
    await until('all is there', async () => {
      await clock.advance(1000)
      return [...running.sidecar.certificates, ...running.sidecar.secrets].every(({ report }) => report?.state.serving)
    })
    const start = await counted(/./)
    const [polls, renewals, issued] = [
      await counted(/^kv\/data\/day\//),
      await counted(/renew-self$/),
      await counted(/^pki\/sign\/web$/),
    ]
    for (let hour = 0; hour < 24; hour += 1) await clock.advance(HOUR_MS)
    const day = (await counted(/./)) - start
    const figures = {
      polls: (await counted(/^kv\/data\/day\//)) - polls,
      renewals: (await counted(/renew-self$/)) - renewals,
      issued: (await counted(/^pki\/sign\/web$/)) - issued,
    }
    // Every 5 min, up to a tenth sooner: 320 looks at each secret at most. A token of an hour: renewed every 40 min.
    const budget = 10 * 320 + 37 + 1
    t.diagnostic(
      `a day: ${day} requests of at most ${budget}: ${figures.polls} looks at ten secrets, ${figures.renewals} renewals of the token, ${figures.issued} certificates; ${start - before} at the start`,
    )
    assert.ok(day <= budget, `${day} requests`)
    assert.ok(figures.polls >= 10 * 288, 'every secret was looked at every five minutes')
    assert.equal(day, figures.polls + figures.renewals + figures.issued, 'nothing else was asked')
  })
})
