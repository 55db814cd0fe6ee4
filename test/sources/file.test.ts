import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { assertUsable } from '../../src/core/bundle.ts'
import type { Content } from '../../src/core/content.ts'
import { editionOf } from '../../src/core/content.ts'
import { sources } from '../../src/sources/index.ts'
import { createTestCa } from '../support/ca.ts'
import { failure, forever } from '../vault/support.ts'
import { createSource } from './contract.ts'

const root = mkdtempSync(join(tmpdir(), 'certferry-file-'))
after(() => rmSync(root, { recursive: true, force: true }))
const ca = await createTestCa()

function begin(more: object = {}) {
  const folder = mkdtempSync(join(root, 'f-'))
  const warnings: string[] = []
  const [cert, key] = [join(folder, 'tls.crt'), join(folder, 'tls.key')]
  const options = { kind: 'file', certFile: cert, keyFile: key, ...more }
  return {
    cert,
    key,
    warnings,
    source: createSource(options, { warn: (message) => void warnings.push(message) }),
    put: (certPem: string, keyPem: string) => {
      writeFileSync(cert, certPem)
      writeFileSync(key, keyPem)
    },
  }
}
const look = ({ source }: ReturnType<typeof begin>, serving: Awaited<ReturnType<typeof source.fetch>>) =>
  source.polling?.look(serving, forever) ?? assert.fail()

describe('source file', () => {
  it('gives what is there, of an origin that names the file, and issues nothing', async () => {
    const at = begin()
    const { certificatePem, keyPem, chainPems, bundle } = await ca.issue({ withIntermediate: true })
    at.put(certificatePem + chainPems.join(''), keyPem)
    const found = await at.source.fetch(forever)
    assert.equal(found.serial, bundle.serial)
    assert.equal(found.origin, `file ${at.cert}`)
    assert.equal(at.source.issues, false)
    assertUsable(found, { minTtlMs: 0, chain: 'complete' }, Date.now())
    assert.match((await at.source.examine(forever))[0]?.what ?? '', /tls\.crt holds certificate [0-9a-f]+, valid until/)
  })

  it('says that nothing is new where nothing is, and what is new otherwise', async () => {
    const at = begin()
    const [one, two] = [await ca.issue(), await ca.issue()]
    at.put(one.certificatePem, one.keyPem)
    const serving = await at.source.fetch(forever)
    assert.equal(await look(at, serving), serving)
    at.put(two.certificatePem, two.keyPem)
    assert.equal((await look(at, serving))?.serial, two.bundle.serial)
  })

  it('takes a chain that was completed for another edition of the same certificate', async () => {
    const at = begin()
    const { certificatePem, keyPem, chainPems } = await ca.issue({ withIntermediate: true })
    at.put(certificatePem, keyPem)
    const serving = await at.source.fetch(forever)
    at.put(certificatePem + chainPems.join(''), keyPem)
    const found: Content = (await look(at, serving)) ?? assert.fail()
    assert.equal(found.fingerprint, serving.fingerprint)
    assert.notEqual(editionOf(found), editionOf(serving))
  })

  it('S1 refuses a pair of which one half is still the old one, until the other follows', async () => {
    const at = begin()
    const [one, two] = [await ca.issue(), await ca.issue()]
    at.put(one.certificatePem, one.keyPem)
    const serving = await at.source.fetch(forever)
    writeFileSync(at.cert, two.certificatePem)
    const error = await failure(look(at, serving))
    assert.equal(error.code, 'INPUT_INCOMPLETE')
    assert.match(error.message, /key in \S+tls\.key belongs to no certificate in \S+tls\.crt$/)
    writeFileSync(at.key, two.keyPem)
    assert.equal((await look(at, serving))?.serial, two.bundle.serial)
  })

  it('S1 does not read what changes under its eyes', async () => {
    const at = begin()
    const { certificatePem, keyPem } = await ca.issue()
    at.put(certificatePem, keyPem)
    let count = 0
    const writing = setInterval(() => writeFileSync(at.cert, `${certificatePem}# ${count++}\n`), 5)
    const error = await failure(at.source.fetch(forever)).finally(() => clearInterval(writing))
    assert.equal(error.code, 'INPUT_INCOMPLETE')
    assert.match(error.message, /change all the time/)
  })

  it('names a file that is missing, and says when it would be read in vain', async () => {
    const at = begin()
    const error = await failure(at.source.fetch(forever))
    assert.equal(error.code, 'INPUT_MISSING')
    assert.match(error.message, /tls\.crt cannot be read \(ENOENT\)$/)
  })

  it('tells once of a certificate that is no issuer', async () => {
    const at = begin()
    const { certificatePem, keyPem } = await ca.issue()
    const stranger = await (await createTestCa({ commonName: 'Stranger Root' })).issue({ withIntermediate: true })
    at.put(certificatePem + stranger.chainPems[0], keyPem)
    const serving = await at.source.fetch(forever)
    await look(at, serving)
    assert.equal(at.warnings.length, 1)
    assert.match(at.warnings[0] ?? '', /holds "CN=Stranger +Intermediate" besides, .* left out$/)
  })

  it('stops when asked to', async () => {
    const reason = new Error('stop')
    await assert.rejects(begin().source.fetch(AbortSignal.abort(reason)), reason)
  })

  it('refuses a config of which it is not clear what to read', () => {
    const wrong = [
      {},
      { certFile: '/a', pkcs12File: '/b' },
      { pkcs12File: '/b', keyFile: '/c' },
      { certFile: 'relative' },
      { certFile: '/a', watch: 'sometimes' },
      { certFile: '/a', poll: '10ms' },
    ]
    for (const options of wrong)
      assert.equal(sources.schema.safeParse({ kind: 'file', ...options }).success, false, JSON.stringify(options))
  })
})
