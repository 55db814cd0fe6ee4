import assert from 'node:assert/strict'
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { type Bundle, certificatePem, parseCertificates } from '../../src/core/bundle.ts'
import { sshPublicKey } from '../../src/core/ssh.ts'
import { outputs } from '../../src/outputs/index.ts'
import { type Output, render, wipeKeys } from '../../src/outputs/output.ts'
import { createTestCa } from '../support/ca.ts'
import { openStore } from '../support/store.ts'
import { generationsIn, makeOutput as make, makeVolume, snapshot } from '../support/volume.ts'

let [bundle, other]: Bundle[] = []
before(async () => {
  const ca = await createTestCa()
  ;[bundle, other] = await Promise.all([1, 2].map(async () => (await ca.issue({ withIntermediate: true })).bundle))
})
const here = (): Bundle => bundle ?? assert.fail('no bundle')
const contentOf = (output: Output, name: string) =>
  output.render(here()).find((file) => file.name === name)?.content ?? assert.fail(`no file ${name}`)
const passwordIn = (directory: string, text = 'geheim 1\n', mode = 0o400) => {
  const file = join(directory, 'password')
  fs.writeFileSync(file, text)
  fs.chmodSync(file, mode)
  return file
}

describe('pem', () => {
  test('writes any split: files that are false are left out, those that are named are there', () => {
    const files = { certificate: false, ca: false, leaf: 'leaf.pem', fullChain: 'all.pem', chain: 'chain.pem' }
    const output = make({ directory: '/tls', files })
    assert.deepEqual(output.names, ['chain.pem', 'leaf.pem', 'all.pem', 'tls.key'])
    const { leaf, intermediates, roots } = here()
    const raws = (name: string) => parseCertificates(String(contentOf(output, name))).map(({ raw }) => raw)
    assert.deepEqual(raws('leaf.pem'), [leaf.raw])
    assert.deepEqual(
      raws('chain.pem'),
      intermediates.map(({ raw }) => raw),
    )
    assert.deepEqual(
      raws('all.pem'),
      [leaf, ...intermediates, ...roots].map(({ raw }) => raw),
    )
  })

  test('gives a file its own name, mode, owner and ACL, and the others those of the output', () => {
    const key = { name: 'key.pem', mode: '0640', gid: 990, acl: ['u:991:r'] }
    const output = make({ directory: '/tls', uid: 5, certificateMode: '0644', files: { key, ca: { mode: '0600' } } })
    assert.deepEqual(
      output.render(here()).map(({ name, mode, uid, gid, acl }) => [name, mode, uid, gid, acl]),
      [
        ['ca.crt', 0o600, 5, undefined, undefined],
        ['key.pem', 0o640, 5, 990, ['u:991:r']],
        ['tls.crt', 0o644, 5, undefined, undefined],
      ],
    )
    assert.equal(output.isShared, true)
    const acl = { directory: '/tls', files: { key: { acl: ['g:tls:r'] } } }
    assert.equal(make(acl).isShared, true, 'others pass through where an ACL lets them read')
    assert.equal(make({ directory: '/tls' }).isShared, false)
  })

  test('writes the key encrypted, with the password that the file holds at the time', (t) => {
    const passwordFile = passwordIn(makeVolume(t))
    const output = make({ directory: '/tls', keyFormat: 'pkcs8-encrypted', passwordFile })
    const opens = (passphrase: string) =>
      createPublicKey(createPrivateKey({ key: contentOf(output, 'tls.key'), passphrase })).equals(here().leaf.publicKey)
    assert.ok(opens('geheim 1'))
    fs.chmodSync(passwordFile, 0o600)
    fs.writeFileSync(passwordFile, 'another')
    assert.ok(opens('another'))
  })
})

test('combined holds the pieces in the order of the config', () => {
  const output = make({ kind: 'combined', directory: '/tls', order: ['certificate', 'chain', 'ca', 'key'] })
  const text = String(contentOf(output, 'tls.pem'))
  const { leaf, intermediates, roots } = here()
  const certificates = [leaf, ...intermediates, ...roots].map(certificatePem).join('')
  assert.ok(text.startsWith(`${certificates}-----BEGIN PRIVATE KEY-----`))
  assert.match(String(contentOf(make({ kind: 'combined', directory: '/tls' }), 'tls.pem')), /^-----BEGIN PRIVATE KEY/)
})

