import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fingerprintOf, serialOf } from '../../src/core/bundle.ts'
import { handshake } from '../../src/verifiers/handshake.ts'
import { skipReason } from '../support/components.ts'
import { startHaproxy } from '../support/haproxy.ts'
import { createStage, type Stage } from '../support/stage.ts'
import { until } from '../support/until.ts'
import { signOnly, startVault, WEB_ROLE } from '../support/vault.ts'
import { openVault } from '../vault/support.ts'

const skip = await skipReason('vault', 'nginx', 'haproxy')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
const never = new AbortController().signal

/** A mount with a responder and a list, as an operator sets it up. */
async function withUrls(mount: string, crl: object = {}): Promise<void> {
  assert.ok(vault)
  await vault.setupPki({ mount, roles: { ec: { ...WEB_ROLE, key_type: 'ec', key_bits: 256 } } })
  const at = (path: string) => [`${vault.address}/v1/${mount}/${path}`]
  await vault.api('POST', `${mount}/config/urls`, { ocsp_servers: at('ocsp'), crl_distribution_points: at('crl') })
  await vault.api('POST', `${mount}/config/crl`, crl)
}
if (!skip) await withUrls('pki')
/** A response that ends soon. */
if (!skip) await withUrls('pki-short', { ocsp_expiry: '6s' })

const revoking = (mount: string, role: string) =>
  `${signOnly(mount, role)}\npath "${mount}/revoke" { capabilities = ["update"] }`

async function stage(options: Partial<Parameters<typeof createStage>[0]> = {}): Promise<Stage> {
  assert.ok(vault)
  return createStage({ vault, ...options })
}

const colons = (serial: unknown) => String(serial).match(/../g)?.join(':') ?? ''
const revokedAt = async (mount: string, serial: unknown) => {
  const { data } = (await vault?.api('GET', `${mount}/cert/${colons(serial)}`)) ?? {}
  return Number(data?.revocation_time)
}

async function look({ port }: Pick<Stage, 'port'>) {
  const endpoint = { host: '127.0.0.1', port, serverName: 'web.example.com', timeoutMs: 2000, staple: true }
  const seen = await handshake(endpoint, never)
  assert.ok(seen.up)
  return { fingerprint: fingerprintOf(seen.chain[0]), staple: seen.staple }
}

test('nginx staples the response of the responder, and a newer one before it ends, without a new certificate', {
  skip,
}, async (t) => {
  await using place = await stage({ mount: 'pki-short' })
  const output = {
    kind: 'pem',
    directory: join(place.volume, 'web'),
    layout: 'nginx-include',
    files: { ocsp: 'tls.ocsp' },
  }
  await place.configure(place.web({ verify: { staple: true }, more: { outputs: [output] } }))
  await using certferry = place.certferry()
  await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  await using _nginx = await place.nginx()
  await certferry.certificate('web', 'is proven', ({ verified }) => verified === 'verified')
  const first = await until('what is shown is the file', async () => {
    const seen = await look(place)
    return seen.staple?.equals(readFileSync(join(place.volume, 'web/tls.ocsp'))) && seen
  })
  const startedAt = performance.now()
  const newer = await until('a newer response is shown', async () => {
    const seen = await look(place)
    return seen.staple && !seen.staple.equals(first.staple ?? Buffer.alloc(0)) && seen
  })
  t.diagnostic(`a response that lives 6 s was replaced after ${Math.round(performance.now() - startedAt)} ms`)
  assert.equal(newer.fingerprint, first.fingerprint)
  assert.equal(await place.issued(), 1)
  assert.deepEqual(certferry.log('certificate.staple-ended'), [])
  assert.deepEqual(certferry.log('rotation.failed'), [])
})

test('a certificate that an operator revokes is replaced at once, within the budget, and condemned', {
  skip,
}, async (t) => {
  await using place = await stage()
  const revocation = { check: ['ocsp'], every: '1s' }
  await place.configure(place.web({ verify: { deadline: '1s' }, more: { revocation } }))
  await using certferry = place.certferry()
  await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  await using _nginx = await place.nginx()
  const old = await certferry.certificate('web', 'is proven', ({ verified }) => verified === 'verified')
  await vault?.api('POST', 'pki/revoke', { serial_number: colons(old.serial) })
  const startedAt = performance.now()
  const next = await certferry.certificate(
    'web',
    'is replaced',
    ({ serial, verified }) => serial !== old.serial && verified === 'verified',
  )
  t.diagnostic(`revoked and replaced in ${Math.round(performance.now() - startedAt)} ms, asked about each second`)
  assert.equal((await look(place)).fingerprint, next.fingerprint)
  assert.equal(await place.issued(), 2)
  assert.deepEqual(
    certferry.log('security.certificate-revoked').map(({ serial, by }) => [serial, by]),
    [[old.serial, 'ocsp']],
  )
  assert.equal(await certferry.metric('certferry_certificate_revoked_total{certificate="web"}'), 1)
  const { condemned } = JSON.parse(readFileSync(join(place.volume, 'web/..state.json'), 'utf8'))
  assert.ok(condemned.includes(old.fingerprint))
})

