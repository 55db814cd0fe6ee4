import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { bundleOf, type Material, passwordIn } from '../../src/core/material.ts'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { createTestCa } from '../support/ca.ts'

const ca = await createTestCa()
const issued = await ca.issue({ commonName: 'web.test', withIntermediate: true })
const other = await ca.issue({ commonName: 'other.test' })
const [intermediate = '', root = ''] = issued.chainPems
const { certificatePem: leaf, keyPem: key } = issued

const piece = (place: string, content: string | Buffer) => ({ place, content: Buffer.from(content) })
const password = (text: string) => passwordIn(piece('/p', `${text}\nsecond line`))
const encrypted = (cipher: string, passphrase: string, type: 'pkcs8' | 'sec1' = 'pkcs8') =>
  createPrivateKey(key).export({ type, format: 'pem', cipher, passphrase }).toString()
const open = (material: Material) =>
  bundleOf(material, {
    origin: 'test',
    receivedAt: Date.now(),
    options: { key: 'keyFile', password: 'passwordFile', pkcs12: 'pkcs12File' },
  })
const pem = (cert: string | Buffer, keyText?: string | Buffer, more: Partial<Material> = {}): Material => ({
  certificate: piece('/c', cert),
  key: keyText === undefined ? undefined : piece('/k', keyText),
  issuers: [],
  password: undefined,
  ...more,
})