test('der writes the certificate and a PKCS#8 key', () => {
  const output = make({ kind: 'der', directory: '/tls' })
  assert.deepEqual(output.names, ['tls.key.der', 'tls.der'])
  assert.equal(new X509Certificate(contentOf(output, 'tls.der')).fingerprint256, here().leaf.fingerprint256)
  const key = createPrivateKey({ key: contentOf(output, 'tls.key.der'), format: 'der', type: 'pkcs8' })
  assert.ok(here().leaf.checkPrivateKey(key))
})

test('ssh writes both halves of the key', () => {
  const output = make({ kind: 'ssh', directory: '/tls' })
  assert.match(String(contentOf(output, 'id')), /^-----BEGIN OPENSSH PRIVATE KEY-----\n/)
  assert.equal(String(contentOf(output, 'id.pub')), `${sshPublicKey(here().leaf.publicKey)} web\n`)
})

test('each file has the owner and mode of its own on disk, and gets them back', {
  skip: process.geteuid?.() !== 0 && 'only root gives files away',
}, async (t) => {
  const directory = join(makeVolume(t), 'tls')
  const output = make({ directory, gid: 7, files: { key: { uid: 990, gid: 991, mode: '0640' } } })
  const { store } = await openStore(t, [output])
  await store.apply(render([output], here()))
  const access = (name: string) => {
    const { uid, gid, mode } = fs.statSync(join(directory, name))
    return [uid, gid, mode & 0o777]
  }
  const wanted = [
    [990, 991, 0o640],
    [0, 7, 0o600],
  ]
  assert.deepEqual(['tls.key', 'tls.crt'].map(access), wanted)
  fs.chownSync(fs.realpathSync(join(directory, 'tls.key')), 0, 0)
  assert.ok((await store.repair()).some(({ what }) => what === 'owner'))
  assert.deepEqual(['tls.key', 'tls.crt'].map(access), wanted)
})

describe('every form', () => {
  const forms = (volume: string): Record<string, unknown>[] => {
    const passwordFile = passwordIn(volume)
    return [
      { kind: 'pem', keyFormat: 'pkcs8-encrypted', passwordFile },
      { kind: 'combined', keyFormat: 'sec1' },
      { kind: 'pkcs12', passwordFile, files: { trustStore: 'trust.p12' } },
      { kind: 'der' },
      { kind: 'ssh' },
    ]
  }

  test('is a set that an unchanged bundle does not touch, and another replaces', async (t) => {
    const volume = makeVolume(t)
    for (const options of forms(volume)) {
      const directory = join(volume, String(options.kind))
      const output = make({ ...options, directory })
      const { store, reopen } = await openStore(t, [output])
      await store.apply(render([output], here()))
      await store.settle(1)
      const before = snapshot(directory)
      assert.equal((await store.apply(render([output], here()))).changed, false, directory)
      const { store: next } = await reopen()
      assert.equal((await next.apply(render([output], here()))).changed, false, `${directory} after a restart`)
      assert.deepEqual(await next.repair(), [])
      assert.deepEqual(snapshot(directory), before)
      assert.ok(other)
      assert.equal((await next.apply(render([output], other))).changed, true)
      assert.equal(generationsIn(directory).length, 2)
      await next.undo()
      assert.deepEqual(next.current?.fingerprint, here().fingerprint)
    }
  })

  test('that holds the key is wiped after use', (t) => {
    for (const options of forms(makeVolume(t))) {
      const files = make({ ...options, directory: '/tls' }).render(here())
      wipeKeys(files)
      const wiped = files.filter(({ content }) => content.every((byte) => byte === 0)).map(({ role }) => role)
      assert.equal(wiped.length, 1, String(options.kind))
      assert.match(wiped[0] ?? '', /^(?:key|combined|key-form)$/)
    }
  })
})

test('what was rendered of a set is wiped when the rest of it cannot be', () => {
  const rendered: Buffer[] = []
  const first = make({ directory: '/a' })
  const watched: Output = {
    ...first,
    render: (each) => {
      const files = first.render(each)
      rendered.push(...files.filter(({ role }) => role === 'key').map(({ content }) => content))
      return files
    },
  }
  assert.throws(() => render([watched, make({ directory: '/b', keyFormat: 'pkcs1' })], here()), { code: 'KEY_FORMAT' })
  assert.equal(rendered.length, 1)
  assert.ok(rendered[0]?.every((byte) => byte === 0))
})

