import assert from 'node:assert/strict'
import { createPrivateKey } from 'node:crypto'
import { before, describe, test } from 'node:test'
import { type Bundle, certificatePem, parseCertificates } from '../../src/core/bundle.ts'
import { withStaple } from '../../src/core/staple.ts'
import { includeFile } from '../../src/outputs/include-file.ts'
import { outputs } from '../../src/outputs/index.ts'
import { type Output, type OutputFile, render } from '../../src/outputs/output.ts'
import { createTestCa, type TestCa } from '../support/ca.ts'
import { makeOutput as create } from '../support/volume.ts'

let ca: TestCa
let bundle: Bundle
before(async () => {
  ca = await createTestCa()
  bundle = (await ca.issue({ withIntermediate: true })).bundle
})

const fileOf = (output: Output, name: string): OutputFile => {
  const file = output.render(bundle).find((candidate) => candidate.name === name)
  assert.ok(file, `no file ${name}`)
  return file
}
const fingerprints = (pem: Buffer | string) => parseCertificates(String(pem)).map((found) => found.fingerprint256)

describe('pem', () => {
  test('writes leaf and intermediates, a PKCS#8 key and the roots, all 0600', () => {
    const output = create({ kind: 'pem', directory: '/tls/' })
    assert.equal(output.directory, '/tls')
    assert.equal(output.seenAs, '/tls')
    assert.equal(output.layout, 'generation')
    assert.deepEqual(output.names, ['ca.crt', 'tls.key', 'tls.crt'])
    assert.deepEqual(
      output.render(bundle).map(({ name, role, mode }) => [name, role, mode]),
      [
        ['ca.crt', 'ca', 0o600],
        ['tls.key', 'key', 0o600],
        ['tls.crt', 'certificate', 0o600],
      ],
    )
    assert.deepEqual(
      fingerprints(fileOf(output, 'tls.crt').content),
      [bundle.leaf, ...bundle.intermediates].map((found) => found.fingerprint256),
    )
    assert.deepEqual(fingerprints(fileOf(output, 'ca.crt').content), [ca.root.fingerprint256])
    const key = String(fileOf(output, 'tls.key').content)
    assert.match(key, /^-----BEGIN PRIVATE KEY-----\n/)
    assert.ok(bundle.leaf.checkPrivateKey(createPrivateKey(key)))
  })

  test('takes names, modes and owner from the config, and a file with the intermediates when it is named', () => {
    const output = create({
      kind: 'pem',
      directory: '/tls',
      layout: 'flat',
      mode: '0640',
      certificateMode: '0644',
      uid: 101,
      gid: 102,
      seenAs: '/etc/tls',
      files: { certificate: 'a', key: 'b', ca: 'c', chain: 'd' },
    })
    assert.equal(output.seenAs, '/etc/tls')
    assert.deepEqual(
      output.render(bundle).map(({ name, role, mode, uid, gid }) => [name, role, mode, uid, gid]),
      [
        ['c', 'ca', 0o644, 101, 102],
        ['d', 'chain', 0o644, 101, 102],
        ['b', 'key', 0o640, 101, 102],
        ['a', 'certificate', 0o644, 101, 102],
      ],
    )
    assert.deepEqual(output.names, ['c', 'd', 'b', 'a'])
    assert.deepEqual(
      fingerprints(fileOf(output, 'd').content),
      bundle.intermediates.map((found) => found.fingerprint256),
    )
  })

  test('takes the topmost intermediate as CA where the source delivers no root', () => {
    const output = create({ kind: 'pem', directory: '/tls' })
    const [file] = output.render({ ...bundle, roots: [] })
    assert.equal(String(file?.content), bundle.intermediates.slice(-1).map(certificatePem).join(''))
  })
})

test('combined writes key, leaf and intermediates as one file', () => {
  const output = create({ kind: 'combined', directory: '/tls', file: 'haproxy.pem' })
  assert.deepEqual(output.names, ['haproxy.pem'])
  const [file, ...rest] = output.render(bundle)
  assert.equal(rest.length, 0)
  assert.equal(file?.role, 'combined')
  assert.match(String(file?.content), /^-----BEGIN PRIVATE KEY-----/)
  assert.deepEqual(
    fingerprints(String(file?.content)),
    [bundle.leaf, ...bundle.intermediates].map((found) => found.fingerprint256),
  )
  assert.ok(bundle.leaf.checkPrivateKey(createPrivateKey(String(file?.content))))
})

test('outputs that share a directory are one set, in the order of the config', () => {
  const pem = create({ kind: 'pem', directory: '/a' })
  const set = render(
    [pem, create({ kind: 'pem', directory: '/b' }), create({ kind: 'combined', directory: '/a' })],
    bundle,
  )
  assert.deepEqual(
    set.directories.map(({ directory, files }) => [directory, files.map(({ name }) => name)]),
    [
      ['/a', ['ca.crt', 'tls.key', 'tls.crt', 'tls.pem']],
      ['/b', ['ca.crt', 'tls.key', 'tls.crt']],
    ],
  )
})