/** As `openssl pkcs12 -export` writes it. */
function pkcs12(passphrase: string, ...flags: string[]): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-p12-'))
  try {
    const at = (name: string) => join(folder, name)
    writeFileSync(at('c'), leaf + intermediate)
    writeFileSync(at('k'), key)
    const from = ['-export', '-in', at('c'), '-inkey', at('k'), '-passout', `pass:${passphrase}`, '-out', at('p')]
    execFileSync('openssl', ['pkcs12', ...from, ...flags])
    return readFileSync(at('p'))
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe('what somebody else wrote becomes a bundle', () => {
  const good: [string, Material, number][] = [
    ['two files, the chain in the first', pem(leaf + intermediate + root, key), 1],
    ['one file with all', pem(key + leaf + intermediate), 1],
    ['the chain in the wrong order, the leaf last', pem(root + intermediate + leaf, key), 1],
    ['issuers in a file of their own', pem(leaf, key, { issuers: [piece('/i', intermediate)] }), 1],
    ['text around the blocks', pem(`0 s:CN=web\n${leaf}\r\n# x`, `# y\n${key}`), 0],
    ['an encrypted PKCS#8 key', pem(leaf, encrypted('aes-256-cbc', 'a b'), { password: password('a b') }), 0],
    [
      'a key encrypted as OpenSSL did before',
      pem(leaf, encrypted('aes-256-cbc', 'x', 'sec1'), { password: password('x') }),
      0,
    ],
    ['a password for a key that needs none', pem(leaf, key, { password: password('x') }), 0],
    ['a PKCS#12 file', { pkcs12: piece('/p12', pkcs12('x')), issuers: [], password: password('x') }, 1],
    ['the label of old', pem(leaf.replaceAll('CERTIFICATE', 'X509 CERTIFICATE'), key), 0],
  ]
  for (const [what, material, intermediates] of good)
    it(what, async () => {
      const bundle = await open(material)
      assert.equal(bundle.serial, issued.bundle.serial)
      assert.ok(bundle.leaf.checkPrivateKey(bundle.key))
      assert.equal(bundle.intermediates.length, intermediates)
      assert.equal(bundle.unrelated, undefined)
    })

  it('names what is no issuer of it', async () => {
    const stranger = await (await createTestCa({ commonName: 'Stranger Root' })).issue({ withIntermediate: true })
    const bundle = await open(pem(leaf + (stranger.chainPems[0] ?? '') + intermediate, key))
    assert.equal(bundle.intermediates.length, 1)
    assert.match(bundle.unrelated?.join() ?? '', /^CN=Stranger +Intermediate$/)
  })
})

describe('what somebody else wrote is refused by name, place and fix', () => {
  const der = new X509Certificate(leaf).raw
  const rows: [string, Material, ErrorCode, RegExp][] = [
    ['an empty file', pem('', key), 'INPUT_INCOMPLETE', /^\/c holds no certificate$/],
    ['a certificate cut short', pem(leaf.slice(0, 200), key), 'INPUT_INCOMPLETE', /^a CERTIFICATE in \/c has no end$/],
    ['a first line cut short', pem(`${leaf}-----BEGIN CERT`, key), 'INPUT_INCOMPLETE', /first line of a PEM block/],
    ['a key cut short', pem(leaf, key.slice(0, 60)), 'INPUT_INCOMPLETE', /^a PRIVATE KEY in \/k has no end$/],
    ['the key of another', pem(leaf, other.keyPem), 'INPUT_INCOMPLETE', /key in \/k belongs to no certificate in \/c$/],
    ['no key', pem(leaf), 'INPUT_INCOMPLETE', /^\/c holds no private key; say keyFile where it stands elsewhere$/],
    ['two keys', pem(leaf, key + other.keyPem), 'INPUT_INVALID', /^\/k holds more than one private key; keep the one/],
    ['two keys in one file', pem(leaf + key + key), 'INPUT_INVALID', /^\/c holds more than one/],
    ['DER', pem(der, key), 'INPUT_INVALID', /^\/c is DER, not PEM; convert it: openssl x509/],
    [
      'PKCS#12 as PEM',
      pem(pkcs12('x'), key),
      'INPUT_INVALID',
      /^\/c is a PKCS#12 file, not PEM; give it as pkcs12File$/,
    ],
    [
      'a certificate that is none',
      pem('-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----', key),
      'INPUT_INVALID',
      /^\/c: a certificate in the answer does not parse/,
    ],
    ['a key that is none', pem(leaf, key.replace(/\n.{20}/, '\nAAAA')), 'INPUT_INVALID', /PRIVATE KEY in \/k does not/],
    [
      'an encrypted key without password',
      pem(leaf, encrypted('aes-256-cbc', 'x')),
      'KEY_ENCRYPTED',
      /^the private key in \/k is encrypted; say passwordFile$/,
    ],
    [
      'an encrypted key with another password',
      pem(leaf, encrypted('aes-256-cbc', 'canary'), { password: password('wrong') }),
      'KEY_ENCRYPTED',
      /^the private key in \/k does not open with the password in \/p$/,
    ],
    [
      'PKCS#12 with another password',
      { pkcs12: piece('/p12', pkcs12('canary')), issuers: [], password: password('wrong') },
      'PKCS12_INVALID',
      /^\/p12: it does not open with this password$/,
    ],
    [
      'PKCS#12 without password',
      { pkcs12: piece('/p12', pkcs12('canary')), issuers: [], password: undefined },
      'PKCS12_INVALID',
      /^\/p12: it does not open with this password; if it has one, say passwordFile$/,
    ],
    [
      'PKCS#12 that is none',
      { pkcs12: piece('/p12', leaf), issuers: [], password: undefined },
      'PKCS12_INVALID',
      /^\/p12: it is no PKCS#12 file/,
    ],
    [
      'PKCS#12 without certificate',
      { pkcs12: piece('/p12', pkcs12('x', '-nocerts')), issuers: [], password: password('x') },
      'INPUT_INVALID',
      /holds a private key, and no certificate/,
    ],
  ]
  for (const [what, material, code, told] of rows)
    it(what, async () => {
      const error = await open(material).then(
        () => assert.fail('it was taken'),
        (thrown: unknown) => thrown,
      )
      assert.ok(error instanceof SidecarError)
      assert.equal(error.code, code)
      assert.match(error.message, told)
      assert.doesNotMatch(`${error.stack}${String(error.cause)}`, /canary|wrong/)
    })
})
