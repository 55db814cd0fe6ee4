import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Names } from '../../src/core/names.ts'
import { examineRole, type Wish } from '../../src/sources/pki-role.ts'
import { PkiRole } from '../../src/vault/pki.ts'

const names = (more: Partial<Names>): Names => ({ commonName: undefined, dns: [], ip: [], uri: [], email: [], ...more })
const WISH: Wish = { names: names({ dns: ['a.example.com'] }), ttlMs: 3_600_000, algorithm: 'ecdsa-p256' }
const ROLE = { allowed_domains: ['example.com'], allow_subdomains: true, key_type: 'any', max_ttl: 7200 }

const found = (role: object, wish: Partial<Wish>) =>
  examineRole(PkiRole.parse({ data: { ...ROLE, ...role } }), { ...WISH, ...wish }).map(({ what }) => what)

describe('the doctor compares with the role', () => {
  const rows: readonly (readonly [claim: string, role: object, wish: Partial<Wish>, troubles: readonly string[]])[] = [
    ['what it allows', {}, {}, []],
    [
      'a name of another domain',
      {},
      { names: names({ dns: ['a.example.org'] }) },
      ['the role does not allow a.example.org'],
    ],
    ['a common name', {}, { names: names({ commonName: 'b.org' }) }, ['the role does not allow b.org']],
    ['a subdomain', { allow_subdomains: false }, {}, ['the role does not allow a.example.com']],
    ['a bare domain', {}, { names: names({ dns: ['example.com'] }) }, ['the role does not allow example.com']],
    ['a glob', { allowed_domains: ['*.example.com'], allow_glob_domains: true }, {}, []],
    ['any name', { allow_any_name: true }, { names: names({ dns: ['a.example.org'] }) }, []],
    [
      'an address',
      { allow_ip_sans: false },
      { names: names({ ip: ['10.0.0.1'] }) },
      ['the role allows no IP addresses'],
    ],
    ['a URI', {}, { names: names({ uri: ['spiffe://a/b'] }) }, ['the role allows no URIs']],
    ['a ttl that is too long', {}, { ttlMs: 10_800_000 }, ['the role cuts the ttl of 3h down to 2h']],
    [
      'a key of another type',
      { key_type: 'rsa', key_bits: 2048 },
      {},
      ['the role wants keys of type rsa 2048, not ecdsa-p256'],
    ],
    ['a larger key', { key_type: 'ec', key_bits: 256 }, { algorithm: 'ecdsa-p384' }, []],
    ['a key that Vault is to make', { key_type: 'ec' }, { algorithm: undefined }, []],
    [
      'a key that Vault is to make, of any type',
      {},
      { algorithm: undefined },
      ['Vault makes no key for a role with key_type any'],
    ],
  ]
  for (const [claim, role, wish, troubles] of rows)
    test(`${claim}: ${troubles[0] ?? 'allowed'}`, () => {
      assert.deepEqual(found(role, wish), troubles)
    })
})
