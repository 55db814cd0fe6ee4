import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { readSet } from '../../src/client/index.ts'
import { parseCertificates } from '../../src/core/bundle.ts'
import { startCertferry } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { freePort, startNginx } from '../support/nginx.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault } from '../support/vault.ts'

const NAME = 'web.example.com'
const CLIENTS = 3
/** From the proof until it is told. */
const CLOCK_MS = 100

/** Every client takes a new connection for each request, and shows the certificate that is in its directory then. */
function startClients({ folder, port }: { readonly folder: string; readonly port: number }) {
  const counts = { handshakes: 0, failed: 0, why: [] as string[] }
  const stop = new AbortController()
  const one = async () => {
    while (!stop.signal.aborted) {
      try {
        const { cert, key } = await readSet({ directory: join(folder, 'client') })
        const ca = readFileSync(join(folder, 'trust/ca.crt'))
        await ask({ cert, key, ca }, port)
        counts.handshakes += 1
      } catch (error) {
        counts.failed += 1
        counts.why.push(error instanceof Error ? error.message : String(error))
      }
      await sleep(10)
    }
  }
  const running = Promise.all(Array.from({ length: CLIENTS }, one))
  return {
    counts,
    [Symbol.asyncDispose]: async () => {
      stop.abort()
      await running
    },
  }
}