test('by vault or crl a revoked certificate is found as well; onRevoked: warn only tells', { skip }, async () => {
  const kinds = ['vault', 'crl'] as const
  await using place = await stage()
  await place.configure(
    ...kinds.map((kind) => {
      const revocation = { check: [kind], every: '1s', onRevoked: 'warn' }
      return place.web({ name: kind, served: false, more: { revocation } })
    }),
  )
  await using certferry = place.certferry()
  for (const kind of kinds) {
    const { serial } = await certferry.certificate(kind, 'is on disk', ({ serial }) => serial !== null)
    await until('it was found good', () =>
      certferry.metric(`certferry_revocation_checks_total{certificate="${kind}",result="good"}`),
    )
    await vault?.api('POST', 'pki/revoke', { serial_number: colons(serial) })
    const found = await until('it was found revoked', () =>
      certferry.log('security.certificate-revoked').find(({ certificate }) => certificate === kind),
    )
    assert.deepEqual([found.serial, found.by], [serial, kind])
  }
  assert.equal(await place.issued(), 2)
})

test('revokePrevious revokes what was replaced, revokeOnExit what was in service; HAProxy staples', {
  skip,
}, async () => {
  await using place = await stage({ policy: revoking })
  const directory = join(place.volume, 'web')
  const more = {
    outputs: [{ kind: 'combined', directory, ocspFile: 'tls.pem.ocsp' }],
    reload: [{ kind: 'haproxy', socket: join(place.folder, 'haproxy.sock'), file: join(directory, 'tls.pem') }],
    revokePrevious: true,
    revokeOnExit: true,
  }
  await place.configure(place.web({ verify: { staple: true }, more }))
  await using certferry = place.certferry()
  const first = await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  await using _haproxy = await startHaproxy({
    port: place.port,
    certificate: join(directory, 'tls.pem'),
    pidFile: place.pidFile,
    socket: join(place.folder, 'haproxy.sock'),
  })
  await certferry.certificate('web', 'is proven', ({ verified }) => verified === 'verified')
  assert.deepEqual((await look(place)).staple, readFileSync(join(directory, 'tls.pem.ocsp')))
  assert.equal(await revokedAt('pki', first.serial), 0)

  const { results } = await certferry.control.rotate({ certificates: ['web'], wait: true })
  assert.equal(results[0]?.error, null)
  await until('the first one is revoked', async () => (await revokedAt('pki', first.serial)) > 0)
  const second = await certferry.certificate('web', 'is another', ({ serial }) => serial !== first.serial)
  assert.equal(await revokedAt('pki', second.serial), 0)
  assert.deepEqual((await look(place)).staple, readFileSync(join(directory, 'tls.pem.ocsp')))

  const { tookMs } = await certferry.stop()
  assert.ok(tookMs < 10_000)
  assert.ok((await revokedAt('pki', second.serial)) > 0)
  assert.deepEqual(
    certferry.log('certificate.revoked').map(({ serial, why }) => [serial, why]),
    [
      [first.serial, 'superseded'],
      [second.serial, 'cessationOfOperation'],
    ],
  )
  await using again = place.certferry()
  await again.certificate('web', 'is a third one', ({ serial }) => serial !== null && serial !== second.serial)
})

test('without the right to revoke, the rotation is good, and the certificate is kept in mind', { skip }, async () => {
  await using place = await stage()
  await place.configure(place.web({ served: false, more: { revokePrevious: true } }))
  await using certferry = place.certferry()
  const first = await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  const { results } = await certferry.control.rotate({ certificates: ['web'], wait: true })
  assert.equal(results[0]?.error, null)
  await until('the trouble is told', () => certferry.log('certificate.revoke-failed').length > 0)
  const { phase } = await certferry.certificate('web', 'is another', ({ serial }) => serial !== first.serial)
  assert.equal(phase, 'ACTIVE')
  const { toRevoke } = JSON.parse(readFileSync(join(place.volume, 'web/..state.json'), 'utf8'))
  assert.deepEqual(
    toRevoke.map(({ serial }: { serial: string }) => serial),
    [first.serial],
  )
})

test('what Vault no longer knows, or revoked already, is no trouble to revoke; what is of another issuer is', {
  skip,
}, async () => {
  assert.ok(vault)
  const { vault: client } = openVault(vault.address, { auth: { kind: 'token', token: vault.rootToken } })
  await using _client = client
  const sign = async (mount: string, ttl: string) => {
    const { data } = await vault.api('POST', `${mount}/issue/ec`, { common_name: 'a.example.com', ttl })
    return new X509Certificate(String(data?.certificate))
  }
  const [short, good, known] = [await sign('pki', '1s'), await sign('pki', '1h'), await sign('pki', '1h')]
  const foreign = await sign('pki-short', '1h')
  for (let turn = 0; turn < 2; turn++) await client.revoke('pki', known.toString(), never)
  assert.ok(((await client.revokedAt('pki', serialOf(known), never)) ?? 0) > 0)
  assert.equal(await client.revokedAt('pki', serialOf(good), never), 0)
  assert.equal(await client.revokedAt('pki', 'aa00', never), undefined)
  await until('it has ended', () => Date.now() > short.validToDate.getTime() + 1000)
  await client.revoke('pki', short.toString(), never)
  await assert.rejects(client.revoke('pki', foreign.toString(), never), { code: 'VAULT_5XX' })
  assert.equal(await revokedAt('pki-short', serialOf(foreign)), 0)
})
