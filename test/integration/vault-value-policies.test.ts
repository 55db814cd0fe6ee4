import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import type { Reading } from '../../src/core/snapshot.ts'
import { values } from '../../src/values/index.ts'
import type { ValueSource } from '../../src/values/value.ts'
import { skipReason } from '../support/components.ts'
import { setupDatabase } from '../support/leasing.ts'
import { startPostgres } from '../support/postgres.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault } from '../support/vault.ts'
import { failure, forever, openVault } from '../vault/support.ts'

const PAGE = readFileSync(new URL('../../docs/vault-policies.md', import.meta.url), 'utf8')

/** `<!-- value: KIND -->` and the lines of the block that follows it. */
const policies: Readonly<Record<string, readonly string[]>> = Object.fromEntries(
  [...PAGE.matchAll(/<!-- value: (\S+) -->\n```hcl\n([^`]+)```/g)].map(([, kind = '', text = '']) => [
    kind,
    text.trim().split('\n'),
  ]),
)

test('the page has a policy for each kind of value', () => {
  assert.deepEqual(Object.keys(policies).sort(), values.definitions.map(({ kind }) => kind).sort())
})

const [skip, skipLeases] = [
  await skipReason('vault'),
  await skipReason('vault', 'postgres', 'vault-plugin-database-postgresql'),
]

const stack = new AsyncDisposableStack()
after(() => stack.disposeAsync())
const folder = mkdtempSync(join(tmpdir(), 'certferry-policies-'))
stack.defer(() => rmSync(folder, { recursive: true, force: true }))
const server = skip ? undefined : stack.use(await startVault(skipLeases ? {} : { engines: ['database'] }))
const api: TestVault['api'] = (...request) => (server ?? assert.fail()).api(...request)

/** The value as certferry reads it with a token that these lines allow, and nothing else. */
async function open(options: { kind: string }, lines: readonly string[]): Promise<ValueSource & AsyncDisposable> {
  const { address, setupApprole } = server ?? assert.fail()
  const made = await setupApprole({ policy: lines.join('\n'), role: { token_no_default_policy: true } })
  const secretIdFile = join(mkdtempSync(join(folder, 's-')), 'secret-id')
  writeFileSync(secretIdFile, await made.secretId(), { mode: 0o600 })
  const { vault } = openVault(address, { auth: { kind: 'approle', roleId: made.roleId, secretIdFile } })
  const source = values.create(values.schema.parse(options), { vault: () => vault, clock: systemClock })
  return { ...source, [Symbol.asyncDispose]: () => vault[Symbol.asyncDispose]() }
}

const linesOf = (kind: string) => policies[kind] ?? assert.fail(kind)

describe('with the policies of docs/vault-policies.md', { skip }, () => {
  const given: Readonly<Record<string, () => Promise<object>>> = {
    'vault-kv': async () => {
      await api('POST', 'sys/mounts/secret', { type: 'kv', options: { version: '2' } })
      await api('POST', 'secret/data/team/app', { data: { user: 'ada' } })
      return { path: 'team/app' }
    },
    'vault-transit': async () => {
      await api('POST', 'sys/mounts/transit', { type: 'transit' })
      await api('POST', 'transit/keys/app')
      const { data } = await api('POST', 'transit/encrypt/app', { plaintext: 'YWRh' })
      return { key: 'app', ciphertext: { user: data?.ciphertext } }
    },
    'vault-ssh': async () => {
      await api('POST', 'sys/mounts/ssh', { type: 'ssh' })
      await api('POST', 'ssh/config/ca', { generate_signing_key: true })
      const role = { key_type: 'ca', allow_user_certificates: true, allowed_users: '*', ttl: '1h' }
      await api('POST', 'ssh/roles/deploy', role)
      return { role: 'deploy', principals: ['deploy'] }
    },
  }
  for (const [kind, setup] of Object.entries(given))
    test(`${kind} is read, and is denied without its line`, async () => {
      const options = { kind, ...(await setup()) }
      await using allowed = await open(options, linesOf(kind))
      await allowed.read(forever)
      await using denied = await open(options, ['path "secret/data/other" { capabilities = ["read"] }'])
      assert.equal((await failure(denied.read(forever))).code, 'PERMISSION_DENIED')
    })
})

describe('with the policy of a lease', { skip: skipLeases }, async () => {
  const postgres = skipLeases ? undefined : stack.use(await startPostgres())
  if (server && postgres) await setupDatabase(server, postgres, { role: 'app', ttl: '3s', maxTtl: '1h' })
  const options = { kind: 'vault-read', path: 'database/creds/app', overlap: '1s' }
  const without = (path: string) => linesOf('vault-read').filter((line) => !line.includes(`"${path}"`))
  const revoke = (id: string | undefined) => api('POST', 'sys/leases/revoke', { lease_id: id, sync: true })
  const untilDue = (value: ValueSource, reading: Reading) =>
    until('it is to be renewed', () => value.afterMs(reading) === 0)

  test('it is read, renewed, looked up and revoked', async () => {
    await using value = await open(options, linesOf('vault-read'))
    const reading = await value.read(forever)
    await untilDue(value, reading)
    const renewed = await value.look(reading, forever)
    assert.ok(renewed && renewed.notAfter > reading.notAfter)
    await value.discard?.(renewed, forever)
    assert.equal(await value.look(renewed, forever), undefined, 'it is gone')
  })

  test('without the path nothing is read', async () => {
    await using value = await open(options, without('database/creds/app'))
    assert.equal((await failure(value.read(forever))).code, 'PERMISSION_DENIED')
  })

  test('without sys/leases/renew new credentials are asked for at 2/3', async () => {
    await using value = await open(options, without('sys/leases/renew'))
    const reading = await value.read(forever)
    assert.equal(await value.look(reading, forever), reading)
    await untilDue(value, reading)
    assert.equal(await value.look(reading, forever), undefined)
  })

  test('without sys/leases/lookup a revoked lease is noticed when it is to be renewed', async () => {
    await using value = await open(options, without('sys/leases/lookup'))
    const reading = await value.read(forever)
    await revoke(reading.lease?.id)
    assert.equal(await value.look(reading, forever), reading)
    await untilDue(value, reading)
    assert.equal(await value.look(reading, forever), undefined)
  })

  test('without sys/leases/revoke a revocation is a failure that is told', async () => {
    await using value = await open(options, without('sys/leases/revoke'))
    const reading = await value.read(forever)
    const denied = await failure(value.discard?.(reading, forever) ?? assert.fail('there is an overlap'))
    assert.equal(denied.code, 'PERMISSION_DENIED')
  })
})
