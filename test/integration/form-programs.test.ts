import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { type Bundle, parseCertificates } from '../../src/core/bundle.ts'
import { nextAnchors, type TrustSet, toTrustSet } from '../../src/core/trust.ts'
import { render } from '../../src/outputs/output.ts'
import { trustOutputs } from '../../src/outputs/trust.ts'
import { createTestCa } from '../support/ca.ts'
import { component, skipReason } from '../support/components.ts'
import { openStore } from '../support/store.ts'
import { makeOutput, makeVolume } from '../support/volume.ts'

let ec: Bundle
let rsa: Bundle
let rollover: TrustSet
before(async () => {
  const ca = await createTestCa()
  ;[ec, rsa] = await Promise.all([
    ca.issue({ withIntermediate: true }).then((issued) => issued.bundle),
    ca.issue({ algorithm: 'rsa-2048' }).then((issued) => issued.bundle),
  ])
  const roots = [ca.root, (await createTestCa()).root]
  const anchors = nextAnchors(roots, [], { now: Date.now(), keepMs: 0, isUsed: () => false })
  rollover = toTrustSet({ anchors, lists: [], origin: 'trust peers', receivedAt: Date.now() })
})
const run = async (program: string, ...args: string[]) =>
  (await promisify(execFile)(program, args, { encoding: 'utf8', env: { LC_ALL: 'C' } })).stdout

/** A set on disk as a store writes it. */
async function written(t: TestContext, options: Record<string, unknown>, bundle: Bundle) {
  const volume = makeVolume(t)
  const passwordFile = join(volume, 'password')
  writeFileSync(passwordFile, 'geheim 1\n', { mode: 0o400 })
  const directory = join(volume, 'tls')
  const output = makeOutput({ directory, ...options, ...(options.passwordFile === '' && { passwordFile }) })
  const { store } = await openStore(t, [output])
  await store.apply(render([output], bundle))
  return { directory, password: `file:${passwordFile}`, passwordFile }
}

/** The trust store of a trust in the middle of a rollover, as its output renders it. */
async function trustStore(t: TestContext) {
  const volume = makeVolume(t)
  const [file, passwordFile] = [join(volume, 'truststore.p12'), join(volume, 'password')]
  writeFileSync(passwordFile, 'geheim 1\n', { mode: 0o400 })
  const options = trustOutputs.schema.parse({ kind: 'pkcs12', directory: volume, passwordFile })
  const output = trustOutputs.create(options, undefined)
  await output.prepare?.()
  const [content] = output.render(rollover)
  assert.ok(content)
  assert.equal(content.name, 'truststore.p12')
  writeFileSync(file, content.content)
  return { file, password: `file:${passwordFile}`, passwordFile }
}

describe('keytool reads', { skip: await skipReason('keytool'), concurrency: true }, () => {
  const options = { kind: 'pkcs12', passwordFile: '', alias: 'Web-1', files: { trustStore: 'trust.p12' } }
  const list = async (file: string, passwordFile: string) =>
    run(await component('keytool'), '-J-Xshare:auto', '-list', '-v', '-keystore', file, '-storepass:file', passwordFile)

  test('the key store: one private key under its alias, with its chain', async (t) => {
    const { directory, passwordFile } = await written(t, options, ec)
    const said = await list(`${directory}/keystore.p12`, passwordFile)
    assert.match(said, /contains 1 entry/)
    assert.match(said, /Alias name: web-1\n.*\nEntry type: PrivateKeyEntry\nCertificate chain length: 2\n/)
    assert.ok(said.includes(`SHA256: ${ec.leaf.fingerprint256}`))
  })

  test('the trust store: each CA as one that is trusted', async (t) => {
    const { directory, passwordFile } = await written(t, options, ec)
    const said = await list(`${directory}/trust.p12`, passwordFile)
    assert.match(said, /contains 1 entry/)
    assert.match(said, /Alias name: test root [0-9a-f]{8}\n.*\nEntry type: trustedCertEntry\n/)
    assert.ok(said.includes(`SHA256: ${ec.roots[0]?.fingerprint256}`))
  })

  test('the trust store of a trust: the old CA and the new one, of one name, each as one that is trusted', async (t) => {
    const { file, passwordFile } = await trustStore(t)
    const said = await list(file, passwordFile)
    assert.match(said, /contains 2 entries/)
    assert.equal(said.match(/^Alias name: test root [0-9a-f]{8}$/gm)?.length, 2)
    assert.equal(said.match(/^Entry type: trustedCertEntry$/gm)?.length, 2)
    for (const { certificate } of rollover.anchors)
      assert.ok(said.includes(`SHA256: ${certificate.fingerprint256}`), certificate.fingerprint256)
  })
})

