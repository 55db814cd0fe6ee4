import assert from 'node:assert/strict'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { namesOf } from '../../src/core/names.ts'
import { failure } from '../vault/support.ts'
import { check, createSource, sourceContract } from './contract.ts'

let base: string
before(async () => {
  base = await mkdtemp(join(tmpdir(), 'certferry-dev-ca-'))
})
after(() => rm(base, { recursive: true }))

sourceContract(
  'dev-ca',
  async () => ({
    options: { kind: 'dev-ca', directory: join(base, 'contract') },
    [Symbol.asyncDispose]: async () => undefined,
  }),
  { algorithms: ['ecdsa-p256', 'ecdsa-p384', 'ed25519', 'rsa-2048'] },
)

const forever = new AbortController().signal
const devCa = (directory: string, more: object = {}) =>
  createSource({ kind: 'dev-ca', directory, commonName: 'localhost', altNames: ['127.0.0.1'], ...more })
const mode = async (path: string) => (await stat(path)).mode & 0o777

describe('the development CA', () => {
  test('says what it is in every certificate it signs', async () => {
    const { leaf, intermediates, roots } = await devCa(join(base, 'named')).fetch(forever)
    for (const certificate of [leaf, ...intermediates, ...roots])
      assert.match(certificate.issuer ?? '', /^CN=certferry development \w+ – do not trust in production$/)
  })

  test('keeps its key to itself, and its root for clients to trust', async () => {
    const directory = join(base, 'private')
    const { roots } = await devCa(directory).fetch(forever)
    assert.equal(await mode(directory), 0o700)
    assert.deepEqual((await readdir(directory)).sort(), ['ca.crt', 'dev-ca.pem'])
    assert.equal(await mode(join(directory, 'dev-ca.pem')), 0o600)
    const root = await readFile(join(directory, 'ca.crt'), 'utf8')
    assert.equal(root.trim(), roots[0]?.toString().trim())
    assert.doesNotMatch(root, /PRIVATE/)
  })

  test('is the same after a restart', async () => {
    const directory = join(base, 'again')
    const [first, second] = [await devCa(directory).fetch(forever), await devCa(directory).fetch(forever)]
    assert.equal(first.roots[0]?.fingerprint256, second.roots[0]?.fingerprint256)
  })

  test('takes a directory that was made for it', async () => {
    const directory = join(base, 'made')
    await mkdir(directory, { mode: 0o700 })
    const source = devCa(directory)
    check(await source.fetch(forever), source)
  })

  test('refuses a directory that others can write to, and a key that others can read', async () => {
    const [open, readable] = [join(base, 'open'), join(base, 'readable')]
    await mkdir(open)
    await chmod(open, 0o777)
    assert.equal((await failure(devCa(open).fetch(forever))).code, 'VOLUME_UNSAFE')
    await devCa(readable).fetch(forever)
    await chmod(join(readable, 'dev-ca.pem'), 0o644)
    assert.equal((await failure(devCa(readable).fetch(forever))).code, 'VOLUME_UNSAFE')
  })

  test('says what to do when its file is damaged, and works again after that', async () => {
    const directory = join(base, 'damaged')
    const source = devCa(directory)
    await mkdir(directory, { mode: 0o700 })
    for (const content of ['', 'nonsense', '-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n']) {
      await writeFile(join(directory, 'dev-ca.pem'), content, { mode: 0o600 })
      const error = await failure(source.fetch(forever))
      assert.equal(error.code, 'VOLUME_UNAVAILABLE')
      assert.match(error.message, /damaged holds no development CA that can be read; remove it, and a new one is made$/)
    }
    await rm(directory, { recursive: true })
    check(await source.fetch(forever), source)
  })

  test('says when the place cannot hold a directory', async () => {
    await writeFile(join(base, 'file'), '')
    const error = await failure(devCa(join(base, 'file', 'ca')).fetch(forever))
    assert.equal(error.code, 'VOLUME_UNAVAILABLE')
    assert.match(error.message, /ENOTDIR/)
  })

  test('lets email addresses, free text and no common name at all into a certificate', async () => {
    const directory = join(base, 'names')
    const odd = await devCa(directory, { commonName: '#Ünusual, "Inc"+x', altNames: ['x@example.com'] }).fetch(forever)
    assert.deepEqual([namesOf(odd.leaf).commonName, namesOf(odd.leaf).email], ['#Ünusual, "Inc"+x', ['x@example.com']])
    const spiffe = createSource({ kind: 'dev-ca', directory, altNames: ['spiffe://example.org/web'] })
    const bundle = await spiffe.fetch(forever)
    check(bundle, spiffe)
    assert.equal(namesOf(bundle.leaf).commonName, undefined)
  })
})
