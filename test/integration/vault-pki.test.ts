import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { namesOf } from '../../src/core/names.ts'
import type { Vault } from '../../src/vault/client.ts'
import { check, createSource, type SourceUnderTest, sourceContract } from '../sources/contract.ts'
import { skipReason } from '../support/components.ts'
import { signOnly, startVault, type TestVault, WEB_ROLE } from '../support/vault.ts'
import { failure, forever, openVault } from '../vault/support.ts'

const skip = await skipReason('vault')

sourceContract(
  'vault-pki',
  async (): Promise<SourceUnderTest> => {
    const server = await startVault()
    await server.setupPki()
    // Least privilege: this policy and nothing else.
    const token = await server.createToken({ policy: signOnly('pki', 'web') })
    const { vault } = openVault(server.address, { auth: { kind: 'token', token } })
    return {
      options: { kind: 'vault-pki', role: 'web' },
      vault: () => vault,
      [Symbol.asyncDispose]: async () => {
        await vault[Symbol.asyncDispose]()
        await server[Symbol.asyncDispose]()
      },
    }
  },
  { skip },
)

describe('a real PKI mount', { skip }, () => {
  let server: TestVault
  let vault: Vault
  let told: ReturnType<typeof openVault>['told']
  before(async () => {
    server = await startVault()
    await server.setupPki({
      roles: {
        web: WEB_ROLE,
        // These take no name from the CSR.
        body: { ...WEB_ROLE, use_csr_sans: false, use_csr_common_name: false },
        free: {
          allow_any_name: true,
          enforce_hostnames: false,
          cn_validations: ['disabled'],
          key_type: 'any',
          require_cn: false,
          allowed_uri_sans: ['*'],
        },
        rsa: { ...WEB_ROLE, key_type: 'rsa', key_bits: 3072 },
        short: { ...WEB_ROLE, max_ttl: '60s' },
      },
    })
    const opened = openVault(server.address, { auth: { kind: 'token', token: server.rootToken } })
    vault = opened.vault
    told = opened.told
  })
  after(async () => {
    await vault?.[Symbol.asyncDispose]()
    await server?.[Symbol.asyncDispose]()
  })

  const create = (options: object, more: object = {}) =>
    createSource(
      { kind: 'vault-pki', role: 'web', commonName: 'a.example.com', ...options },
      { vault: () => vault, ...more },
    )
  const refused = (options: object) => failure(create(options).fetch(forever))

  test('gives the names asked for where the role ignores those of the CSR', async () => {
    const altNames = ['b.example.com', 'x@example.com', '10.0.0.1', '2001:db8::8', 'spiffe://example.org/web']
    const source = create({ role: 'body', altNames })
    check(await source.fetch(forever), source)
  })

  test('gives email addresses, addresses as common name, free text, and no common name', async () => {
    for (const options of [
      { commonName: 'a.example.com', altNames: ['x@example.com'] },
      { commonName: 'x@example.com' },
      { commonName: '10.0.0.1' },
      { commonName: 'Payment "Service", Inc' },
      { commonName: 'münchen.example' },
      { commonName: undefined, altNames: ['spiffe://example.org/a,b', 'urn:uuid:1'] },
    ]) {
      const source = create({ role: 'free', ...options })
      const bundle = await source.fetch(forever)
      check(bundle, source)
      assert.equal(namesOf(bundle.leaf).commonName, options.commonName)
    }
  })

  test('with method issue makes the key that the role wants', async () => {
    const source = create({ role: 'rsa', method: 'issue' })
    const bundle = await source.fetch(forever)
    check(bundle, source)
    assert.equal(bundle.key.asymmetricKeyDetails?.modulusLength, 3072)
  })

  test('with method issue and a role for any key says what Vault says', async () => {
    const error = await refused({ method: 'issue' })
    assert.equal(error.code, 'REQUEST_REJECTED')
    assert.match(error.message, /role key type "any" not allowed for issuing certificates, only signing/)
  })

  test('V17 says that the role, the mount or the issuer is missing', async () => {
    assert.equal((await refused({ role: 'nosuch' })).code, 'ROLE_MISSING')
    assert.equal((await refused({ mount: 'nosuch' })).code, 'MOUNT_MISSING')
    assert.equal((await refused({ mount: 'sys' })).code, 'MOUNT_MISSING')
    assert.equal((await refused({ issuerRef: 'nosuch' })).code, 'ISSUER_MISSING')
    await server.api('POST', 'sys/mounts/empty', { type: 'pki' })
    await server.api('POST', 'empty/roles/web', WEB_ROLE)
    assert.equal((await refused({ mount: 'empty' })).code, 'ISSUER_MISSING')
  })

  test('V18 says which name the role does not allow', async () => {
    const error = await refused({ altNames: ['evil.example.org'] })
    assert.equal(error.code, 'REQUEST_REJECTED')
    assert.equal(
      error.message,
      'Vault refused POST pki/sign/web (400): subject alternate name evil.example.org not allowed by this role',
    )
    assert.equal((await refused({ altNames: ['spiffe://example.net/web'] })).code, 'REQUEST_REJECTED')
  })

  test('V26 a TTL that the role cuts down is told as a warning', async () => {
    const { notAfter, receivedAt } = await create({ role: 'short', ttl: '2h' }).fetch(forever)
    assert.ok(notAfter - receivedAt <= 61_000)
    assert.ok(
      told.onWarning.some(({ message }) => /^pki\/sign\/short: TTL .* is longer than permitted maxTTL/.test(message)),
    )
  })

  test('V27 says that the CA ends before the certificate would', async () => {
    await server.api('POST', 'sys/mounts/ending', { type: 'pki', config: { max_lease_ttl: '87600h' } })
    await server.api('POST', 'ending/root/generate/internal', { common_name: 'ending', ttl: '1h', key_type: 'ec' })
    await server.api('POST', 'ending/roles/web', WEB_ROLE)
    assert.equal((await refused({ mount: 'ending', ttl: '2h' })).code, 'CA_EXPIRING')
  })

  test('a mount that is its own root gives a chain without intermediates', async () => {
    await server.api('POST', 'pki-root/roles/web', WEB_ROLE)
    const source = create({ mount: 'pki-root' })
    const bundle = await source.fetch(forever)
    check(bundle, source)
    assert.deepEqual([bundle.intermediates.length, bundle.roots.length], [0, 1])
  })

  test('V23 completes a chain that Vault was told to give without its root', async () => {
    const source = create({ removeRootsFromChain: true })
    check(await source.fetch(forever), source)
  })

  test('V23 a mount whose root is elsewhere gives a chain without it', async () => {
    await server.setupPki({ mount: 'online', withRoot: false })
    const source = create({ mount: 'online' })
    const bundle = await source.fetch(forever)
    assert.deepEqual([bundle.intermediates.length, bundle.roots.length], [1, 0])
    assert.throws(() => check(bundle, source), { code: 'CHAIN_INVALID' })
  })

  test('issues with the issuer that is named', async () => {
    const { data } = await server.api('GET', 'pki/config/issuers')
    const issuerRef = String(data?.default)
    const source = create({ issuerRef })
    check(await source.fetch(forever), source)
    assert.ok((await server.audited()).some(({ path }) => path === `pki/issuer/${issuerRef}/sign/web`))
  })

  test('answers what the doctor asks', async () => {
    const health = await vault.health(forever)
    assert.deepEqual(
      { ...health, version: '' },
      { usable: true, initialized: true, sealed: false, standby: false, version: '' },
    )
    assert.match(health.version, /^\d+\.\d+\.\d+/)
    assert.deepEqual((await vault.lookupSelf(forever))?.policies, ['root'])
    const role = await vault.readRole('pki', 'web', forever)
    assert.deepEqual(
      [role?.allowedDomains, role?.maxTtlSeconds, role?.allowSubdomains],
      [['example.com'], 259_200, true],
    )
    const token = await server.createToken({ policy: signOnly('pki', 'web') })
    const { vault: limited } = openVault(server.address, { auth: { kind: 'token', token } })
    await using _ = limited
    assert.deepEqual(await limited.capabilities(['pki', 'sign', 'web'], forever), ['update'])
    assert.deepEqual(await limited.capabilities(['pki', 'sign', 'other'], forever), ['deny'])
    assert.equal(await limited.readRole('pki', 'web', forever), undefined)
  })

  test('V18 doctor knows that Vault makes no key for a role with key_type any', async () => {
    const options = { kind: 'vault-pki', role: 'web', commonName: 'a.example.com', method: 'issue' }
    const source = createSource(options, { vault: () => vault })
    assert.equal((await failure(source.fetch(forever))).code, 'REQUEST_REJECTED')
    assert.deepEqual(
      (await source.examine(forever)).map(({ ok, what }) => [ok, what]),
      [
        [true, 'the policy allows POST pki/issue/web'],
        [false, 'Vault makes no key for a role with key_type any'],
      ],
    )
  })
})
