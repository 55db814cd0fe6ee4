import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { isDeepStrictEqual, promisify } from 'node:util'
import fc from 'fast-check'
import * as z from 'zod'
import { AltName, CommonName, differences, namesOf, requestedNames } from '../../src/core/names.ts'
import { component, skipReason } from '../support/components.ts'

const run = promisify(execFile)
const skip = await skipReason('openssl')

/** A certificate by openssl with this subject and subjectAltName, as any CA could write it. */
async function certificate(subject: string, altNames?: string): Promise<X509Certificate> {
  const directory = await mkdtemp(join(tmpdir(), 'certferry-names-'))
  try {
    const path = (name: string) => join(directory, name)
    await writeFile(path('config'), '[req]\ndistinguished_name=none\n[none]\n[directory]\nCN=foo, DNS:hidden.example\n')
    const config = ['-config', path('config'), '-utf8', '-keyout', path('key'), '-out', path('certificate')]
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    const extension = altNames === undefined ? [] : ['-addext', `subjectAltName=${altNames}`]
    await run(await component('openssl'), ['req', '-x509', ...key, ...config, '-subj', subject, ...extension])
    return new X509Certificate(await readFile(path('certificate')))
  } finally {
    await rm(directory, { recursive: true })
  }
}

const asked = (altNames: readonly string[], commonName?: string, excludeCnFromSans = false) =>
  requestedNames({ commonName, altNames, excludeCnFromSans })

describe('the names of a request', () => {
  test('are sorted into DNS names, addresses, URIs and email addresses', () => {
    assert.deepEqual(
      asked(
        ['b.example.com', '10.0.0.1', '::1', 'spiffe://example.org/web', 'urn:uuid:1', 'x@example.com'],
        'a.example.com',
      ),
      {
        commonName: 'a.example.com',
        dns: ['a.example.com', 'b.example.com'],
        ip: ['10.0.0.1', '::1'],
        uri: ['spiffe://example.org/web', 'urn:uuid:1'],
        email: ['x@example.com'],
      },
    )
  })
  test('hold each name once, whatever its spelling', () => {
    const { dns, ip } = asked(['WWW.Example.com', 'www.example.com', '2001:DB8:0:0::1', '2001:db8::1'])
    assert.deepEqual([dns, ip], [['www.example.com'], ['2001:db8::1']])
  })
  test('keep the spelling of the common name in the subject', () =>
    assert.deepEqual(asked([], 'A.Example.COM'), {
      ...asked(['a.example.com']),
      commonName: 'A.Example.COM',
    }))
  test('leave the common name out of the subjectAltName when told so', () =>
    assert.deepEqual(asked([], 'a.example.com', true).dns, []))
  test('leave out a common name that is free text', () => assert.deepEqual(asked([], 'Payment Service').dns, []))
  test('put a common name that is an address among the addresses', () =>
    assert.deepEqual(asked([], '10.0.0.1').ip, ['10.0.0.1']))
  test('write international domain names as A-labels', () =>
    assert.deepEqual(asked(['*.münchen.example']).dns, ['*.xn--mnchen-3ya.example']))
  test('write an IPv4 address mapped into IPv6 as IPv4, as Vault does', () =>
    assert.deepEqual(asked(['::ffff:1.2.3.4', '::FFFF:102:304']).ip, ['1.2.3.4']))
})

describe('the names of a certificate', { skip }, () => {
  test('equal those asked for, IPv6 addresses and international names included', async () => {
    const wanted = asked(
      [
        'b.example.com',
        '*.münchen.example',
        '10.0.0.1',
        '::1',
        '2001:db8::8:800:200c:417a',
        '::ffff:1.2.3.4',
        'urn:uuid:1',
        'spiffe://example.org/a;b',
        'x@example.com',
      ],
      'a.example.com',
    )
    const found = await certificate(
      '/CN=a.example.com',
      'email:x@example.com,URI:spiffe://example.org/a;b,URI:urn:uuid:1,IP:1.2.3.4,IP:2001:db8:0:0:8:800:200c:417a,IP:0:0:0:0:0:0:0:1,IP:10.0.0.1,DNS:*.xn--mnchen-3ya.example,DNS:b.example.com,DNS:A.example.com',
    )
    assert.deepEqual(differences(wanted, namesOf(found)), [])
  })
  test('take the common name as it is, with commas, quotes and international letters', async () => {
    const found = await certificate('/O=x, CN=evil.example/CN=münchen, "Inc"\\+x')
    assert.equal(namesOf(found).commonName, 'münchen, "Inc"+x')
  })
  test('take the last of several common names, and one beside others in its RDN', async () => {
    assert.equal(namesOf(await certificate('/CN=a.example.com/CN=b.example.com')).commonName, 'b.example.com')
    assert.equal(namesOf(await certificate('/O=x/CN=a.example.com+OU=CN\\=b')).commonName, 'a.example.com')
  })
  test('leave TLS whole, which Node does not where a certificate is taken apart before it is loaded', async () => {
    const found = await certificate('/CN=Payment, Inc')
    const names = new URL('../../src/core/names.ts', import.meta.url)
    const program = `const { X509Certificate } = await import('node:crypto')
      const { namesOf } = await import(${JSON.stringify(names)})
      const { commonName } = namesOf(new X509Certificate(Buffer.from('${found.raw.toString('base64')}', 'base64')))
      console.log(commonName, typeof (await import('node:tls')).createSecureContext)`
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', program])
    assert.equal(stdout, 'Payment, Inc function\n')
  })
  test('are not fooled by names hidden in another kind of name', async () => {
    const found = await certificate('/CN=a.example.com', 'DNS:a.example.com,dirName:directory,RID:1.2.3.4')
    assert.deepEqual(namesOf(found), asked([], 'a.example.com'))
  })
  test('are all empty where it has none', async () => assert.deepEqual(namesOf(await certificate('/O=x')), asked([])))
})

