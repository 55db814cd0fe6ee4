import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sources } from '../../src/sources/index.ts'

const good = {
  kind: 'acme',
  commonName: 'a.example.com',
  account: { keyFile: '/acme/key.pem' },
  challenge: { kind: 'http-01', webroot: '/www' },
}
const exec = { present: ['/hook'] }

const REFUSED: readonly (readonly [string, object, RegExp])[] = [
  [
    'a command for http-01',
    { challenge: { kind: 'http-01', exec } },
    /exec has no meaning|has no meaning with http-01/,
  ],
  ['listener and folder at once', { challenge: { kind: 'http-01', webroot: '/w', listen: '0.0.0.0:80' } }, /either/],
  ['neither listener nor folder', { challenge: { kind: 'http-01' } }, /needs either listen or webroot/],
  ['a pause that means nothing', { challenge: { kind: 'http-01', webroot: '/w', propagation: '1m' } }, /no meaning/],
  ['a wildcard by http-01', { altNames: ['*.example.com'] }, /must be dns-01/],
  ['an address by dns-01', { altNames: ['192.0.2.1'], challenge: { kind: 'dns-01', exec } }, /cannot be dns-01/],
  ['a URI', { altNames: ['spiffe://example.org/a'] }, /cannot be had by ACME/],
  ['a directory without TLS', { directory: 'http://acme.example.com/dir' }, /https/],
  ['a relative key file', { account: { keyFile: 'key.pem' } }, /absolute/],
]

test('what can be had by ACME is accepted', () => {
  assert.equal(sources.schema.safeParse(good).success, true)
  const wildcard = { ...good, altNames: ['*.example.com'], challenge: { kind: 'dns-01', exec } }
  assert.equal(sources.schema.safeParse(wildcard).success, true)
})

for (const [what, change, message] of REFUSED)
  test(`${what} is refused`, () => {
    const { error } = sources.schema.safeParse({ ...good, ...change })
    assert.match(JSON.stringify(error?.issues ?? 'accepted'), message)
  })