const ask = (tls: { cert: string | Buffer; key: string | Buffer; ca: Buffer }, port: number) =>
  new Promise<void>((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, servername: NAME, agent: false, ...tls }, (response) => {
      response.resume()
      response.once('end', () =>
        response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`)),
      )
    })
    sent.once('error', reject)
    sent.end()
  })

async function newRoot({ api }: TestVault, name: string): Promise<string> {
  const body = { common_name: name, issuer_name: name, key_type: 'ec', key_bits: 256, ttl: '87600h' }
  const { data } = await api('POST', 'pki/root/generate/internal', body)
  return String(data?.issuer_id)
}

const subjectsIn = (file: string) =>
  parseCertificates(readFileSync(file, 'utf8'))
    .map(({ subject }) => subject)
    .toSorted()

test('a root rolls over under client certificates on both sides: no handshake fails, and what peers do not trust yet is not shown', {
  skip: await skipReason('vault', 'nginx'),
}, async (t) => {
  await using vault = await startVault()
  const folder = await mkdtemp(join(tmpdir(), 'certferry-rollover-'))
  try {
    await vault.api('POST', 'sys/mounts/pki', { type: 'pki', config: { max_lease_ttl: '87600h' } })
    const old = await newRoot(vault, 'old-root')
    await vault.api('POST', 'pki/roles/web', { allow_any_name: true, max_ttl: '1h', key_type: 'any' })
    const port = await freePort()
    const at = (name: string) => join(folder, name)
    const reload = [{ kind: 'signal', pidFile: at('nginx.pid'), process: 'nginx' }]
    const from = (commonName: string) => ({ kind: 'vault-pki', role: 'web', commonName })
    const config = {
      vault: { address: vault.address, auth: { kind: 'token', token: vault.rootToken } },
      admin: { socket: at('control.sock') },
      trust: [
        {
          name: 'peers',
          anchors: [{ kind: 'vault-pki' }],
          poll: '1s',
          keep: '3s',
          spread: '2s',
          outputs: [{ kind: 'pem', directory: at('trust') }],
          reload,
          verify: [{ kind: 'client-ca', address: `127.0.0.1:${port}`, serverName: NAME }],
        },
      ],
      certificates: [
        {
          name: 'web',
          trust: 'peers',
          source: from(NAME),
          outputs: [{ kind: 'pem', directory: at('web'), layout: 'nginx-include' }],
          reload,
          verify: [{ kind: 'tls', address: `127.0.0.1:${port}`, serverName: NAME }],
        },
        { name: 'client', trust: 'peers', source: from('client'), outputs: [{ kind: 'pem', directory: at('client') }] },
      ],
    }
    const configFile = at('certferry.yaml')
    await writeFile(configFile, JSON.stringify(config), { mode: 0o600 })
    await using certferry = startCertferry({ configFile, socket: at('control.sock') })
    await until('all is on disk', () =>
      ['web/tls.conf', 'client/tls.crt', 'trust/ca.crt'].every((file) => readFileSync(at(file)).length > 0),
    )
    await using _nginx = await startNginx({
      port,
      pidFile: at('nginx.pid'),
      server: `include ${at('web/tls.conf')}; ssl_verify_client on; ssl_client_certificate ${at('trust/ca.crt')};`,
    })
    const trust = () => certferry.status().then(({ trust: [first] }) => first)
    await until('the trust is proven', async () => (await trust())?.verified === 'verified')
    await certferry.certificate('web', 'is proven', ({ verified }) => verified === 'verified')
    await using clients = startClients({ folder, port })
    await until('clients are served', () => clients.counts.handshakes > 20)

    // At once: the issuer that signs is the new one before anybody trusts it.
    const next = await newRoot(vault, 'new-root')
    await vault.api('POST', 'pki/config/issuers', { default: next })
    const startedAt = performance.now()
    const seenBefore = certferry.log().length
    const issuedBefore = certferry.log('certificate.issued').length
    await certferry.control.rotate(
      { certificates: 'all', reason: 'rollover', wait: false },
      AbortSignal.timeout(10_000),
    )
    await until('both CAs are in force', async () => {
      const status = await trust()
      return status?.verified === 'verified' && status.anchors.length === 2
    })
    const isOfNew = (file: string) => parseCertificates(readFileSync(at(file), 'utf8'))[0]?.issuer === 'CN=new-root'
    await until('leaves have moved', () => isOfNew('web/tls.crt') && isOfNew('client/tls.crt'))
    await certferry.certificate('web', 'is proven', ({ verified }) => verified === 'verified')
    const movedMs = Math.round(performance.now() - startedAt)

    await vault.api('DELETE', `pki/issuer/${old}`)
    await until('the old one is gone', async () => {
      const status = await trust()
      return status?.verified === 'verified' && status.anchors.length === 1
    })
    const goneMs = Math.round(performance.now() - startedAt)
    const seen = clients.counts.handshakes
    await until('clients go on', () => clients.counts.handshakes > seen + 20)

    assert.deepEqual(subjectsIn(at('trust/ca.crt')), ['CN=new-root'])
    const events = certferry.log().slice(seenBefore)
    const proven = events.findIndex(({ event, content }) => event === 'trust.proven' && content === '2 CAs')
    assert.ok(proven >= 0, 'both CAs were proven')
    for (const name of ['web', 'client']) {
      const first = events.findIndex(
        ({ event, certificate }) => event === 'certificate.written' && certificate === name,
      )
      assert.ok(first > proven, `the first new certificate of ${name} was written after the trust was proven`)
      const timeOf = (position: number) => Date.parse(events[position]?.time ?? '')
      assert.ok(timeOf(first) - timeOf(proven) >= 2_000 - CLOCK_MS, `${name} waited for the spread`)
    }
    assert.ok(
      events.some((line) => line.event === 'rotation.failed' && line.reason === 'trust_pending'),
      'what came too early waited',
    )
    const issued = certferry.log('certificate.issued').length - issuedBefore
    assert.equal(issued, 2, 'what waited was not issued again')

    // What is in service waits for nothing, whatever is known of the trust by then.
    await certferry.stop()
    await using again = startCertferry({ configFile, socket: at('control.sock') })
    await again.certificate('web', 'is proven', ({ verified }) => verified === 'verified')
    assert.deepEqual(again.log('rotation.failed'), [])
    const { handshakes, failed, why } = clients.counts
    t.diagnostic(JSON.stringify({ rollover: 'root', handshakes, failed, leavesMovedMs: movedMs, oldGoneMs: goneMs }))
    assert.deepEqual(why, [])
    assert.equal(failed, 0)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