describe('refuses', () => {
  const named = (certificate: string) => ({ files: { certificate } })
  const rows: [why: string, options: Record<string, unknown>, path: string, says: RegExp][] = [
    ['a relative directory', { directory: 'tls' }, 'directory', /absolute/],
    ['the root directory', { directory: '/' }, 'directory', /of its own/],
    ['a directory that climbs', { directory: '/tls/../etc' }, 'directory', /"\.\."/],
    ['a directory with NUL', { directory: '/tls\0' }, 'directory', /control/],
    ['a path that nginx would read as a variable', { seenAs: '/tls/$x' }, 'seenAs', /\$/],
    ['a path that would end an nginx directive', { seenAs: '/a;b' }, 'seenAs', /;/],
    ['a path longer than the system takes', { directory: `/${'a/'.repeat(2000)}` }, 'directory', /longer/],
    ['an unknown layout', { layout: 'tar' }, 'layout', /generation/],
    ['a name with a slash', named('a/b'), 'files.certificate', /"\/"/],
    ['an absolute name', named('/etc/passwd'), 'files.certificate', /"\/"/],
    ['the name ".."', named('..'), 'files.certificate', /"\.\."/],
    ["a name of certferry's own", named('..data'), 'files.certificate', /own/],
    ['the name "."', named('.'), 'files.certificate', /name a file/],
    ['an empty name', named(''), 'files.certificate', /name a file/],
    ['a name with NUL', named('a\0b'), 'files.certificate', /control/],
    ['a name with a newline', named('a\nb'), 'files.certificate', /control/],
    ['a name of more than 200 bytes', named('ä'.repeat(101)), 'files.certificate', /200 bytes/],
    ['the name of the include file', named('tls.conf'), 'files.certificate', /nginx-include/],
    ['one name for two files', named('tls.key'), 'files', /twice/],
    ['an unquoted mode', { mode: 600 }, 'mode', /quoted octal/],
    ['a key that everybody may read', { mode: '0644' }, 'mode', /others/],
    ['a key that the group may write', { mode: '0660' }, 'mode', /group/],
    ['a key that its owner cannot read', { mode: '0200' }, 'mode', /owner read/],
    ['a certificate that others may write', { certificateMode: '0666' }, 'certificateMode', /write/],
    ['a negative uid', { uid: -1 }, 'uid', />=0/],
    ['the uid that means "leave it"', { uid: 2 ** 32 - 1 }, 'uid', /<=/],
    ['an option it does not know', { modus: '0600' }, '', /modus/],
  ]
  for (const [why, options, path, says] of rows) {
    test(why, () => {
      const { success, error } = outputs.schema.safeParse({ kind: 'pem', directory: '/tls', ...options })
      assert.equal(success, false)
      const issues = error?.issues.filter((issue) => issue.path.join('.') === path).map(({ message }) => message)
      assert.match(issues?.join('; ') ?? '', says)
    })
  }
})

describe('an OCSP response', () => {
  const staple = { der: Buffer.from([0x30, 0x03, 0x0a, 0x01, 0x00]), thisUpdate: 0, nextUpdate: 1 }

  for (const [options, name] of [
    [{ kind: 'pem', files: { ocsp: 'tls.ocsp' } }, 'tls.ocsp'],
    [{ kind: 'combined', ocspFile: 'tls.pem.ocsp' }, 'tls.pem.ocsp'],
  ] as const)
    test(`is a file of ${options.kind} where it is named and there is one`, () => {
      const output = create({ ...options, directory: '/tls' })
      assert.equal(output.staples, true)
      assert.ok(output.names.includes(name))
      assert.ok(!output.render(bundle).some((file) => file.name === name))
      const file = output.render(withStaple(bundle, staple)).find((one) => one.name === name)
      assert.deepEqual([file?.role, file?.content], ['staple', staple.der])
      assert.notEqual(file?.content, staple.der, 'a copy, which may be overwritten')
      const without = create({ kind: options.kind, directory: '/tls' })
      assert.deepEqual(
        [without.staples, without.render(withStaple(bundle, staple)).length],
        [false, output.names.length - 1],
      )
    })

  test('is named in tls.conf by the same generation as certificate and key', () => {
    const output = create({ kind: 'pem', directory: '/tls', layout: 'nginx-include', files: { ocsp: 'tls.ocsp' } })
    const text = (of: Bundle) => {
      const [set] = render([output], of).directories
      return String(set && includeFile(set, '..gen-1')?.content)
    }
    assert.match(
      text(withStaple(bundle, staple)),
      /\nssl_stapling on;\nssl_stapling_file "\/tls\/\.\.gen-1\/tls\.ocsp";\n$/,
    )
    assert.doesNotMatch(text(bundle), /stapling/)
  })
})
