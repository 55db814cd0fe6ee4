import assert from 'node:assert/strict'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import { skipReason } from '../support/components.ts'
import { type Running, run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'
import { startVault, WEB_ROLE } from '../support/vault.ts'

const skip = await skipReason('vault')

const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())

/** Defects of other tools, each by the issue in which it was reported, and why it cannot happen here. */
describe('defects of other tools', { skip }, async () => {
  const root = mkdtempSync(join(tmpdir(), 'certferry-defects-'))
  after(() => rmSync(root, { recursive: true, force: true }))
  await vault?.setupPki({ roles: { web: { ...WEB_ROLE, max_ttl: '24h' } } })
  await vault?.api('POST', 'sys/mounts/kv', { type: 'kv', options: { version: '2' } })

  function start({ certificates = [], secrets = [] }: { certificates?: object[]; secrets?: object[] }): Running {
    const file = join(mkdtempSync(join(root, 'c-')), 'c.yaml')
    const { address, rootToken: token } = vault ?? assert.fail()
    const config = { vault: { address, auth: { kind: 'token', token } }, certificates, secrets }
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
    return run(loadConfig(file, {}))
  }
  const folder = () => mkdtempSync(join(root, 'f-'))
  const signed = async (name: string) =>
    (await (vault ?? assert.fail()).audited()).filter(({ path }) => path === `pki/sign/${name}`)
  const certificate = (name: string, more: object = {}) => ({
    name,
    source: { kind: 'vault-pki', role: 'web', commonName: `${name}.example.com`, ttl: '1h' },
    outputs: [{ kind: 'pem', directory: join(root, `out-${name}`) }],
    ...more,
  })
  const serving = (running: Running, name: string) => running.loop(name).report?.state.serving

  test('hashicorp/consul-template#1775 the time of a renewal does not drift, however often the loop is woken', async () => {
    await vault?.api('POST', 'pki/roles/drift', WEB_ROLE)
    const source = { kind: 'vault-pki', role: 'drift', commonName: 'drift.example.com', ttl: '12s' }
    const more = { source, renew: { after: 0.5, jitter: 0 } }
    await using running = start({ certificates: [certificate('drift', more)] })
    const waking = setInterval(() => running.sidecar.retry(), 200)
    try {
      await until('it was renewed three times', async () => (await signed('drift')).length >= 4)
    } finally {
      clearInterval(waking)
    }
    const times = (await signed('drift')).map(({ at }) => at)
    const gaps = times.slice(1).map((at, index) => at - (times[index] ?? 0))
    // Half of 12 s each time; asleep for a fraction of what is left, the gaps would shrink towards the end.
    for (const gap of gaps) assert.ok(gap < 9_000, `renewed after ${gap} ms of a life of 12 s`)
  })

  test('hashicorp/consul-template#1607 twenty certificates asked for at once each get their own names', async () => {
    const names = Array.from({ length: 20 }, (_, index) => `many${index}`)
    await using running = start({ certificates: names.map((name) => certificate(name)) })
    await until('all are there', () => names.every((name) => serving(running, name)))
    for (const name of names) {
      const leaf = new X509Certificate(readFileSync(join(root, `out-${name}`, 'tls.crt')))
      assert.equal(leaf.subject, `CN=${name}.example.com`)
      assert.equal(leaf.subjectAltName, `DNS:${name}.example.com`)
    }
  })

  test('hashicorp/consul-template#1567 and hashicorp/vault#17166 key and certificate in files of their own are of one request', async () => {
    await vault?.api('POST', 'pki/roles/pair', WEB_ROLE)
    const directory = join(root, 'out-pair')
    const outputs = [
      { kind: 'pem', directory },
      { kind: 'combined', directory },
    ]
    const source = { kind: 'vault-pki', role: 'pair', commonName: 'pair.example.com', ttl: '1h' }
    await using running = start({ certificates: [certificate('pair', { source, outputs })] })
    for (let round = 1; round <= 3; round += 1) {
      await until('it is there', () => serving(running, 'pair'))
      const read = (name: string) => readFileSync(join(directory, name))
      const leaf = new X509Certificate(read('tls.crt'))
      assert.ok(leaf.checkPrivateKey(createPrivateKey(read('tls.key'))))
      assert.equal(new X509Certificate(read('tls.pem')).serialNumber, leaf.serialNumber)
      assert.equal((await signed('pair')).length, round)
      await running.sidecar.rotate(['pair'], 'again', new AbortController().signal)
    }
  })

  test('hashicorp/vault#32035 one command that fails makes nothing else run or be written again', async () => {
    const place = folder()
    const count = join(place, 'runs')
    const reload = (command: string[]) => [{ kind: 'exec', command }]
    const noting = ['sh', '-c', `echo x >> ${count}`]
    await using running = start({
      certificates: [
        certificate('fine', { reload: reload(noting) }),
        certificate('broken', { reload: reload(['false']) }),
      ],
    })
    await until('the broken one failed three times', () => (running.loop('broken').report?.state.failures ?? 0) >= 3)
    assert.equal(readFileSync(count, 'utf8'), 'x\n')
    const written = running.events.filter(
      ({ name, event }) => name === 'certificate.written' && 'certificate' in event && event.certificate === 'fine',
    )
    assert.equal(written.length, 1)
  })

  test('hashicorp/vault#26283 a template that cannot be rendered asks Vault for nothing again, and holds up nothing else', async () => {
    await vault?.api('POST', 'sys/mounts/leasing', { type: 'pki', config: { max_lease_ttl: '87600h' } })
    await vault?.api('POST', 'leasing/root/generate/internal', { common_name: 'Leasing', ttl: '87600h' })
    await vault?.api('POST', 'leasing/roles/app', { ...WEB_ROLE, key_type: 'ec', key_bits: 256, generate_lease: true })
    const place = folder()
    const value = { kind: 'vault-read', path: 'leasing/issue/app', parameters: { common_name: 'app.example.com' } }
    const output = (file: string, template: string) => [
      { kind: 'template', directory: join(place, file), file, template },
    ]
    await using running = start({
      secrets: [
        { name: 'broken', values: { made: value }, outputs: output('broken', '{{ made.no_such_field }}') },
        { name: 'fine', values: { made: value }, outputs: output('fine', '{{ made.serial_number }}') },
      ],
    })
    const [broken, fine] = running.sidecar.secrets
    await until('it failed three times', () => {
      // Instead of waiting for the backoff.
      running.sidecar.retry()
      return (broken?.report?.state.failures ?? 0) >= 3
    })
    assert.match(broken?.report?.state.failure?.message ?? '', /no_such_field/)
    assert.ok(fine?.report?.state.serving)
    assert.ok(existsSync(join(place, 'fine', 'fine')))
    const asked = (await (vault ?? assert.fail()).audited()).filter(({ path }) => path === 'leasing/issue/app')
    assert.equal(asked.length, 2, 'once for each')
  })

  test('hashicorp/vault#10676 a new token does not make a certificate anew', async () => {
    await vault?.api('POST', 'pki/roles/token', WEB_ROLE)
    const { roleId, secretId } = await (vault ?? assert.fail()).setupApprole({
      policy: 'path "pki/sign/token" { capabilities = ["update"] } path "kv/data/token" { capabilities = ["read"] }',
      role: { token_ttl: '3s', token_max_ttl: '6s' },
    })
    const place = folder()
    writeFileSync(join(place, 'secret-id'), await secretId(), { mode: 0o600 })
    const file = join(place, 'c.yaml')
    const auth = { kind: 'approle', roleId, secretIdFile: join(place, 'secret-id') }
    const source = { kind: 'vault-pki', role: 'token', commonName: 'token.example.com', ttl: '1h' }
    // What asks all the time needs a token all the time.
    await vault?.api('POST', 'kv/data/token', { data: { n: 1 } })
    const values = { v: { kind: 'vault-kv', mount: 'kv', path: 'token', poll: '1s' } }
    const certificates = [certificate('token', { source })]
    const config = { vault: { address: vault?.address, auth }, certificates, secrets: [{ name: 'asking', values }] }
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
    await using running = run(loadConfig(file, {}))
    await until('it is there', () => serving(running, 'token'))
    const { ino } = statSync(join(root, 'out-token', 'tls.crt'))
    const logins = () =>
      running.events.filter(({ name, event }) => name === 'vault.token' && 'how' in event && event.how === 'login')
        .length
    await until('it logged in three times', () => logins() >= 3)
    assert.equal((await signed('token')).length, 1)
    assert.equal(statSync(join(root, 'out-token', 'tls.crt')).ino, ino)
  })
})