test('a password that is gone is noticed before anything is asked for', async (t) => {
  const volume = makeVolume(t)
  const passwordFile = passwordIn(volume)
  const output = make({ kind: 'pkcs12', directory: join(volume, 'tls'), passwordFile })
  const { store } = await openStore(t, [output])
  await store.preflight()
  fs.rmSync(passwordFile)
  await assert.rejects(store.preflight(), { code: 'PASSWORD_FILE' })
})

describe('a password file', () => {
  const rows: [why: string, text: string | undefined, mode: number, says: RegExp][] = [
    ['that is missing', undefined, 0, /cannot read .*password \(ENOENT\)/],
    ['that is empty', '\n', 0o400, /is empty/],
    ['that everybody may read', 'geheim', 0o444, /mode 0444: everybody may read/],
    ['that its group may write', 'geheim', 0o620, /others may write/],
    ['of two lines', 'a\nb\n', 0o400, /more than one line/],
    ['of more than ASCII', 'geheim-ä', 0o400, /more than ASCII/],
    ['that is larger than any password', 'x'.repeat(2000), 0o400, /larger/],
  ]
  for (const [why, text, mode, says] of rows)
    test(`${why} is refused before anything is asked for, and at each set`, async (t) => {
      const volume = makeVolume(t)
      const passwordFile = text === undefined ? join(volume, 'password') : passwordIn(volume, text, mode)
      const output = make({ kind: 'pkcs12', directory: '/tls', passwordFile })
      const refused = { code: 'PASSWORD_FILE', message: says }
      await assert.rejects(async () => output.prepare?.(), refused)
      assert.throws(() => output.render(here()), refused)
    })
})

describe('refuses', () => {
  const twice = { certificate: 'a', key: { name: 'a' } }
  const none = { certificate: false, key: false }
  const rows: [why: string, options: Record<string, unknown>, path: string, says: RegExp][] = [
    ['one name for two files', { files: twice }, 'files', /twice/],
    ['the usual name of another file', { files: { chain: 'ca.crt' } }, 'files', /twice/],
    ['a set of no file', { files: { ...none, ca: false } }, 'files', /leaves out/],
    ['a file that is a number', { files: { key: 7 } }, 'files.key', /name of a file, or a map/],
    ['a file that everybody may read', { files: { key: { mode: '0644' } } }, 'files.key.mode', /nothing to others/],
    ['an encrypted key without a password', { keyFormat: 'pkcs8-encrypted' }, 'passwordFile', /needs it/],
    ['a password for no key', { passwordFile: '/pw' }, 'passwordFile', /goes with/],
    ['a password in no absolute place', { kind: 'pkcs12', passwordFile: 'pw' }, 'passwordFile', /absolute/],
    ['an alias of more than ASCII', { kind: 'pkcs12', passwordFile: '/pw', alias: 'ä' }, 'alias', /ASCII/],
    ['an unknown form of the key', { keyFormat: 'pkcs7' }, 'keyFormat', /pkcs8/],
    ['combined without a key', { kind: 'combined', order: ['certificate'] }, 'order', /must hold key/],
    ['a piece twice', { kind: 'combined', order: ['key', 'certificate', 'key'] }, 'order', /twice/],
    ['a chain first', { kind: 'combined', order: ['chain', 'certificate', 'key'] }, 'order', /after the certificate/],
    ['an ACL that lets write', { acl: ['u:990:rw'] }, 'acl.0', /u:USER:r/],
    ['an ACL for everybody', { acl: ['o::r'] }, 'acl.0', /u:USER:r/],
    ['an ACL that ends an option', { acl: ['u:-x:r'] }, 'acl.0', /u:USER:r/],
    ['DER of no file', { kind: 'der', files: none }, 'files', /leaves out/],
  ]
  for (const [why, options, path, says] of rows)
    test(why, () => {
      const { error } = outputs.schema.safeParse({ kind: 'pem', directory: '/tls', ...options })
      const issues = error?.issues.filter((issue) => issue.path.join('.') === path).map(({ message }) => message)
      assert.match(issues?.join('; ') ?? '', says, JSON.stringify(error?.issues))
    })
})
