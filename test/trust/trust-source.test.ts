import 'reflect-metadata'
import assert from 'node:assert/strict'
import { webcrypto } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import * as x509 from '@peculiar/x509'
import { systemClock } from '../../src/clock.ts'
import { pem } from '../../src/core/csr.ts'
import { SidecarError } from '../../src/errors.ts'
import { anchors, lists } from '../../src/trust/index.ts'
import { createTrustSource } from '../../src/trust/trust-source.ts'
import { forever } from '../vault/support.ts'

const folder = mkdtempSync(join(tmpdir(), 'certferry-trust-'))
after(() => rmSync(folder, { recursive: true }))
const at = (name: string) => join(folder, name)

/** A CA that signs revocation lists. */
async function createLister(commonName: string) {
  const keys = await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify'])
  const signingAlgorithm = { name: 'ECDSA', hash: 'SHA-256' }
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${commonName}`,
    keys,
    signingAlgorithm,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  })
  const list = async (number: number, endsInMs = 3_600_000) => {
    const crl = await x509.X509CrlGenerator.create({
      issuer: certificate.subject,
      thisUpdate: new Date(Date.now() - 60_000 + number * 1000),
      nextUpdate: new Date(Date.now() + endsInMs),
      extensions: [new x509.Extension('2.5.29.20', false, new Uint8Array([2, 1, number]))],
      signingKey: keys.privateKey,
      signingAlgorithm,
    })
    return pem('X509 CRL', Buffer.from(crl.rawData))
  }
  return { pem: pem('CERTIFICATE', Buffer.from(certificate.rawData)), list }
}

const [one, two] = [await createLister('One'), await createLister('Two')]

/** A trust of `ca.pem` and of these files of lists. */
function trust(...files: readonly string[]) {
  const deps = { vault: () => assert.fail(), clock: systemClock }
  return createTrustSource({
    name: 'peers',
    anchors: [anchors.create({ kind: 'file', ...{ file: at('ca.pem') } }, deps)],
    lists: files.map((name) => lists.create({ kind: 'file', ...{ file: at(name) } }, deps)),
    pollMs: 60_000,
    keepMs: 60_000,
    isUsed: () => false,
    mind: () => {},
    clock: systemClock,
  })
}

const refused = async (promise: Promise<unknown>, code: string, told: RegExp) => {
  const error = await promise.then(
    () => assert.fail('it was taken'),
    (thrown: unknown) => thrown,
  )
  assert.ok(error instanceof SidecarError)
  assert.deepEqual([error.code, told.test(error.message)], [code, true], error.message)
}

describe('a file of a trust', () => {
  it('that is not written to its end is refused, and not taken for all there is', async () => {
    writeFileSync(at('ca.pem'), one.pem + two.pem)
    const both = (await one.list(1)) + (await two.list(1))
    writeFileSync(at('crl.pem'), both)
    assert.equal((await trust('crl.pem').fetch(forever)).lists.length, 2)
    writeFileSync(at('crl.pem'), both.slice(0, -100))
    await refused(trust('crl.pem').fetch(forever), 'CRL_INVALID', /a revocation list in \S+crl\.pem has no end/)
    writeFileSync(at('crl.pem'), both)
    writeFileSync(at('ca.pem'), (one.pem + two.pem).slice(0, -100))
    await refused(trust('crl.pem').fetch(forever), 'TRUST_INVALID', /\S+ca\.pem holds a certificate without end/)
  })

  it('that holds garbage is named', async () => {
    writeFileSync(at('crl.pem'), await one.list(1))
    writeFileSync(at('ca.pem'), '-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n')
    await refused(
      trust('crl.pem').fetch(forever),
      'TRUST_INVALID',
      /\S+ca\.pem holds a certificate that does not parse/,
    )
    writeFileSync(at('ca.pem'), one.pem)
    for (const garbage of [
      '-----BEGIN X509 CRL-----\naGVsbG8=\n-----END X509 CRL-----\n',
      Buffer.from([0x30, 0x82, 1, 2]),
    ]) {
      writeFileSync(at('crl.pem'), garbage)
      await refused(trust('crl.pem').fetch(forever), 'CRL_INVALID', /list of file \S+crl\.pem does not parse/)
    }
    writeFileSync(at('crl.pem'), await one.list(1, -1000))
    await refused(trust('crl.pem').fetch(forever), 'CRL_INVALID', /"CN=One" \(file \S+crl\.pem\) has ended at/)
    writeFileSync(at('crl.pem'), await two.list(1))
    await refused(trust('crl.pem').fetch(forever), 'CRL_INVALID', /"CN=Two" \(file \S+crl\.pem\) is signed by none/)
  })
})

describe('a list from an address', () => {
  const from = (url: string, caFile?: string) => {
    const deps = { vault: () => assert.fail(), clock: systemClock }
    return lists.create({ kind: 'http', ...{ url, caFile } }, deps).read(forever)
  }
  it('that cannot be had is told by the address, also where it is the file of its CAs that is missing', async () => {
    await refused(from('http://127.0.0.1:1/crl'), 'CRL_UNREACHABLE', /^http:\/\/127\.0\.0\.1:1\/crl: .*ECONNREFUSED/)
    await refused(from('https://127.0.0.1:1/crl', at('none')), 'CRL_UNREACHABLE', /127\.0\.0\.1:1\/crl: ENOENT.*none/)
  })
})

describe('two places of the list of one CA', () => {
  it('may have different ones for a while, as long as the newest does not go back', async () => {
    writeFileSync(at('ca.pem'), one.pem)
    const put = async (a: number, b: number) => {
      writeFileSync(at('a.pem'), await one.list(a))
      writeFileSync(at('b.pem'), await one.list(b))
    }
    const source = trust('a.pem', 'b.pem')
    await put(5, 4)
    const serving = await source.fetch(forever)
    assert.equal(serving.lists.length, 2)
    assert.equal((await source.polling?.look(serving, forever))?.fingerprint, serving.fingerprint)
    await put(4, 4)
    const looking = source.polling?.look(serving, forever) ?? assert.fail()
    await refused(looking, 'CRL_INVALID', /is older than the one in service: number 4, not number 5/)
    await put(4, 6)
    assert.equal((await source.polling?.look(serving, forever))?.lists.length, 2)
  })
})
