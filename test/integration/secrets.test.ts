import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import type { Snapshot } from '../../src/core/snapshot.ts'
import type { Loop } from '../../src/loop.ts'
import { skipReason } from '../support/components.ts'
import { type Running, run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault } from '../support/vault.ts'

const skip = await skipReason('vault')

describe('secrets from a real Vault', { skip }, async () => {
  const vault = skip ? undefined : await startVault()
  after(() => vault?.[Symbol.asyncDispose]())
  const root = mkdtempSync(join(tmpdir(), 'certferry-secrets-'))
  after(() => rmSync(root, { recursive: true, force: true }))
  const api: TestVault['api'] = (...request) => (vault ?? assert.fail()).api(...request)
  await vault?.api('POST', 'sys/mounts/kv', { type: 'kv', options: { version: '2' } })
  await vault?.api('POST', 'sys/mounts/old', { type: 'kv', options: { version: '1' } })
  await vault?.api('POST', 'sys/mounts/transit', { type: 'transit' })
  const put = (path: string, data: object) => api('POST', `kv/data/${path}`, { data })

  /** A config with the secret `app` of these values, in a folder of its own. */
  function start(values: object, more: object = {}): Running & { readonly folder: string } {
    const folder = mkdtempSync(join(root, 'f-'))
    const file = join(folder, 'c.yaml')
    const secret = {
      name: 'app',
      values,
      outputs: [{ kind: 'json', directory: join(folder, 'out'), file: 'app.json' }],
      ...more,
    }
    const { address, rootToken: token } = vault ?? assert.fail()
    const config = { vault: { address, auth: { kind: 'token', token } }, secrets: [secret] }
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
    return { ...run(loadConfig(file, {})), folder }
  }

  const read = ({ folder }: { folder: string }) => JSON.parse(readFileSync(join(folder, 'out', 'app.json'), 'utf8'))
  const loopOf = ({ sidecar }: Running) => sidecar.secrets[0] ?? assert.fail('no secret is run')
  const becomes = (running: Running, claim: string, isSo: (loop: Loop<Snapshot>) => boolean) =>
    until(`the secret ${claim}`, () => isSo(loopOf(running)))
  const isActive = ({ report }: Loop<Snapshot>) => report?.state.serving !== undefined && report.next.kind === 'wait'
  const failure = ({ report }: Loop<Snapshot>) => report?.state.failure

  test('of both key-value engines and transit are delivered together, 0600', async () => {
    await put('team/api', { key: 'one', nested: { list: [1, 'two', null] } })
    await api('POST', 'old/plain', { word: 'v1' })
    await api('POST', 'transit/keys/app')
    const { data } = await api('POST', 'transit/encrypt/app', { plaintext: Buffer.from('pässword').toString('base64') })
    await using running = start({
      api: { kind: 'vault-kv', mount: 'kv', path: 'team/api' },
      plain: { kind: 'vault-kv', mount: 'old', path: 'plain' },
      pw: { kind: 'vault-transit', key: 'app', ciphertext: { password: data?.ciphertext } },
    })
    await becomes(running, 'is delivered', isActive)
    assert.deepEqual(read(running), {
      api: { key: 'one', nested: { list: [1, 'two', null] } },
      plain: { word: 'v1' },
      pw: { password: 'pässword' },
    })
    assert.equal(statSync(join(running.folder, 'out', 'app.json')).mode & 0o777, 0o600)
  })

  test('a new version in Vault is delivered at the next look; without one nothing is written', async () => {
    await put('team/poll', { n: 1 })
    await using running = start({ api: { kind: 'vault-kv', mount: 'kv', path: 'team/poll', poll: '1s' } })
    await becomes(running, 'is delivered', isActive)
    const looks = () =>
      running.events.filter(({ event }) => 'operation' in event && event.operation === 'kv-read').length
    const first = looks()
    await until('Vault was looked at three times more', () => looks() >= first + 3)
    assert.equal(running.events.filter(({ name }) => name === 'secret.written').length, 1)
    await put('team/poll', { n: 2 })
    await until('the new version is delivered', () => read(running).api.n === 2)
    await becomes(running, 'knows the version', ({ report }) => report?.state.serving?.serial === 'api v2')
  })
})
