import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { before, describe, test } from 'node:test'
import { type Bundle, parseCertificates } from '../../src/core/bundle.ts'
import { KEY_ALGORITHMS } from '../../src/core/key.ts'
import { readPkcs12 } from '../../src/core/pkcs12.ts'
import { keyStoreOf, trustStoreOf } from '../../src/core/pkcs12-file.ts'
import { Secret } from '../../src/core/secret.ts'
import { createTestCa } from '../support/ca.ts'

const PASSWORD = Buffer.from('geheim 1')
let [a, b]: Bundle[] = []
before(async () => {
  const ca = await createTestCa()
  ;[a, b] = await Promise.all([1, 2].map(async () => (await ca.issue({ withIntermediate: true })).bundle))
})
const storeOf = ({ key, leaf, intermediates }: Bundle, password = PASSWORD) =>
  keyStoreOf({ key, certificates: [leaf, ...intermediates], alias: 'web' }, password)

describe('a PKCS#12 key store', () => {
  test('holds the key and its certificates, for who has the password', async () => {
    assert.ok(a)
    const file = storeOf(a)
    const found = await readPkcs12(file, new Secret('geheim 1'), 'here')
    assert.ok(createPublicKey(createPrivateKey(found.key)).equals(createPublicKey(a.key)))
    assert.deepEqual(
      parseCertificates(found.certificates.join('')).map(({ raw }) => raw),
      [a.leaf, ...a.intermediates].map(({ raw }) => raw),
    )
    await assert.rejects(readPkcs12(file, new Secret('geheim 2'), 'here'), { code: 'PKCS12_INVALID' })
  })

  test('of any key that is made here', async () => {
    const ca = await createTestCa()
    for (const algorithm of KEY_ALGORITHMS.filter((one) => one !== 'rsa-4096' && one !== 'rsa-3072')) {
      const { bundle } = await ca.issue({ algorithm })
      const { key } = await readPkcs12(storeOf(bundle), new Secret('geheim 1'), algorithm)
      assert.ok(createPublicKey(createPrivateKey(key)).equals(createPublicKey(bundle.key)), algorithm)
    }
  })

  test('is the same for the same content, and shares nothing with that of another', () => {
    assert.ok(a && b)
    const first = storeOf(a)
    assert.deepEqual(storeOf(a), first)
    assert.notDeepEqual(saltsOf(storeOf(b)), saltsOf(first))
    const distinct = new Set(saltsOf(first))
    assert.equal(distinct.size, saltsOf(first).length, 'key and certificates have salts of their own')
    assert.equal(distinct.size, 2)
  })

  test('does not open where a bit of it was turned', async () => {
    assert.ok(a)
    const file = storeOf(a)
    file[300] = (file[300] ?? 0) ^ 1
    await assert.rejects(readPkcs12(file, new Secret('geheim 1'), 'here'), { code: 'PKCS12_INVALID' })
  })
})

test('a trust store is the same for the same certificates, each in it once', () => {
  assert.ok(a)
  const file = trustStoreOf([...a.roots, ...a.intermediates], PASSWORD)
  assert.deepEqual(trustStoreOf([...a.roots, ...a.intermediates, ...a.roots], PASSWORD), file)
  assert.notDeepEqual(trustStoreOf(a.roots, PASSWORD), file)
})

/** The salts of PBKDF2, which follow its object identifier. */
function saltsOf(file: Buffer): string[] {
  const pbkdf2 = Buffer.from('06092a864886f70d01050c', 'hex')
  const found: string[] = []
  for (let at = file.indexOf(pbkdf2); at >= 0; at = file.indexOf(pbkdf2, at + 1))
    // SEQUENCE, its length, OCTET STRING, 16.
    found.push(file.subarray(at + pbkdf2.length + 4, at + pbkdf2.length + 20).toString('hex'))
  return found
}
