import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseCertificates } from '../../src/core/bundle.ts'
import { createTestCa, type TestCa } from '../support/ca.ts'
import { startCertferry } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { startNginx } from '../support/nginx.ts'
import { until } from '../support/until.ts'

const NAME = 'web.example.com'

test('K6 a target that does not take the new CA: the old set is put back, certificates of that CA wait, and go on once it does', {
  skip: await skipReason('nginx'),
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-refused-'))
  const at = (name: string) => join(folder, name)
  const put = async (name: string, text: string) => {
    await writeFile(at(`${name}.next`), text, { mode: 0o600 })
    await rename(at(`${name}.next`), at(name))
  }
  const subjects = (name: string) => parseCertificates(readFileSync(at(name), 'utf8')).map(({ subject }) => subject)
  const issuer = () => parseCertificates(readFileSync(at('web/tls.crt'), 'utf8'))[0]?.issuer
  try {
    const [old, next] = [await createTestCa({ commonName: 'Old' }), await createTestCa({ commonName: 'New' })]
    const issue = async (ca: TestCa) => {
      const { certificatePem, keyPem } = await ca.issue({ commonName: NAME })
      return certificatePem + ca.rootPem + keyPem
    }
    await put('own.pem', await issue(old))
    await put('web.pem', await issue(old))
    await put('anchors.pem', old.rootPem)
    // What nginx goes by is not what certferry writes.
    await put('fixed.pem', old.rootPem)
    await using nginx = await startNginx({
      certificate: at('own.pem'),
      key: at('own.pem'),
      server: `ssl_verify_client on; ssl_client_certificate ${at('fixed.pem')};`,
    })
    const config = {
      admin: { socket: at('control.sock') },
      trust: [
        {
          name: 'peers',
          anchors: [{ kind: 'file', file: at('anchors.pem') }],
          poll: '1s',
          outputs: [{ kind: 'pem', directory: at('trust') }],
          reload: [{ kind: 'signal', pidFile: nginx.pidFile, process: 'nginx' }],
          verify: [{ kind: 'client-ca', address: `127.0.0.1:${nginx.port}`, serverName: NAME, deadline: '1s' }],
        },
      ],
      certificates: [
        {
          name: 'web',
          trust: 'peers',
          source: { kind: 'file', certFile: at('web.pem'), poll: '1s' },
          outputs: [{ kind: 'pem', directory: at('web') }],
        },
      ],
    }
    await put('certferry.yaml', JSON.stringify(config))
    await using certferry = startCertferry({ configFile: at('certferry.yaml'), socket: at('control.sock') })
    const peers = async () => (await certferry.status()).trust[0]
    await until('the old CA is proven', async () => (await peers())?.verified === 'verified')
    await certferry.certificate('web', 'is there', ({ phase }) => phase === 'ACTIVE')

    await put('anchors.pem', old.rootPem + next.rootPem)
    await put('web.pem', await issue(next))
    await until('the set is put back', () => certferry.log('trust.rolled-back').length > 0)
    await until('the status says why', async () => (await peers())?.lastError?.code === 'RELOAD_NOT_EFFECTIVE')
    await certferry.certificate('web', 'waits', ({ lastError }) => lastError?.code === 'TRUST_PENDING')
    assert.equal(issuer(), 'CN=Old')

    await put('fixed.pem', old.rootPem + next.rootPem)
    await until('both are in force', async () => {
      const status = await peers()
      return status?.verified === 'verified' && status.anchors.length === 2
    })
    assert.deepEqual(subjects('trust/ca.crt'), ['CN=Old', 'CN=New'])
    await certferry.certificate('web', 'has moved', ({ phase, lastError }) => phase === 'ACTIVE' && lastError === null)
    assert.equal(issuer(), 'CN=New')
    const events = certferry.log()
    const moved = events.findLastIndex(({ event }) => event === 'certificate.written')
    const proven = events.findLastIndex(({ event, content }) => event === 'trust.proven' && content === '2 CAs')
    assert.ok(proven >= 0 && proven < moved, 'what is of the new CA was written after that was proven')
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})
