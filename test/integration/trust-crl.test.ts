import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { startCertferry } from '../support/certferry.ts'
import { component, skipReason } from '../support/components.ts'
import { freePort, startNginx } from '../support/nginx.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault } from '../support/vault.ts'

const NAME = 'web.example.com'

/** What nginx answers to a client with this certificate: 200, or 400 when it is revoked. */
const statusFor = (tls: { readonly cert: string; readonly key: string }, port: number) =>
  new Promise<number>((resolve, reject) => {
    const sent = request(
      { host: '127.0.0.1', port, servername: NAME, agent: false, rejectUnauthorized: false, ...tls },
      (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      },
    )
    sent.once('error', reject)
    sent.end()
  })

describe('revocation lists', { skip: await skipReason('vault', 'nginx', 'openssl') }, () => {
  let vault: TestVault
  let folder: string
  before(async () => {
    vault = await startVault()
    folder = await mkdtemp(join(tmpdir(), 'certferry-crl-'))
    await vault.setupPki({ roles: { web: { allow_any_name: true, max_ttl: '1h', key_type: 'ec', key_bits: 256 } } })
  })
  after(async () => {
    await vault[Symbol.asyncDispose]()
    await rm(folder, { recursive: true, force: true })
  })
  const at = (name: string) => join(folder, name)
  const issue = async (commonName: string) => {
    const { data } = await vault.api('POST', 'pki/issue/web', { common_name: commonName })
    const text = (name: string) => String(data?.[name])
    return {
      cert: `${text('certificate')}\n${text('issuing_ca')}\n`,
      key: text('private_key'),
      serial: text('serial_number'),
    }
  }

  test('reach nginx, root and intermediate in one file: who is revoked is refused after one refresh, others are not', async (t) => {
    const port = await freePort()
    const own = await issue(NAME)
    await writeFile(at('own.pem'), own.cert + own.key, { mode: 0o600 })
    const config = {
      vault: { address: vault.address, auth: { kind: 'token', token: vault.rootToken } },
      admin: { socket: at('control.sock') },
      trust: [
        {
          name: 'peers',
          anchors: [{ kind: 'vault-pki' }],
          crls: [{ kind: 'vault-pki' }, { kind: 'vault-pki', mount: 'pki-root' }],
          poll: '1s',
          outputs: [
            { kind: 'pem', directory: at('trust') },
            { kind: 'crl', directory: at('trust') },
          ],
          reload: [{ kind: 'signal', pidFile: at('nginx.pid'), process: 'nginx' }],
          // Shows nothing of a list.
          verify: [{ kind: 'client-ca', address: `127.0.0.1:${port}`, serverName: NAME }],
        },
      ],
    }
    await writeFile(at('certferry.yaml'), JSON.stringify(config), { mode: 0o600 })
    await using certferry = startCertferry({ configFile: at('certferry.yaml'), socket: at('control.sock') })
    await until('the lists are on disk', () => readFileSync(at('trust/crl.pem')).length > 0)
    assert.equal(readFileSync(at('trust/crl.pem'), 'utf8').match(/BEGIN X509 CRL/g)?.length, 2)
    assert.equal(statSync(at('trust/crl.pem')).mode & 0o777, 0o644)
    await using _nginx = await startNginx({
      port,
      pidFile: at('nginx.pid'),
      certificate: at('own.pem'),
      key: at('own.pem'),
      server: `ssl_verify_client on; ssl_verify_depth 2; ssl_client_certificate ${at('trust/ca.crt')}; ssl_crl ${at('trust/crl.pem')};`,
    })
    const [bad, good] = [await issue('bad'), await issue('good')]
    assert.deepEqual([await statusFor(bad, port), await statusFor(good, port)], [200, 200])
    await vault.api('POST', 'pki/revoke', { serial_number: bad.serial })
    const startedAt = performance.now()
    await until('the revoked one is refused', async () => (await statusFor(bad, port)) === 400)
    t.diagnostic(JSON.stringify({ revoked: 'refused', afterMs: Math.round(performance.now() - startedAt), poll: '1s' }))
    assert.equal(await statusFor(good, port), 200)
    const [peers] = (await certferry.status()).trust
    assert.equal(peers?.crls.length, 2)
    assert.ok(peers?.crls.every(({ number, nextUpdate }) => number !== null && nextUpdate !== null))
  })

  test('of Vault come with their deltas, in a file of their own: that alone names who was revoked since', async () => {
    const [mount, program] = ['pki-delta', await component('openssl')]
    await vault.setupPki({
      mount,
      roles: { web: { allow_any_name: true, max_ttl: '1h', key_type: 'ec', key_bits: 256 } },
    })
    await vault.api('POST', `${mount}/config/crl`, {
      auto_rebuild: true,
      enable_delta: true,
      delta_rebuild_interval: '1h',
    })
    await vault.api('GET', `${mount}/crl/rotate`)
    const config = {
      vault: { address: vault.address, auth: { kind: 'token', token: vault.rootToken } },
      admin: { socket: at('delta.sock') },
      trust: [
        {
          name: 'peers',
          anchors: [{ kind: 'vault-pki', mount }],
          crls: [
            { kind: 'vault-pki', mount, delta: true },
            { kind: 'vault-pki', mount: `${mount}-root` },
          ],
          poll: '1s',
          outputs: [
            { kind: 'pem', directory: at('delta') },
            { kind: 'crl', directory: at('delta'), deltaFile: 'delta.pem' },
          ],
        },
      ],
    }
    await writeFile(at('delta.yaml'), JSON.stringify(config), { mode: 0o600 })
    await using certferry = startCertferry({ configFile: at('delta.yaml'), socket: at('delta.sock') })
    const complete = await until('the lists are on disk', () => readFileSync(at('delta/crl.pem'), 'utf8'))
    const first = readFileSync(at('delta/delta.pem'), 'utf8')
    const { data } = await vault.api('POST', `${mount}/issue/web`, { common_name: 'bad' })
    await writeFile(at('signer.pem'), String(data?.issuing_ca))
    /** What openssl reads in a list, its signature verified. */
    const openssl = (list: string) => {
      const options = ['crl', '-noout', '-text', '-CAfile', at('signer.pem')]
      const said = spawnSync(program, options, { input: list, encoding: 'utf8' })
      assert.match(said.stderr, /verify OK/)
      return said.stdout
    }
    const named = new RegExp(`Serial Number: ${String(data?.serial_number).replaceAll(':', '')}`, 'i')
    assert.match(openssl(first), /Delta CRL Indicator: critical/)
    assert.doesNotMatch(openssl(first), named)
    await vault.api('POST', `${mount}/revoke`, { serial_number: data?.serial_number })
    await vault.api('GET', `${mount}/crl/rotate-delta`)
    const delta = await until('the next delta is on disk', () => {
      const text = readFileSync(at('delta/delta.pem'), 'utf8')
      return text !== first && text
    })
    assert.equal(readFileSync(at('delta/crl.pem'), 'utf8'), complete, 'the complete list is as it was')
    assert.match(openssl(delta), named)
    assert.doesNotMatch(openssl(complete), named)
    const [peers] = (await certferry.status()).trust
    assert.deepEqual(peers?.crls.map((one) => one.delta).toSorted(), [false, false, true])
  })

  test('K4 and K5 that are older than the one in service, or cannot be had, change nothing, and the status says why', async () => {
    const list = async () => {
      await vault.api('GET', 'pki/crl/rotate')
      const reply = await fetch(`${vault.address}/v1/pki/issuer/default/crl/der`)
      return Buffer.from(await reply.arrayBuffer())
    }
    const [first, second] = [await list(), await list()]
    let served: Buffer | undefined = second
    const server = createServer((_, response) => {
      response.writeHead(served ? 200 : 503).end(served)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}/crl`
    try {
      const config = {
        vault: { address: vault.address, auth: { kind: 'token', token: vault.rootToken } },
        admin: { socket: at('second.sock') },
        trust: [
          {
            name: 'peers',
            // The intermediate signs the list, so it is an anchor here.
            anchors: [{ kind: 'file', file: at('ca.pem') }],
            crls: [{ kind: 'http', url }],
            poll: '1s',
            outputs: [{ kind: 'crl', directory: at('second') }],
          },
        ],
      }
      const { data } = await vault.api('GET', 'pki/issuer/default/json')
      await writeFile(at('ca.pem'), String(data?.certificate))
      await writeFile(at('second.yaml'), JSON.stringify(config), { mode: 0o600 })
      await using certferry = startCertferry({ configFile: at('second.yaml'), socket: at('second.sock') })
      const text = await until('the list is on disk', () => readFileSync(at('second/crl.pem'), 'utf8'))
      const failing = (code: string) =>
        until(`it fails with ${code}`, async () => (await certferry.status()).trust[0]?.lastError?.code === code)
      served = first
      await failing('CRL_INVALID')
      await until('the log says so', () =>
        certferry
          .log('trust.failed')
          .some((line) => /is older than the one in service: number \d+, not number \d+/.test(JSON.stringify(line))),
      )
      served = Buffer.from('<html>')
      await until('it says that this is none', () =>
        certferry.log('trust.failed').some((line) => /holds no revocation list/.test(JSON.stringify(line))),
      )
      served = undefined
      await failing('CRL_UNREACHABLE')
      assert.equal(readFileSync(at('second/crl.pem'), 'utf8'), text)
      served = second
      await until(
        'it recovers',
        async () =>
          (await certferry.status()).trust[0]?.phase === 'ACTIVE' && certferry.log('trust.recovered').length > 0,
      )
    } finally {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  })
})
