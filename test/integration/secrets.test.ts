import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import type { Snapshot } from '../../src/core/snapshot.ts'
import type { ErrorCode } from '../../src/errors.ts'
import type { Loop } from '../../src/loop.ts'
import { skipReason } from '../support/components.ts'
import { type Running, run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault } from '../support/vault.ts'

const skip = await skipReason('vault', 'ssh-keygen')

const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())

describe('secrets from a real Vault', { skip }, async () => {
  const root = mkdtempSync(join(tmpdir(), 'certferry-secrets-'))
  after(() => rmSync(root, { recursive: true, force: true }))
  const api: TestVault['api'] = (...request) => (vault ?? assert.fail()).api(...request)
  await vault?.api('POST', 'sys/mounts/kv', { type: 'kv', options: { version: '2' } })
  await vault?.api('POST', 'sys/mounts/old', { type: 'kv', options: { version: '1' } })
  await vault?.api('POST', 'sys/mounts/transit', { type: 'transit' })
  const put = (path: string, data: object) => api('POST', `kv/data/${path}`, { data })

  const asJson = (folder: string) => [{ kind: 'json', directory: join(folder, 'out'), file: 'app.json' }]

  /** A config with the secret `app` of these values, in a folder of its own. */
  function start(
    values: object,
    { outputs = asJson, vaults = {}, ...more }: Wanted = {},
    token = vault?.rootToken,
  ): Running & { readonly folder: string } {
    const folder = mkdtempSync(join(root, 'f-'))
    const file = join(folder, 'c.yaml')
    const secret = {
      name: 'app',
      values,
      outputs: outputs(folder),
      ...more,
    }
    const { address } = vault ?? assert.fail()
    const config = { vault: { address, auth: { kind: 'token', token } }, vaults, secrets: [secret] }
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

  test('a template gets all values of one moment, and formats beside it the same', async () => {
    await put('team/t', { user: 'u1', pass: 'p1' })
    const outputs = (folder: string) => [
      {
        kind: 'template',
        directory: join(folder, 'out'),
        file: 'app.conf',
        template: '{{ db.user }}:{{ db.pass | base64_encode }}',
      },
      { kind: 'dotenv', directory: join(folder, 'out'), file: 'app.env', entries: { DB_PASS: 'db.pass' } },
      { kind: 'env', directory: join(folder, 'out'), file: 'app.sh' },
      { kind: 'yaml', directory: join(folder, 'out'), file: 'app.yaml' },
      { kind: 'java-properties', directory: join(folder, 'out'), file: 'app.properties' },
    ]
    await using running = start({ db: { kind: 'vault-kv', mount: 'kv', path: 'team/t' } }, { outputs })
    await becomes(running, 'is delivered', isActive)
    const text = (file: string) => readFileSync(join(running.folder, 'out', file), 'utf8')
    assert.equal(text('app.conf'), 'u1:cDE=')
    assert.equal(text('app.env'), 'DB_PASS=p1\n')
    assert.equal(text('app.sh'), "export DB_PASS='p1'\nexport DB_USER='u1'\n")
    assert.equal(text('app.yaml'), 'db:\n  pass: "p1"\n  user: "u1"\n')
    assert.equal(text('app.properties'), 'DB_PASS=p1\nDB_USER=u1\n')
  })

  test('a path that is denied keeps no other one of the mount waiting, and is the one that is named', async () => {
    await put('open', { n: 1 })
    const token = await (vault ?? assert.fail()).createToken({
      policy: 'path "kv/data/open" { capabilities = ["read"] }',
    })
    const file = join(mkdtempSync(join(root, 'f-')), 'c.yaml')
    const secret = (name: string, path: string) => ({ name, values: { v: { kind: 'vault-kv', mount: 'kv', path } } })
    const secrets = [secret('shut', 'closed'), secret('shut-too', 'closed-too'), secret('free', 'open')]
    const vaultOptions = { address: vault?.address, auth: { kind: 'token', token } }
    writeFileSync(file, JSON.stringify({ vault: vaultOptions, secrets }), { mode: 0o600 })
    await using running = run(loadConfig(file, {}))
    const [shut, too, free] = running.sidecar.secrets
    await until('the other one is delivered', () => free?.report?.state.serving)
    await until('both are refused', () => shut?.report?.state.failure && too?.report?.state.failure)
    assert.equal(free?.report?.state.failures, 0)
    assert.match(shut?.report?.state.failure?.message ?? '', /kv\/(?:data\/)?closed \(/)
    assert.match(too?.report?.state.failure?.message ?? '', /kv\/(?:data\/)?closed-too \(/)
  })

  test('a template in a file is a part of the config: loaded again, a change of it is delivered', async () => {
    await put('file', { n: 1 })
    const file = join(mkdtempSync(join(root, 't-')), 'a.tpl')
    writeFileSync(file, 'one {{ v.n }}')
    const outputs = (folder: string) => [
      { kind: 'template', directory: join(folder, 'out'), file: 'a', templateFile: file },
    ]
    await using running = start({ v: { kind: 'vault-kv', mount: 'kv', path: 'file' } }, { outputs })
    const delivered = () => readFileSync(join(running.folder, 'out', 'a'), 'utf8')
    await becomes(running, 'is delivered', isActive)
    assert.equal(delivered(), 'one 1')
    writeFileSync(file, 'two {{ v.n }}')
    const { changed } = await running.sidecar.configure(loadConfig(join(running.folder, 'c.yaml'), {}))
    assert.deepEqual(changed, ['app'])
    await until('it is delivered anew', () => delivered() === 'two 1')
  })

  test('a value comes over the connection that it names, with the rights of that one', async () => {
    await put('ours', { n: 'ours' })
    await put('theirs', { n: 'theirs' })
    const tokenFor = (path: string) =>
      (vault ?? assert.fail()).createToken({ policy: `path "kv/data/${path}" { capabilities = ["read"] }` })
    const theirs = { address: vault?.address, auth: { kind: 'token', token: await tokenFor('theirs') } }
    const values = {
      a: { kind: 'vault-kv', mount: 'kv', path: 'ours' },
      b: { kind: 'vault-kv', mount: 'kv', path: 'theirs', vault: 'partner' },
    }
    await using running = start(values, { vaults: { partner: theirs } }, await tokenFor('ours'))
    await becomes(running, 'is delivered', isActive)
    assert.deepEqual(read(running), { a: { n: 'ours' }, b: { n: 'theirs' } })
    const connections = running.events.flatMap(({ name, event }) =>
      name === 'vault.token' && 'renewable' in event ? [event.connection] : [],
    )
    assert.deepEqual(connections.sort(), ['partner', undefined])
  })

  describe('SSH certificates', () => {
    const sshRead = (path: string) => execFileSync('ssh-keygen', ['-L', '-f', path], { encoding: 'utf8' })
    const outputs = (folder: string) => [
      { kind: 'template', directory: join(folder, 'out'), file: 'id-cert.pub', template: '{{ ssh.certificate }}' },
      { kind: 'template', directory: join(folder, 'out'), file: 'id', template: '{{ ssh.private_key }}' },
    ]
    const setup = async (role: string, settings: object) => {
      const { data } = await api('GET', 'sys/mounts')
      if (!data?.['ssh/']) {
        await api('POST', 'sys/mounts/ssh', { type: 'ssh' })
        await api('POST', 'ssh/config/ca', { generate_signing_key: true })
      }
      await api('POST', `ssh/roles/${role}`, {
        key_type: 'ca',
        allow_user_certificates: true,
        allow_host_certificates: true,
        allowed_users: '*',
        allowed_domains: 'example.com',
        allow_subdomains: true,
        default_extensions: { 'permit-pty': '' },
        ...settings,
      })
    }

    test('a user gets a key and a certificate that OpenSSH reads, renewed at 2/3 of its life', async () => {
      await setup('user', { ttl: '6s' })
      await using running = start({ ssh: { kind: 'vault-ssh', role: 'user', principals: ['deploy'] } }, { outputs })
      await becomes(running, 'is delivered', isActive)
      const [certificate, key] = ['id-cert.pub', 'id'].map((file) => join(running.folder, 'out', file))
      const text = sshRead(certificate ?? '')
      assert.match(text, /user certificate[\s\S]*Principals:\s+deploy/)
      const fingerprint = (out: string) => /SHA256:\S+/.exec(out)?.[0]
      const ofKey = execFileSync('ssh-keygen', ['-l', '-f', key ?? ''], { encoding: 'utf8' })
      assert.equal(/Public key: \S+ (SHA256:\S+)/.exec(text)?.[1], fingerprint(ofKey))
      await until('another one is in place', () => sshRead(certificate ?? '') !== text)
    })

    test('a host keeps its key, and a restart asks for nothing', async () => {
      await setup('host', { ttl: '1h' })
      const folder = mkdtempSync(join(root, 'ssh-'))
      execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(folder, 'host')])
      const value = {
        kind: 'vault-ssh',
        role: 'host',
        type: 'host',
        principals: ['web.example.com'],
        publicKeyFile: join(folder, 'host.pub'),
      }
      const out = () => [
        { kind: 'template', directory: join(folder, 'out'), file: 'cert.pub', template: '{{ ssh.certificate }}' },
      ]
      const signed = async () => ((await vault?.audited()) ?? []).filter(({ path }) => path === 'ssh/sign/host').length
      for (let round = 0; round < 2; round += 1) {
        await using running = start({ ssh: value }, { outputs: out })
        await becomes(running, 'is delivered', isActive)
        assert.match(sshRead(join(folder, 'out', 'cert.pub')), /host certificate[\s\S]*Principals:\s+web\.example\.com/)
      }
      assert.equal(await signed(), 1)
    })
  })

  describe('what is wrong is told with secret, path and fix, and the last good delivery stays', () => {
    const bad: Record<
      string,
      { spoil: (path: string) => Promise<unknown>; code: ErrorCode; told: RegExp; value?: object }
    > = {
      'a version that was deleted': {
        spoil: (path) => api('DELETE', `kv/data/${path}`),
        code: 'SECRET_DELETED',
        told: /^value "api": GET kv\/data\/\S+ \(404\): version 1 was deleted at /,
      },
      'a version that was destroyed': {
        spoil: (path) => api('POST', `kv/destroy/${path}`, { versions: [1] }),
        code: 'SECRET_DESTROYED',
        told: /version 1 is destroyed$/,
      },
      'a secret that is gone altogether': {
        spoil: (path) => api('DELETE', `kv/metadata/${path}`),
        code: 'SECRET_MISSING',
        told: /nothing lies there$/,
      },
      'a field that is gone': {
        spoil: (path) => put(path, { other: 1 }),
        code: 'FIELD_MISSING',
        told: /key/,
      },
      'a value that the format cannot carry': {
        spoil: (path) => put(path, { key: 'a\nb' }),
        code: 'VALUE_UNWRITABLE',
        told: /API_KEY/,
      },
    }
    for (const [claim, { spoil, code, told }] of Object.entries(bad))
      test(claim, async () => {
        const path = `bad/${claim.replaceAll(' ', '-')}`
        await put(path, { key: 'good' })
        const outputs = (folder: string) => [
          {
            kind: 'dotenv',
            directory: join(folder, 'out'),
            file: 'app.env',
            entries: { API_KEY: 'api.key' },
            reader: 'docker',
          },
        ]
        await using running = start({ api: { kind: 'vault-kv', mount: 'kv', path, poll: '1s' } }, { outputs })
        await becomes(running, 'is delivered', isActive)
        await spoil(path)
        await becomes(running, 'is in trouble', (loop) => failure(loop) !== undefined)
        const found = failure(loopOf(running))
        assert.equal(found?.code, code)
        assert.match(found?.message ?? '', told)
        const delivered = () => readFileSync(join(running.folder, 'out', 'app.env'), 'utf8')
        assert.equal(delivered(), 'API_KEY=good\n')
        await put(path, { key: 'mended' })
        await until('what was mended is delivered', () => {
          // Instead of waiting for the backoff.
          running.sidecar.retry()
          return delivered() === 'API_KEY=mended\n'
        })
        assert.doesNotMatch(JSON.stringify(running.events), /good|mended/, 'no value is told')
      })
    test('what transit does not decrypt is told by its field', async () => {
      await api('POST', 'transit/keys/own')
      await api('POST', 'transit/keys/other')
      const encrypt = async (key: string) =>
        (await api('POST', `transit/encrypt/${key}`, { plaintext: 'aHVzaA==' })).data?.ciphertext
      const [good, foreign] = [await encrypt('own'), await encrypt('other')]
      const told = async (ciphertext: object) => {
        await using running = start({ pw: { kind: 'vault-transit', key: 'own', ciphertext } })
        return await until('it is told', () => failure(loopOf(running)))
      }
      const some = await told({ fine: good, wrong: foreign })
      assert.equal(some.code, 'REQUEST_REJECTED')
      assert.match(some.message, /^value "pw": POST transit\/decrypt\/own: field "wrong": \S/)
      const none = await told({ wrong: foreign, cut: 'vault:v1:AAAA' })
      assert.equal(none.code, 'REQUEST_REJECTED')
      assert.match(none.message, /\(400\); this key decrypts none of wrong, cut$/)
    })

    test('a path that does not exist, and one that the policy denies', async () => {
      await using missing = start({ api: { kind: 'vault-kv', mount: 'kv', path: 'no/such' } })
      await becomes(missing, 'is missing', (loop) => failure(loop)?.code === 'SECRET_MISSING')
      await using mountless = start({ api: { kind: 'vault-read', path: 'nowhere/creds/app' } })
      await becomes(mountless, 'has no mount', (loop) => failure(loop)?.code === 'MOUNT_MISSING')
      const token = await (vault ?? assert.fail()).createToken({
        policy: 'path "kv/data/allowed" { capabilities = ["read"] }',
      })
      await using denied = start({ api: { kind: 'vault-kv', mount: 'kv', path: 'denied' } }, {}, token)
      await becomes(denied, 'is denied', (loop) => failure(loop)?.code === 'PERMISSION_DENIED')
    })
  })
})

interface Wanted {
  readonly outputs?: (folder: string) => object[]
  readonly reload?: object[]
  readonly vaults?: object
}
