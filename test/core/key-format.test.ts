import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import { describe, test } from 'node:test'
import { generateKey } from '../../src/core/key.ts'
import { encryptedKeyPem, formatKey, KEY_FORMATS, misfitOf } from '../../src/core/key-format.ts'

const [ec, rsa, ed] = await Promise.all([generateKey('ecdsa-p384'), generateKey('rsa-2048'), generateKey('ed25519')])
const isSame = (a: KeyObject, b: KeyObject) => createPublicKey(a).equals(createPublicKey(b))
const PASSWORD = Buffer.from('geheim 1')

describe('a private key in PEM', () => {
  for (const [format, key, label] of [
    ['pkcs8', ec, 'PRIVATE KEY'],
    ['pkcs8', ed, 'PRIVATE KEY'],
    ['pkcs1', rsa, 'RSA PRIVATE KEY'],
    ['sec1', ec, 'EC PRIVATE KEY'],
  ] as const)
    test(`as ${format} of ${key.asymmetricKeyType}`, () => {
      const content = formatKey(key, format)
      assert.ok(content.toString().startsWith(`-----BEGIN ${label}-----\n`))
      assert.ok(isSame(createPrivateKey(content), key))
    })

  for (const [format, key, says] of [
    ['pkcs1', ec, /pkcs1 is a form of RSA keys, and the key is ecdsa-p384/],
    ['pkcs1', ed, /ed25519/],
    ['sec1', rsa, /sec1 is a form of elliptic curve keys, and the key is rsa-2048/],
    ['sec1', ed, /ed25519/],
  ] as const)
    test(`refuses ${format} of ${key.asymmetricKeyType}`, () => {
      assert.throws(() => formatKey(key, format), { code: 'KEY_FORMAT', message: says })
    })

  test('knows what does not fit before there is a key', () => {
    const misfits = (algorithm: string) => KEY_FORMATS.filter((format) => misfitOf(format, algorithm))
    assert.deepEqual(misfits('ecdsa-p256'), ['pkcs1'])
    assert.deepEqual(misfits('rsa-4096'), ['sec1'])
    assert.deepEqual(misfits('ed25519'), ['pkcs1', 'sec1'])
  })

  test('encrypted opens with its password alone, and is the same for the same key', () => {
    const content = encryptedKeyPem(ec, PASSWORD)
    assert.match(content.toString(), /^-----BEGIN ENCRYPTED PRIVATE KEY-----\n/)
    assert.ok(isSame(createPrivateKey({ key: content, passphrase: PASSWORD }), ec))
    assert.throws(() => createPrivateKey({ key: content, passphrase: 'geheim 2' }))
    assert.deepEqual(encryptedKeyPem(ec, PASSWORD), content)
    assert.notDeepEqual(encryptedKeyPem(ec, Buffer.from('geheim 2')), content)
  })
})