test('differences name what is missing and what came besides', () => {
  assert.deepEqual(differences(asked(['10.0.0.1'], 'a.example.com'), asked(['b.example.com'])), [
    'common name is (none), wanted a.example.com',
    'dns lacks a.example.com',
    'dns has b.example.com besides',
    'ip lacks 10.0.0.1',
  ])
})

describe('config refuses', () => {
  const names: [why: string, name: string, sentence: RegExp][] = [
    ['an empty name', '', /is not a DNS name/],
    ['a space', 'a b.example.com', /holds white space/],
    ['a line break', 'a.example.com\n', /control character/],
    ['a wildcard inside', 'a.*.example.com', /is not a DNS name/],
    ['a trailing dot', 'a.example.com.', /is not a DNS name/],
    ['an empty label', 'a..example.com', /is not a DNS name/],
    ['a label of 64 characters', `${'a'.repeat(64)}.example.com`, /is not a DNS name/],
    ['a name of 254 characters', `${'a.'.repeat(126)}aa`, /is not a DNS name/],
    ['a wildcard of 254 characters', `*.${'a.'.repeat(125)}aa`, /is not a DNS name/],
    [
      'an international label of more than 63 characters as an A-label',
      `${'ü'.repeat(60)}.example`,
      /is not a DNS name/,
    ],
    ['digits beyond ASCII that become an address', '１０.0.0.1', /is not a DNS name/],
    ['a comma, which Vault would take for two names', 'a,b.example.com', /is not a DNS name/],
    ['a host with a port', 'example.com:443', /is neither an IP address nor a URI/],
    ['an address with a zone', 'fe80::1%eth0', /names a zone/],
    ['a broken address', '2001:db8:::1', /is neither an IP address nor a URI/],
    ['a URI beyond ASCII', 'spiffe://example.org/ü', /in ASCII/],
    ['an email without a host', 'x@', /is not an email address/],
    ['two emails in one', 'x@example.com,y@example.com', /is not an email address/],
  ]
  for (const [why, name, sentence] of names)
    test(why, () => assert.match(z.prettifyError(AltName.safeParse(name).error ?? new z.ZodError([])), sentence))

  test('a common name that is empty, too long or holds a line break', () => {
    for (const name of ['', 'a'.repeat(65), 'a\nb']) assert.equal(CommonName.safeParse(name).success, false)
  })
})

test('config accepts names as long as DNS allows', () => {
  const [label, name] = [`${'a'.repeat(63)}.example.com`, `${'a.'.repeat(126)}a`]
  for (const one of [label, name, `*.${'a.'.repeat(125)}a`]) assert.equal(AltName.parse(one), one)
  assert.equal(name.length, 253)
})

test('config accepts every kind of name', () => {
  for (const name of [
    'localhost',
    '*.example.com',
    '_dmarc.example.com',
    'münchen.example',
    '10.0.0.1',
    '::1',
    'spiffe://example.org/web',
    'urn:uuid:1',
    'x+y@example.com',
  ])
    assert.equal(AltName.parse(name), name)
  for (const name of ['a.example.com', 'Payment Service', 'münchen, "Inc"']) assert.equal(CommonName.parse(name), name)
})

describe('of any text', () => {
  const label = fc.string({ unit: fc.constantFrom(...'abzABZ019-_ü'), minLength: 1, maxLength: 8 })
  const host = fc.array(label, { minLength: 1, maxLength: 3 }).map((labels) => labels.join('.'))
  const text = fc.oneof(
    host,
    host.map((name) => `*.${name}`),
    host.map((name) => `x@${name}`),
    host.map((name) => `spiffe://${name}/web`),
    fc.ipV4(),
    fc.ipV6(),
    fc.string({ unit: 'binary', maxLength: 20 }),
  )
  const kinds = ['dns', 'ip', 'uri', 'email'] as const
  const listed = (names: ReturnType<typeof asked>) => kinds.flatMap((kind) => names[kind])

  test('what is accepted is one name in ASCII, and the same when asked for in the form it was brought into', () => {
    let accepted = 0
    fc.assert(
      fc.property(text, (name) => {
        if (!AltName.safeParse(name).success) return
        accepted += 1
        const names = asked([name])
        const [only = '', ...more] = listed(names)
        assert.deepEqual(more, [])
        assert.match(only, /^[\x21-\x7e]+$/)
        assert.deepEqual(asked([only]), names)
        assert.deepEqual(asked([name, only, name]), names)
      }),
      { numRuns: 500 },
    )
    assert.ok(accepted > 100, `${accepted} accepted`)
  })

  test('two sets differ both ways or not at all', () =>
    fc.assert(
      fc.property(fc.array(text, { maxLength: 4 }), fc.array(text, { maxLength: 4 }), (some, others) => {
        const [one, other] = [asked(some), asked(others)]
        assert.deepEqual(differences(one, asked(some.toReversed())), [])
        const isSame = kinds.every((kind) => isDeepStrictEqual(one[kind].toSorted(), other[kind].toSorted()))
        assert.equal(differences(one, other).length === 0, isSame)
        assert.equal(differences(other, one).length === 0, isSame)
      }),
    ))
})
