import 'reflect-metadata'
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Pkcs10CertificateRequest, SubjectAlternativeNameExtension } from '@peculiar/x509'
import { createCsr } from '../../src/core/csr.ts'
import { generateKey } from '../../src/core/key.ts'
import { sources } from '../../src/sources/index.ts'
import { createSource } from '../sources/contract.ts'

const good = {
  kind: 'acme',
  commonName: 'a.example.com',
  account: { keyFile: '/acme/key.pem' },
  challenge: { kind: 'http-01', webroot: '/www' },
}
const exec = { present: ['/hook'] }

const REFUSED: readonly (readonly [string, object, RegExp])[] = [
  ['a command for http-01', { challenge: { kind: 'http-01', webroot: '/w', exec } }, /has no meaning with http-01/],
  ['listener and folder at once', { challenge: { kind: 'http-01', webroot: '/w', listen: '0.0.0.0:80' } }, /either/],
  ['neither listener nor folder', { challenge: { kind: 'http-01' } }, /needs either listen or webroot/],
  ['a pause that means nothing', { challenge: { kind: 'http-01', webroot: '/w', propagation: '1m' } }, /no meaning/],
  ['a wildcard by http-01', { altNames: ['*.example.com'] }, /must be dns-01/],
  ['an address by dns-01', { altNames: ['192.0.2.1'], challenge: { kind: 'dns-01', exec } }, /cannot be dns-01/],
  [
    'a wildcard by tls-alpn-01',
    { altNames: ['*.example.com'], challenge: { kind: 'tls-alpn-01', listen: '0.0.0.0:443' } },
    /must be dns-01: \*\.example\.com cannot be shown by tls-alpn-01/,
  ],
  [
    'an international wildcard by http-01',
    { altNames: ['*.münchen.example'] },
    /must be dns-01: \*\.xn--mnchen-3ya\.example/,
  ],
  [
    'an address as common name by dns-01',
    { commonName: '2001:db8::1', challenge: { kind: 'dns-01', exec } },
    /cannot be dns-01 for the address 2001:db8::1/,
  ],
  ['a label of 64 characters', { altNames: [`${'a'.repeat(64)}.example.com`] }, /is not a DNS name/],
  ['a name of 254 characters', { altNames: [`${'a.'.repeat(126)}aa`] }, /is not a DNS name/],
  [
    'a common name of 65 characters',
    { commonName: `${'a'.repeat(53)}.example.com` },
    /longer than the 64 characters .*use altNames/,
  ],
  [
    'a common name that is none',
    { commonName: 'Payment Service', altNames: ['a.example.com'] },
    /is no DNS name or IP address/,
  ],
  ['a common name that is an address of another kind', { commonName: 'x@example.com' }, /is no DNS name or IP address/],
  ['no name', { commonName: undefined }, /needs commonName or altNames/],
  ['a URI', { altNames: ['spiffe://example.org/a'] }, /cannot be had by ACME/],
  ['a directory without TLS', { directory: 'http://acme.example.com/dir' }, /https/],
  ['a relative key file', { account: { keyFile: 'key.pem' } }, /absolute/],
]

test('what can be had by ACME is accepted', () => {
  assert.equal(sources.schema.safeParse(good).success, true)
  const wildcard = { ...good, altNames: ['*.example.com'], challenge: { kind: 'dns-01', exec } }
  assert.equal(sources.schema.safeParse(wildcard).success, true)
})

test('an international name is ordered as its A-labels, an address as it is', async () => {
  const altNames = ['münchen.example', 'XN--MNCHEN-3YA.example', '192.0.2.1', '2001:DB8::1']
  const { names } = createSource({ ...good, altNames })
  assert.deepEqual(names, {
    commonName: undefined,
    dns: ['a.example.com', 'xn--mnchen-3ya.example'],
    ip: ['192.0.2.1', '2001:db8::1'],
    uri: [],
    email: [],
  })
  const csr = new Pkcs10CertificateRequest(await createCsr(names, await generateKey('ecdsa-p256')))
  const extension = csr.extensions.find((one) => one instanceof SubjectAlternativeNameExtension)
  assert.deepEqual(
    extension?.names.items.map(({ value }) => value),
    ['a.example.com', 'xn--mnchen-3ya.example', '192.0.2.1', '2001:db8::1'],
  )
})

for (const [what, change, message] of REFUSED)
  test(`${what} is refused`, () => {
    const { error } = sources.schema.safeParse({ ...good, ...change })
    assert.equal(error?.issues.length, 1, JSON.stringify(error?.issues))
    assert.match(JSON.stringify(error?.issues ?? 'accepted'), message)
  })
