import assert from 'node:assert/strict'
import { createPrivateKey } from 'node:crypto'
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { readSet, type SetOptions, type TlsErrorCode } from '../../src/client/index.ts'
import { LAYOUTS, render } from '../../src/outputs/output.ts'
import { createTestCa } from '../support/ca.ts'
import { mountSecret } from '../support/secret-mount.ts'
import { openStore } from '../support/store.ts'
import { makeOutput, makeVolume } from '../support/volume.ts'

const ca = await createTestCa()
const [one, two] = await Promise.all([ca.issue({ withIntermediate: true }), ca.issue({ withIntermediate: true })])
const fingerprint = ({ certificate }: { certificate: { fingerprint256: string } }) =>
  certificate.fingerprint256.replaceAll(':', '').toLowerCase()
const filesOf = ({ certificatePem, keyPem }: typeof one) => ({ 'tls.crt': certificatePem, 'tls.key': keyPem })

for (const layout of LAYOUTS) {
  test(`layout ${layout}: the set of the generation in place is read, with its CA`, async (t) => {
    const output = makeOutput({ directory: makeVolume(t), layout })
    const { store } = await openStore(t, [output])
    for (const { bundle } of [one, two]) {
      await store.apply(render([output], bundle))
      const set = await readSet({ directory: output.directory })
      assert.equal(fingerprint(set), bundle.fingerprint)
      assert.match(set.readFrom, /\/\.\.gen-[^/]+$/)
      assert.equal(String(set.ca?.[0]), ca.rootPem)
    }
  })
}

test('one combined file is certificate and key', async (t) => {
  const output = makeOutput({ kind: 'combined', directory: makeVolume(t) })
  const { store } = await openStore(t, [output])
  await store.apply(render([output], one.bundle))
  const { directory } = output
  const set = await readSet({ directory, files: { certificate: 'tls.pem', key: 'tls.pem' } })
  assert.equal(fingerprint(set), one.bundle.fingerprint)
  assert.equal(set.ca, undefined)
})

test('a Secret of Kubernetes is read, while kubelet removes what it replaced', async (t) => {
  const directory = makeVolume(t)
  mountSecret(directory, filesOf(one))
  const seen: string[] = []
  let isOver = false
  const reading = (async () => {
    while (!isOver) seen.push(fingerprint(await readSet({ directory })))
  })()
  for (let swaps = 0; seen.length < 100 || new Set(seen).size < 2; swaps += 1) {
    mountSecret(directory, filesOf(swaps % 2 === 0 ? two : one))
    await sleep(1)
  }
  isOver = true
  await reading
  assert.deepEqual([...new Set(seen)].sort(), [one.bundle.fingerprint, two.bundle.fingerprint].sort())
})

test('plain files that are half written are waited for', async (t) => {
  const directory = makeVolume(t)
  writeFileSync(join(directory, 'tls.crt'), two.certificatePem)
  writeFileSync(join(directory, 'tls.key'), one.keyPem)
  const reading = readSet({ directory })
  setTimeout(() => writeFileSync(join(directory, 'tls.key'), two.keyPem), 50)
  assert.equal(fingerprint(await reading), two.bundle.fingerprint)
})

test('trust may be of other directories, each with a generation of its own', async (t) => {
  const [directory, trust] = [makeVolume(t), makeVolume(t)]
  mountSecret(directory, filesOf(one))
  mountSecret(trust, { 'bundle.pem': ca.rootPem + ca.rootPem })
  const set = await readSet({ directory, ca: ['ca.crt', join(trust, 'bundle.pem')] }).catch(({ code }) => code)
  assert.equal(set, 'TLS_SET_MISSING', 'what is named must be there')
  const { ca: read } = await readSet({ directory, ca: join(trust, 'bundle.pem') })
  assert.equal(String(read?.[0]), ca.rootPem + ca.rootPem)
  assert.equal((await readSet({ directory, ca: false })).ca, undefined)
})

describe('what is wrong is told with the file', () => {
  const encrypted = String(
    createPrivateKey(one.keyPem).export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'right' }),
  )
  const rows: readonly {
    what: string
    files: Record<string, string>
    options?: Partial<SetOptions>
    code: TlsErrorCode
    message: RegExp
  }[] = [
    { what: 'nothing is there', files: {}, code: 'TLS_SET_MISSING', message: /tls\.crt is not there/ },
    {
      what: 'the key is missing',
      files: { 'tls.crt': one.certificatePem },
      code: 'TLS_SET_MISSING',
      message: /tls\.key is not there/,
    },
    {
      what: 'the key of another certificate',
      files: { ...filesOf(one), 'tls.key': two.keyPem },
      code: 'TLS_PAIR_MISMATCH',
      message: /the key in .*tls\.key does not belong to the certificate in .*tls\.crt/,
    },
    {
      what: 'no certificate',
      files: { ...filesOf(one), 'tls.crt': 'nonsense' },
      code: 'TLS_CERTIFICATE_INVALID',
      message: /tls\.crt holds no certificate in PEM/,
    },
    {
      what: 'no key',
      files: { ...filesOf(one), 'tls.key': one.certificatePem },
      code: 'TLS_KEY_INVALID',
      message: /tls\.key holds no private key in PEM$/,
    },
    {
      what: 'an encrypted key without passphrase',
      files: { ...filesOf(one), 'tls.key': encrypted },
      code: 'TLS_KEY_INVALID',
      message: /tls\.key is encrypted: give its passphrase/,
    },
    {
      what: 'an encrypted key with another passphrase',
      files: { ...filesOf(one), 'tls.key': encrypted },
      options: { passphrase: 'wrong' },
      code: 'TLS_KEY_INVALID',
      message: /another passphrase opens it/,
    },
    {
      what: 'a CA that is none',
      files: { ...filesOf(one), 'ca.crt': 'nonsense' },
      code: 'TLS_CA_INVALID',
      message: /ca\.crt holds no certificate in PEM/,
    },
  ]
  for (const { what, files, options = {}, code, message } of rows) {
    test(what, async (t) => {
      const directory = makeVolume(t)
      mountSecret(directory, files)
      await assert.rejects(readSet({ directory, ...options }), { name: 'TlsContextError', code, message })
    })
  }

  test('the passphrase of an encrypted key opens it', async (t) => {
    const directory = makeVolume(t)
    mountSecret(directory, { ...filesOf(one), 'tls.key': encrypted })
    assert.equal(fingerprint(await readSet({ directory, passphrase: 'right' })), one.bundle.fingerprint)
  })

  test('plain files that never match', async (t) => {
    const directory = makeVolume(t)
    writeFileSync(join(directory, 'tls.crt'), two.certificatePem)
    writeFileSync(join(directory, 'tls.key'), one.keyPem)
    await assert.rejects(readSet({ directory }), { code: 'TLS_PAIR_MISMATCH' })
  })

  test('a directory that cannot be entered', async (t) => {
    const directory = makeVolume(t)
    mkdirSync(join(directory, 'tls'))
    renameSync(join(directory, 'tls'), join(directory, 'file'))
    writeFileSync(join(directory, 'tls'), '')
    await assert.rejects(readSet({ directory: join(directory, 'tls') }), {
      code: 'TLS_SET_UNREADABLE',
      message: /tls\/\.\.data cannot be read: ENOTDIR/,
    })
  })
})
