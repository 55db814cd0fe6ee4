import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { createVault, type Vault } from '../../src/vault/client.ts'
import { createTestCa, type TestCa } from '../support/ca.ts'
import { answer, type FaultProxy, type SeenRequest, startFaultProxy } from '../support/fault-proxy.ts'
import { answering, failure, recorder, vaultOptions } from '../vault/support.ts'
import { check, createSource, type SourceUnderTest, sourceContract } from './contract.ts'

const forever = new AbortController().signal

/** A small Vault, whose PKI mount signs what it is sent. */
async function startSmallVault(ca: TestCa): Promise<{ server: FaultProxy; vault: Vault } & AsyncDisposable> {
  const server = await startFaultProxy(answering(() => answer(500)))
  const sign = async ({ body }: SeenRequest) => {
    const { csr, ttl = '3600s' }: { csr: string; ttl?: string } = JSON.parse(body)
    const notAfter = new Date(Date.now() + Number.parseInt(ttl, 10) * 1000)
    return ca.sign(csr, { withIntermediate: true, notAfter })
  }
  server.onRequest = async (seen) => {
    if (!seen.url.endsWith('/sign/web')) return answering(answer(404, { errors: [] }))(seen)
    const { certificatePem, chainPems } = await sign(seen)
    const data = { certificate: certificatePem, issuing_ca: chainPems[0], ca_chain: chainPems }
    return answer(200, { data, warnings: null })
  }
  const vault = createVault(vaultOptions(server.address), recorder(systemClock).deps)
  return {
    server,
    vault,
    [Symbol.asyncDispose]: async () => {
      await vault[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
    },
  }
}

sourceContract(
  'vault-pki',
  async (): Promise<SourceUnderTest> => {
    const small = await startSmallVault(await createTestCa())
    return {
      options: { kind: 'vault-pki', role: 'web' },
      vault: () => small.vault,
      [Symbol.asyncDispose]: () => small[Symbol.asyncDispose](),
    }
  },
  { algorithms: ['ecdsa-p256', 'ecdsa-p384', 'ed25519', 'rsa-2048'] },
)

describe('a request of source vault-pki', () => {
  let ca: TestCa
  let small: Awaited<ReturnType<typeof startSmallVault>>
  let whole: FaultProxy['onRequest']
  before(async () => {
    ca = await createTestCa()
    small = await startSmallVault(ca)
    whole = small.server.onRequest
  })
  after(() => small[Symbol.asyncDispose]())

  const create = (options: object = {}) => {
    small.server.requests.length = 0
    small.server.onRequest = whole
    const base = { kind: 'vault-pki', role: 'web', commonName: 'a.example.com' }
    return createSource({ ...base, ...options }, { vault: () => small.vault })
  }
  /** The source meets this answer instead of a signed certificate. */
  const meeting = (body: object, options: object = {}) => {
    const source = create(options)
    small.server.onRequest = (seen) => (/\/(?:sign|issue)\//.test(seen.url) ? answer(200, body) : whole(seen))
    return source
  }
  const sent = (): Record<string, unknown> =>
    JSON.parse(small.server.requests.find(({ method }) => method === 'POST')?.body ?? '{}')

  test('sends every name by itself, and never lets Vault add the common name', async () => {
    const altNames = ['b.example.com', 'x@example.com', '10.0.0.1', '::1', 'spiffe://example.org/a,b']
    const source = create({ altNames, ttl: '72h', removeRootsFromChain: true })
    await source.fetch(forever)
    const { csr, ...rest } = sent()
    assert.match(String(csr), /^-----BEGIN CERTIFICATE REQUEST-----\n/)
    assert.deepEqual(rest, {
      common_name: 'a.example.com',
      alt_names: 'a.example.com,b.example.com,x@example.com',
      ip_sans: ['10.0.0.1', '::1'],
      uri_sans: ['spiffe://example.org/a,b'],
      exclude_cn_from_sans: true,
      ttl: '259200s',
      format: 'pem',
      remove_roots_from_chain: true,
    })
  })

  test('leaves out what the config leaves to the role', async () => {
    await create({ commonName: undefined, altNames: ['spiffe://example.org/web'] }).fetch(forever)
    assert.deepEqual(Object.keys(sent()).sort(), [
      'alt_names',
      'csr',
      'exclude_cn_from_sans',
      'format',
      'ip_sans',
      'uri_sans',
    ])
  })

  test('sends no private key', async () => {
    await create().fetch(forever)
    assert.doesNotMatch(JSON.stringify(small.server.requests), /PRIVATE/)
  })

  test('names mount and issuer in its origin, so that a change of either makes a certificate due', () => {
    assert.equal(create().origin, `vault-pki ${small.server.address} pki`)
    assert.equal(
      create({ mount: 'team/pki', issuerRef: 'main' }).origin,
      `vault-pki ${small.server.address} team/pki/issuer/main`,
    )
  })

  test('with method issue takes the key from Vault, whatever its algorithm', async () => {
    const { certificatePem, chainPems, keyPem } = await ca.issue({ commonName: 'a.example.com', algorithm: 'rsa-2048' })
    const data = { certificate: certificatePem, issuing_ca: chainPems[0], ca_chain: chainPems, private_key: keyPem }
    const source = meeting({ data }, { method: 'issue' })
    const bundle = await source.fetch(forever)
    assert.equal(source.algorithm, undefined)
    check(bundle, source)
    assert.equal(small.server.requests[0]?.url, '/v1/pki/issue/web')
    assert.equal(sent().csr, undefined)
  })

  test('V22 refuses a certificate that belongs to another key', async () => {
    const { certificatePem, chainPems } = await ca.issue({ commonName: 'a.example.com' })
    const source = meeting({ data: { certificate: certificatePem, issuing_ca: chainPems[0], ca_chain: chainPems } })
    assert.equal((await failure(source.fetch(forever))).code, 'KEY_MISMATCH')
  })

  test('V28 refuses an answer that holds no certificate, or no key where one was asked for', async () => {
    const { certificatePem } = await ca.issue()
    const rows: [object, object][] = [
      [{ certificate: 'PEM' }, {}],
      [{ certificate: '-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----' }, {}],
      [{ certificate: certificatePem }, { method: 'issue' }],
      [{ certificate: certificatePem, private_key: 'canary' }, { method: 'issue' }],
    ]
    for (const [data, options] of rows) {
      const error = await failure(meeting({ data }, options).fetch(forever))
      assert.equal(error.code, 'BAD_RESPONSE')
      assert.doesNotMatch(error.message, /canary/)
    }
  })

  describe('V23 when the answer lacks the root', () => {
    /** Signs, leaves the root out, and says this when asked for the issuer. */
    const withoutRoot = (issuer: (chainPems: readonly string[]) => ReturnType<typeof answer>) => {
      const source = create()
      let chain: readonly string[] = []
      small.server.onRequest = async (seen) => {
        if (seen.url === '/v1/pki/issuer/default/json') return issuer(chain)
        if (!seen.url.endsWith('/sign/web')) return whole(seen)
        const { csr }: { csr: string } = JSON.parse(seen.body)
        const { certificatePem, chainPems } = await ca.sign(csr, { withIntermediate: true })
        chain = chainPems
        return answer(200, {
          data: { certificate: certificatePem, issuing_ca: chainPems[0], ca_chain: [chainPems[0]] },
        })
      }
      return source
    }

    test('asks the mount for it, without a token', async () => {
      const source = withoutRoot((chain) => answer(200, { data: { certificate: chain[0], ca_chain: chain } }))
      check(await source.fetch(forever), source)
      const asked = small.server.requests.at(-1)
      assert.deepEqual([asked?.url, asked?.headers['x-vault-token']], ['/v1/pki/issuer/default/json', undefined])
    })

    test('does not waste the certificate when the mount will not tell', async () => {
      for (const reply of [answer(403, { errors: ['permission denied'] }), answer(500), answer(200, '<html>')]) {
        const bundle = await withoutRoot(() => reply).fetch(forever)
        assert.deepEqual([bundle.intermediates.length, bundle.roots.length], [1, 0])
      }
    })

    test('takes no root that did not sign the chain', async () => {
      const { rootPem } = await createTestCa({ commonName: 'Foreign Root' })
      const source = withoutRoot(() => answer(200, { data: { certificate: rootPem, ca_chain: [rootPem] } }))
      assert.deepEqual((await source.fetch(forever)).roots, [])
    })
  })
})
