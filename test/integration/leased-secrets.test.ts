import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import { skipReason } from '../support/components.ts'
import { type LeasingPath, setupDatabase, setupStaticRole } from '../support/leasing.ts'
import { startPostgres } from '../support/postgres.ts'
import { type Running, run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'
import { startVault } from '../support/vault.ts'

const skip = await skipReason('vault', 'postgres', 'vault-plugin-database-postgresql')

const stack = new AsyncDisposableStack()
after(() => stack.disposeAsync())
const postgres = skip ? undefined : stack.use(await startPostgres())
const vault = skip ? undefined : stack.use(await startVault({ engines: ['database'] }))

describe('leased secrets of PostgreSQL', { skip }, async () => {
  const root = mkdtempSync(join(tmpdir(), 'certferry-leased-'))
  stack.defer(() => rmSync(root, { recursive: true, force: true }))
  const parts = () => ({ vault: vault ?? assert.fail(), postgres: postgres ?? assert.fail() })
  const role = (name: string, ttl: string, maxTtl: string): Promise<LeasingPath> =>
    setupDatabase(parts().vault, parts().postgres, { role: name, ttl, maxTtl })

  function start(value: object, { folder = mkdtempSync(join(root, 'f-')), more = {} } = {}): Running & Delivery {
    const { address, rootToken: token } = parts().vault
    const file = join(folder, 'c.yaml')
    const outputs = [
      {
        kind: 'json',
        directory: join(folder, 'out'),
        file: 'db.json',
        entries: { username: 'db.username', password: 'db.password' },
      },
    ]
    const secrets = [{ name: 'app', values: { db: { kind: 'vault-read', ...value } }, outputs, ...more }]
    writeFileSync(file, JSON.stringify({ vault: { address, auth: { kind: 'token', token } }, secrets }), {
      mode: 0o600,
    })
    const path = join(folder, 'out', 'db.json')
    return {
      ...run(loadConfig(file, {})),
      folder,
      delivered: () => (existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined),
    }
  }
  const asked = async (path: string) => (await parts().vault.audited()).filter((one) => one.path === path).length

  test('a lease is renewed as long as it can be, and nothing is written meanwhile', async () => {
    const { path } = await role('renewed', '4s', '1h')
    await using running = start({ path, poll: '1h' })
    const first = await until('they are delivered', running.delivered)
    const before = await asked('sys/leases/renew')
    await until('it was renewed twice', async () => (await asked('sys/leases/renew')) >= before + 2)
    assert.deepEqual(running.delivered(), first)
    assert.ok(await parts().postgres.canLogIn(first))
    assert.equal(await asked(path), 1)
  })

  test('at its max TTL new credentials are in place before the old ones end', async () => {
    const { path } = await role('capped', '4s', '8s')
    await using running = start({ path, poll: '1h' })
    const first = await until('they are delivered', running.delivered)
    const gaps: unknown[] = []
    const next = await until('others are delivered', async () => {
      const now = running.delivered() ?? first
      if (!(await parts().postgres.canLogIn(now))) gaps.push(now)
      return now.username !== first.username && now
    })
    assert.ok(await parts().postgres.canLogIn(next))
    assert.deepEqual(gaps, [], 'what was delivered could log in at all times')
  })

  test('a lease that somebody revoked is noticed at the next look, and replaced', async () => {
    const { path } = await role('revoked', '1h', '2h')
    await using running = start({ path, poll: '1s' })
    const first = await until('they are delivered', running.delivered)
    await parts().vault.api('POST', `sys/leases/revoke-prefix/${path}`)
    const next = await until(
      'others are delivered',
      () => running.delivered()?.username !== first.username && running.delivered(),
    )
    assert.ok(await parts().postgres.canLogIn(next))
  })

  test('the old lease is given back once the new one has been in service for the overlap', async () => {
    const { path } = await role('overlap', '1h', '2h')
    await using running = start({ path, poll: '1s', overlap: '2s' })
    const first = await until('they are delivered', running.delivered)
    void running.sidecar.rotate(['app'], 'by hand', new AbortController().signal)
    await until('others are delivered', () => running.delivered()?.username !== first.username)
    assert.ok(await parts().postgres.canLogIn(first), 'both are good for a while')
    await until('the old ones are gone', async () => !(await parts().postgres.canLogIn(first)))
    assert.ok(await parts().postgres.canLogIn(running.delivered() ?? first))
  })

  test('what is made anew is delivered before Vault is asked again, when the target refused it', async () => {
    const { path } = await role('refused', '1h', '2h')
    const reload = [{ kind: 'exec', command: ['false'] }]
    await using running = start({ path, poll: '1h' }, { more: { reload } })
    await until('two tries were made', () => (running.sidecar.secrets[0]?.report?.state.failures ?? 0) >= 2)
    assert.equal(await asked(path), 1)
  })

  test('hashicorp/vault#10676 credentials are not made anew with each token', async () => {
    const { path } = await role('token', '1h', '2h')
    await using running = start({ path, poll: '1s' })
    await until('they are delivered', running.delivered)
    await until('it was looked at five times', async () => (await asked('sys/leases/lookup')) >= 5)
    assert.equal(await asked(path), 1)
  })

  test('a restart makes them anew once, since the lease ends with the token of the process before', async () => {
    const { path } = await role('restart', '1h', '2h')
    const folder = mkdtempSync(join(root, 'r-'))
    const first = await (async () => {
      await using running = start({ path }, { folder })
      return await until('they are delivered', running.delivered)
    })()
    await using running = start({ path }, { folder })
    assert.deepEqual(running.delivered(), first, 'the last ones are in place meanwhile')
    await until('others are delivered', () => running.delivered()?.username !== first.username)
    assert.equal(await asked(path), 2)
  })

  test('a static role, which has no lease, is read again when Vault has changed it', async () => {
    const { vault, postgres } = parts()
    const { path } = await setupStaticRole(vault, postgres, { role: 'static', username: 'fixed', rotationPeriod: '5s' })
    await using running = start({ path, poll: '1h' })
    const first = await until('it is delivered', running.delivered)
    const next = await until(
      'the new password is',
      () => running.delivered()?.password !== first.password && running.delivered(),
    )
    assert.ok(await postgres.canLogIn(next))
  })
})

interface Delivery {
  readonly folder: string
  delivered(): { username: string; password: string } | undefined
}
