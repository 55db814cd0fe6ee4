import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import { assertTrustworthy } from '../../src/trust/trust-source.ts'
import { createTestCa } from '../support/ca.ts'
import { run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'
import { failure, forever } from '../vault/support.ts'
import { createTrust } from './support.ts'

const DAY = 86_400_000
const folder = mkdtempSync(join(tmpdir(), 'certferry-anchors-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const at = (name: string) => join(folder, name)
const [ca, other] = [await createTestCa(), await createTestCa({ commonName: 'Other' })]
const ended = await createTestCa({ commonName: 'Ended', notAfter: new Date(Date.now() - 1000) })

/** What a trust of this file comes to: the subjects of its CAs, or why it is refused. */
async function outcome(text: string): Promise<string> {
  writeFileSync(at('ca.pem'), text)
  const source = createTrust({ anchors: [{ kind: 'file', file: at('ca.pem') }] })
  try {
    const set = await source.fetch(forever)
    assertTrustworthy(set, Date.now())
    return set.anchors.map(({ certificate }) => certificate.subject).join(' ')
  } catch (error) {
    const { code, message } = await failure(Promise.reject(error))
    return `${code} ${message.replaceAll(folder, '')}`
  }
}

describe('CAs in a file', () => {
  it('are all that it names, whatever stands between them', async () => {
    assert.equal(await outcome(`# ours\n${ca.rootPem}\n# theirs\r\n${other.rootPem}`), 'CN=Test Root CN=Other')
    assert.equal(await outcome(ca.rootPem + ca.rootPem), 'CN=Test Root')
  })

  it('are refused where the file is cut off, holds none, or is not there', async () => {
    assert.equal(
      await outcome((ca.rootPem + other.rootPem).slice(0, -30)),
      'TRUST_INVALID /ca.pem is cut off within a certificate',
    )
    assert.equal(
      await outcome('-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n'),
      'TRUST_INVALID /ca.pem holds a certificate that does not parse',
    )
    assert.equal(await outcome('nothing'), 'TRUST_INVALID /ca.pem holds no certificate in PEM')
    const { code, message } = await failure(
      createTrust({ anchors: [{ kind: 'file', file: at('none') }] }).fetch(forever),
    )
    assert.equal(`${code} ${message}`, `TRUST_INVALID ${at('none')} cannot be read (ENOENT)`)
  })

  it('are refused where one is no CA, or none is valid now; one that has ended does no harm beside another', async () => {
    const { certificatePem } = await ca.issue({ commonName: 'web.example.com' })
    assert.match(
      await outcome(ca.rootPem + certificatePem),
      /^TRUST_INVALID [0-9a-f]{16} \("CN=web\.example\.com"\) is no CA certificate \(basicConstraints\)$/,
    )
    assert.equal(await outcome(ended.rootPem), 'TRUST_INVALID no CA that it names is valid now')
    assert.equal(await outcome(ca.rootPem + ended.rootPem), 'CN=Test Root CN=Ended')
  })
})

it('a CA that ends within warnBefore is told of once, and one that no source names any more is not', async () => {
  const soon = await createTestCa({ commonName: 'Soon', notAfter: new Date(Date.now() + 10 * DAY) })
  const sooner = await createTestCa({ commonName: 'Sooner', notAfter: new Date(Date.now() + 5 * DAY) })
  writeFileSync(at('warned.pem'), ca.rootPem + soon.rootPem)
  const config = {
    trust: [
      {
        name: 'peers',
        anchors: [{ kind: 'file', file: at('warned.pem') }],
        poll: '1s',
        outputs: [{ kind: 'pem', directory: at('out') }],
      },
    ],
  }
  writeFileSync(at('config.yaml'), JSON.stringify(config), { mode: 0o600 })
  await using running = run(loadConfig(at('config.yaml'), {}))
  const told = () =>
    running.events.flatMap(({ name, event }) =>
      name === 'trust.ca-expiring' && 'subject' in event ? [event.subject] : [],
    )
  await until('it is told', () => told().length > 0)
  writeFileSync(at('warned.pem'), ca.rootPem + sooner.rootPem)
  await until('the next is told', () => told().length > 1)
  const size = () => running.sidecar.trust[0]?.report?.state.serving?.anchors.length
  await until('the one before retires', () => size() === 3)
  assert.deepEqual(told(), ['CN=Soon', 'CN=Sooner'])
})
