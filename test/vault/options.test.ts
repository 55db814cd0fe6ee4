import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import * as z from 'zod'
import { encodePath } from '../../src/core/url-path.ts'
import { VaultOptions } from '../../src/vault/options.ts'
import { MountPath, PathSegment } from '../../src/vault/paths.ts'

const auth = { kind: 'token', token: 'hvs.canary' }
const address = 'https://vault.example.com:8200'

/** What the config is told about these options. */
const told = (options: object) => {
  const { error } = VaultOptions.safeParse(options)
  return error ? z.prettifyError(error) : ''
}

describe('vault options', () => {
  test('need an address and a way to log in, and fill in the rest', () => {
    const { auth: _, ...rest } = VaultOptions.parse({ address, auth })
    assert.deepEqual(rest, {
      address,
      addresses: [address],
      redirectHosts: [],
      revokeOnExit: false,
      concurrency: 8,
      timeouts: { connect: 3000, headers: 10_000, body: 10_000, total: 30_000 },
    })
  })

  test('compare redirect hosts as a URL prints them', () =>
    assert.deepEqual(
      VaultOptions.parse({ address, auth, redirectHosts: ['Vault-2:443', '[::1]:8200'] }).redirectHosts,
      ['vault-2', '[::1]:8200'],
    ))

  test('keep the token out of everything that prints', () => {
    const options = VaultOptions.parse({ address, auth })
    assert.doesNotMatch(inspect(options, { depth: 9 }) + JSON.stringify(options), /canary/)
  })

  test('of kubernetes take mount and token file of every pod where nothing is said', () =>
    assert.deepEqual(VaultOptions.parse({ address, auth: { kind: 'kubernetes', role: 'web' } }).auth, {
      kind: 'kubernetes',
      mount: 'kubernetes',
      role: 'web',
      tokenFile: '/var/run/secrets/kubernetes.io/serviceaccount/token',
    }))

  const addresses: [text: string, kept: string | RegExp][] = [
    [address, address],
    [`${address}/`, address],
    ['https://gateway.example.com/vault/', 'https://gateway.example.com/vault'],
    ['http://127.0.0.1:8200', 'http://127.0.0.1:8200'],
    ['http://127.1.2.3:8200', 'http://127.1.2.3:8200'],
    ['http://[::1]:8200', 'http://[::1]:8200'],
    ['http://localhost:8200', 'http://localhost:8200'],
    ['http://vault.example.com:8200', /must use https; http is accepted on a loopback address only/],
    ['http://10.0.0.1:8200', /must use https/],
    ['http://127.0.0.1.example.com:8200', /must use https/],
    ['http://localhost.example.com', /must use https/],
    ['vault.example.com:8200', /must begin with https/],
    ['unix:///run/vault.sock', 'unix:///run/vault.sock'],
    ['unix://run/vault.sock', /must be unix:\/\/ and an absolute path/],
    [`unix:///run/${'x'.repeat(108)}`, /is longer than a socket's path may be/],
    ['unix:/run/vault.sock', /must begin with https/],
    ['', /is not an address/],
    [`${address}?x=1`, /must not have a query/],
    ['https://user:canary@vault.example.com', /^(?!.*canary)(?=.*must not hold a user or password)/s],
  ]
  for (const [text, kept] of addresses)
    test(`${typeof kept === 'string' ? 'accept' : 'refuse'} the address "${text}"`, () => {
      if (typeof kept === 'string') assert.equal(VaultOptions.parse({ address: text, auth }).address, kept)
      else assert.match(told({ address: text, auth }), kept)
    })

  test('take several addresses, of which the first stands for all', () => {
    const { address: first, addresses } = VaultOptions.parse({ address: [`${address}/`, 'https://b:8200'], auth })
    assert.deepEqual([first, addresses], [address, [address, 'https://b:8200']])
  })

  const lists: [given: unknown, sentence: RegExp][] = [
    [[], /must be an address, or a list of addresses/],
    [[5], /must be an address, or a list of addresses/],
    [5, /must be an address, or a list of addresses/],
    [undefined, /is required/],
    [[address, 'http://vault-1'], /"http:\/\/vault-1" must use https.*at address\[1\]/s],
    [[address, `${address}/`], /names the same address twice/],
  ]
  for (const [given, sentence] of lists)
    test(`refuse ${JSON.stringify(given)} for an address`, () => assert.match(told({ address: given, auth }), sentence))

  const wrong: [options: object, sentence: RegExp][] = [
    [{ clientCertFile: '/a' }, /clientCertFile and clientKeyFile need each other[\s\S]*at clientKeyFile/],
    [{ clientKeyFile: '/a' }, /need each other[\s\S]*at clientCertFile/],
    [{ caFile: 'ca.pem' }, /must be an absolute path/],
    [{ caPem: 'canary' }, /^(?!.*canary)(?=.*must begin with a certificate in PEM)/s],
    [{ redirectHosts: ['https://vault-2'] }, /must be a host, or host:port/],
    [{ namespace: 'a b' }, /must be a namespace path/],
    [{ concurrency: 0 }, /at concurrency/],
    [{ timeouts: { connect: '2h' } }, /must be at most 1h/],
    [{ skipVerify: true }, /skipVerify/],
    [{ tokenSink: { file: 'token' } }, /must be an absolute path/],
    [{ tokenSink: { file: '/run/token', mode: '0644' } }, /nothing but reading to the group: '0600' or '0640'/],
    [{ tokenSink: { file: '/run/token', wrapTtl: '10ms' } }, /must be at least 1s/],
    [{ auth: { kind: 'token' } }, /needs either token or tokenFile/],
    [{ auth: { kind: 'token', token: 'x', tokenFile: '/x' } }, /needs either token or tokenFile/],
    [{ auth: { kind: 'token', token: ' ' } }, /must not be empty/],
    [{ auth: { kind: 'token', token: 'x', wrapped: true } }, /needs tokenFile[\s\S]*at auth\.wrapped/],
    [{ auth: { kind: 'approle' } }, /needs either roleId or roleIdFile/],
    [{ auth: { kind: 'approle', roleId: 'x', secretId: 'y', secretIdFile: '/y' } }, /cannot be given together/],
    [{ auth: { kind: 'approle', roleId: 'x', secretId: 'y', secretIdWrapped: true } }, /needs secretIdFile/],
    [{ auth: { kind: 'approle', roleId: 'x', mount: '../sys' } }, /must be a mount path/],
    [{ auth: { kind: 'kubernetes' } }, /at auth\.role/],
    [{ auth: { kind: 'kubernetes', role: 'a/b' } }, /must be a name without slashes/],
    [{ auth: { kind: 'kubernetes', role: 'web', tokenFile: 'token' } }, /must be an absolute path/],
    [{ auth: { kind: 'kubernetes', role: 'web', token: 'x' } }, /token/],
    [{ auth: { kind: 'jwt' } }, /needs either token or tokenFile/],
    [{ auth: { kind: 'jwt', token: 'x', tokenFile: '/x' } }, /needs either token or tokenFile/],
    [{ auth: { kind: 'jwt', token: 'x', mount: 'a//b' } }, /must be a mount path/],
    [{ auth: { kind: 'cert' } }, /kind cert needs clientCertFile and clientKeyFile beside auth[\s\S]*at auth/],
    [{ clientCertFile: '/c', clientKeyFile: '/k', auth: { kind: 'cert', name: 'a/b' } }, /at auth\.name/],
    [{ auth: { kind: 'userpass', password: 'x' } }, /at auth\.username/],
    [{ auth: { kind: 'userpass', username: 'a/b', password: 'x' } }, /must be a name without slashes/],
    [{ auth: { kind: 'userpass', username: 'app' } }, /needs either password or passwordFile/],
    [{ auth: { kind: 'ldap', username: 'app', password: 'x', passwordFile: '/x' } }, /needs either password or/],
    [{ auth: { kind: 'ldap', username: 'app', password: 'a\nb' } }, /nor hold more than one line/],
    [{ auth: { kind: 'aws', region: 'Stockholm' } }, /must be a region such as eu-north-1/],
    [{ auth: { kind: 'aws', serverId: 'a b' } }, /must be what a header can carry/],
    [{ auth: { kind: 'aws', stsAddress: 'http://sts.example.com' } }, /must use https; http is accepted on a loopback/],
    [{ auth: { kind: 'aws', metadataAddress: '169.254.169.254' } }, /must be an address such as http/],
    [{ auth: { kind: 'gcp' } }, /at auth\.role/],
    [{ auth: { kind: 'gcp', role: 'web', serviceAccount: 'a/b' } }, /must be default, or the e-mail address/],
    [{ auth: { kind: 'gcp', role: 'web', metadataAddress: 'http://u:p@x' } }, /must not hold a user or password/],
    [{ auth: { kind: 'azure', role: 'web', metadataAddress: 'http://x/y' } }, /must be the address alone/],
    [{ auth: { kind: 'azure', role: 'web', clientId: 'web' } }, /at auth\.clientId/],
    [{ auth: { kind: 'nosuch' } }, /at auth\.kind/],
  ]
  for (const [options, sentence] of wrong)
    test(`refuse ${JSON.stringify(options)}`, () => assert.match(told({ address, auth, ...options }), sentence))
})

describe('a path in Vault', () => {
  test('keeps its segments, whatever they hold', () =>
    assert.equal(encodePath(['team', 'p?k#i', 'sign', 'wéb role'], 'in Vault'), 'team/p%3Fk%23i/sign/w%C3%A9b%20role'))
  test('that would lead elsewhere is refused', () => {
    for (const bad of ['..', '.', '', 'a/b', 'a\nb', '\0'])
      assert.throws(() => encodePath(['pki', bad], 'in Vault'), { code: 'CONFIG_INVALID' })
  })
  test('of a mount may have several segments', () => {
    assert.equal(MountPath.parse('/team/pki/'), 'team/pki')
    for (const bad of ['', '/', 'a//b', 'pki/../sys', './pki'])
      assert.equal(MountPath.safeParse(bad).success, false, bad)
  })
  test('of a role has one', () => {
    assert.equal(PathSegment.parse('web'), 'web')
    for (const bad of ['', '..', 'a/b']) assert.equal(PathSegment.safeParse(bad).success, false, bad)
  })
})