describe('openssl reads', { skip: await skipReason('openssl'), concurrency: true }, () => {
  const openssl = async (...args: string[]) => run(await component('openssl'), ...args)

  test('the key store', async (t) => {
    const { directory, password } = await written(t, { kind: 'pkcs12', passwordFile: '' }, rsa)
    const said = await openssl('pkcs12', '-in', `${directory}/keystore.p12`, '-passin', password, '-nodes')
    assert.match(said, /friendlyName: web/)
    assert.match(said, /-----BEGIN PRIVATE KEY-----/)
    assert.equal(said.match(/-----BEGIN CERTIFICATE-----/g)?.length, 1)
  })

  test('the trust store of a trust, which holds no key and opens with no other password', async (t) => {
    const { file, password, passwordFile } = await trustStore(t)
    const said = await openssl('pkcs12', '-in', file, '-passin', password, '-nodes')
    const found = parseCertificates(said).map(({ fingerprint256 }) => fingerprint256)
    assert.deepEqual(
      found,
      rollover.anchors.map(({ certificate }) => certificate.fingerprint256),
    )
    assert.doesNotMatch(said, /PRIVATE KEY/)
    writeFileSync(`${passwordFile}.other`, 'geheim 2')
    const other = ['-passin', `file:${passwordFile}.other`, '-noout']
    await assert.rejects(openssl('pkcs12', '-in', file, ...other), /invalid password/)
  })

  test('nothing with another password', async (t) => {
    const { directory, passwordFile } = await written(t, { kind: 'pkcs12', passwordFile: '' }, ec)
    const other = `${passwordFile}.other`
    writeFileSync(other, 'geheim 2')
    const file = `${directory}/keystore.p12`
    await assert.rejects(openssl('pkcs12', '-in', file, '-passin', `file:${other}`, '-noout'), /invalid password/)
  })

  for (const [keyFormat, bundle] of [
    ['pkcs1', () => rsa],
    ['sec1', () => ec],
    ['pkcs8-encrypted', () => ec],
  ] as const)
    test(`a key in ${keyFormat}`, async (t) => {
      const isEncrypted = keyFormat === 'pkcs8-encrypted'
      const { directory, password } = await written(
        t,
        { keyFormat, ...(isEncrypted && { passwordFile: '' }) },
        bundle(),
      )
      const file = `${directory}/tls.key`
      assert.equal(
        (await openssl('pkey', '-in', file, ...(isEncrypted ? ['-passin', password] : []), '-pubout')).trim(),
        bundle().leaf.publicKey.export({ type: 'spki', format: 'pem' }).toString().trim(),
      )
    })

  test('DER', async (t) => {
    const { directory } = await written(t, { kind: 'der' }, ec)
    const fingerprint = await openssl(
      ...['x509', '-inform', 'DER', '-in', `${directory}/tls.der`, '-noout', '-fingerprint', '-sha256'],
    )
    assert.ok(fingerprint.includes(ec.leaf.fingerprint256))
    const publicKey = await openssl('pkey', '-inform', 'DER', '-in', `${directory}/tls.key.der`, '-pubout')
    assert.equal(publicKey, ec.leaf.publicKey.export({ type: 'spki', format: 'pem' }).toString())
  })
})
