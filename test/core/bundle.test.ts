import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  assertUsable,
  certificatePem,
  configMismatch,
  type Expectation,
  parseCertificates,
  toBundle,
} from '../../src/core/bundle.ts'
import { requestedNames } from '../../src/core/names.ts'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { createTestCa } from '../support/ca.ts'

const ca = await createTestCa()
const lenient: Expectation = { minTtlMs: 1000, chain: 'complete' }
const failsWith = (code: ErrorCode, pattern: RegExp) => (error: unknown) =>
  error instanceof SidecarError && error.code === code && pattern.test(error.message)

describe('toBundle', () => {
  it('orders the chain from the leaf up, drops what is off the path, and keeps roots apart', async () => {
    const issued = await ca.issue({ commonName: 'web.test', withIntermediate: true })
    const stranger = await (await createTestCa({ commonName: 'Stranger Root' })).issue({ withIntermediate: true })
    const [intermediate = '', root = ''] = issued.chainPems
    const bundle = toBundle({
      certificate: issued.certificatePem,
      issuers: [root, ...stranger.chainPems.slice(0, 1), intermediate, intermediate],
      key: issued.keyPem,
      origin: 'test',
      receivedAt: Date.now(),
    })
    assert.deepEqual(bundle.intermediates.map(certificatePem), parseCertificates(intermediate).map(certificatePem))
    assert.deepEqual(bundle.roots.map(certificatePem), parseCertificates(root).map(certificatePem))
  })

  it('refuses a key that belongs to another certificate', async () => {
    const [one, other] = [await ca.issue(), await ca.issue()]
    assert.throws(
      () =>
        toBundle({ certificate: one.certificatePem, issuers: [], key: other.keyPem, origin: 'test', receivedAt: 0 }),
      failsWith('KEY_MISMATCH', /does not belong to its private key/),
    )
  })

  const hostile: [string, string][] = [
    ['nothing', ''],
    ['no PEM', 'hello'],
    ['PEM that is no certificate', '-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----'],
    ['a certificate cut short', '-----BEGIN CERTIFICATE-----\nMIIB'],
  ]
  for (const [what, certificate] of hostile) {
    it(`refuses ${what}`, async () => {
      const { keyPem } = await ca.issue()
      assert.throws(
        () => toBundle({ certificate, issuers: [], key: keyPem, origin: 'test', receivedAt: 0 }),
        failsWith('BAD_RESPONSE', /./),
      )
    })
  }

  it('refuses a certificate whose public key does not parse, which would end Node', async () => {
    const { certificatePem: certificate, keyPem } = await ca.issue({ algorithm: 'ed25519' })
    const der = Buffer.from(parseCertificates(certificate)[0]?.raw ?? '')
    // 1.3.101.112 becomes 1.3.101.127, which no algorithm has.
    der[der.indexOf(Buffer.from('06032b6570', 'hex')) + 4] = 127
    const broken = `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`
    assert.throws(
      () => toBundle({ certificate: broken, issuers: [], key: keyPem, origin: 'test', receivedAt: 0 }),
      failsWith('BAD_RESPONSE', /does not parse/),
    )
  })

  for (const [which, month] of [
    ['begins', 0],
    ['ends', 1],
  ] as const)
    it(`refuses a certificate that ${which} in a thirteenth month, with which no time compares`, async () => {
      const { certificatePem: certificate, keyPem } = await ca.issue()
      const der = Buffer.from(parseCertificates(certificate)[0]?.raw ?? '')
      // With the first digit of the year, or random bytes of the serial number might be taken for it.
      const UTC_TIME = Buffer.from([0x17, 13, 0x32])
      const begin = der.indexOf(UTC_TIME)
      der.write('13', (month === 0 ? begin : der.indexOf(UTC_TIME, begin + 1)) + 4, 'latin1')
      const broken = `-----BEGIN CERTIFICATE-----\n${der.toString('base64')}\n-----END CERTIFICATE-----\n`
      assert.throws(
        () => toBundle({ certificate: broken, issuers: [], key: keyPem, origin: 'test', receivedAt: 0 }),
        failsWith('BAD_RESPONSE', /does not parse/),
      )
    })

  it('does not repeat a private key that does not parse', async () => {
    const { certificatePem: certificate } = await ca.issue()
    const key = '-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----'
    assert.throws(
      () => toBundle({ certificate, issuers: [], key, origin: 'test', receivedAt: 0 }),
      (error: unknown) => {
        assert.ok(error instanceof SidecarError && error.code === 'BAD_RESPONSE')
        assert.doesNotMatch(`${error.stack}${String(error.cause)}`, /canary/)
        return true
      },
    )
  })

  it('passes on nothing of the received text: headers, comments and blank lines around a PEM are gone', async () => {
    const { certificatePem: clean, keyPem } = await ca.issue()
    const bundle = toBundle({
      certificate: `evil: header\r\n\r\n${clean.replaceAll('\n', '\r\n')}\n# comment`,
      issuers: [],
      key: keyPem,
      origin: 'test',
      receivedAt: 0,
    })
    assert.equal(certificatePem(bundle.leaf), clean.endsWith('\n') ? clean : `${clean}\n`)
  })
})

describe('assertUsable', () => {
  const now = Date.now()
  const names = (commonName: string, altNames: string[] = []) =>
    requestedNames({ commonName, altNames, excludeCnFromSans: false })

  it('accepts a good bundle, with and without an intermediate', async () => {
    for (const withIntermediate of [false, true]) {
      const { bundle } = await ca.issue({
        commonName: 'web.test',
        altNames: ['web.test', '127.0.0.1', 'api.test'],
        withIntermediate,
      })
      assertUsable(
        bundle,
        { ...lenient, names: names('web.test', ['API.test', '127.0.0.1']), algorithm: 'ecdsa-p256' },
        now,
      )
    }
  })

  const rows: [string, ErrorCode, RegExp, Parameters<typeof ca.issue>[0], Partial<Expectation>][] = [
    [
      'a name is missing',
      'NAMES_MISMATCH',
      /dns lacks api\.test/,
      { commonName: 'web.test' },
      { names: names('web.test', ['api.test']) },
    ],
    [
      'a name is there that nobody asked for',
      'NAMES_MISMATCH',
      /dns has evil\.test besides/,
      { commonName: 'web.test', altNames: ['web.test', 'evil.test'] },
      { names: names('web.test') },
    ],
    [
      'the common name differs',
      'NAMES_MISMATCH',
      /common name is web\.test, wanted api\.test/,
      { commonName: 'web.test', altNames: ['api.test'] },
      { names: names('api.test') },
    ],
    [
      'a name holds what could forge a line',
      'NAMES_MISMATCH',
      /common name is evil\\x1b\[2K, wanted web\.test$/,
      { commonName: 'evil\u001b[2K', altNames: ['web.test'] },
      { names: names('web.test') },
    ],
    [
      'the key algorithm differs',
      'POLICY_REJECT',
      /has an ecdsa-p256 key, wanted rsa-2048/,
      {},
      { algorithm: 'rsa-2048' },
    ],
    [
      'it has expired',
      'CERTIFICATE_EXPIRED',
      /expired at/,
      { notBefore: new Date(now - 7_200_000), notAfter: new Date(now - 1000) },
      {},
    ],
    ['it is not valid yet', 'NOT_YET_VALID', /is valid from/, { notBefore: new Date(now + 60_000) }, {}],
    [
      'it lives too short',
      'TTL_TOO_SHORT',
      /lives \d+ s, less than check\.minTtl of 7200 s/,
      {},
      { minTtlMs: 7_200_000 },
    ],
  ]
  for (const [claim, code, message, request, expectation] of rows) {
    it(`refuses when ${claim}`, async () => {
      const { bundle } = await ca.issue({ commonName: 'web.test', ...request })
      assert.throws(() => assertUsable(bundle, { ...lenient, ...expectation }, now), failsWith(code, message))
    })
  }

  it('tolerates a notBefore up to 30 s ahead: clocks differ', async () => {
    const { bundle } = await ca.issue({ notBefore: new Date(now + 20_000) })
    assertUsable(bundle, lenient, now)
  })

  it('refuses a chain without its root, unless lenient; and an unknown root, when anchors are given', async () => {
    const issued = await ca.issue({ withIntermediate: true })
    const rootless = { ...issued.bundle, roots: [] }
    assert.throws(() => assertUsable(rootless, lenient, now), failsWith('CHAIN_INVALID', /no trusted root/))
    assertUsable(rootless, { ...lenient, chain: 'lenient' }, now)
    assertUsable(rootless, { ...lenient, anchors: [ca.root] }, now)
    const foreign = (await createTestCa()).root
    assert.throws(
      () => assertUsable(issued.bundle, { ...lenient, anchors: [foreign] }, now),
      failsWith('CHAIN_INVALID', /no trusted root/),
    )
    assert.throws(
      () => assertUsable({ ...issued.bundle, intermediates: [] }, lenient, now),
      failsWith('CHAIN_INVALID', /no trusted root/),
    )
  })

  it('refuses a certificate that outlives its CA', async () => {
    const { bundle } = await ca.issue({ notAfter: new Date(Date.now() + 20 * 365 * 86_400_000) })
    assert.throws(() => assertUsable(bundle, lenient, now), failsWith('CA_EXPIRING', /after its CA "CN=Test Root"/))
  })

  it('goes by the issuer that ends last, of those that were renewed with their key, wherever they stand', () => {
    const folder = mkdtempSync(join(tmpdir(), 'certferry-renewed-'))
    const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'ignore' })
    const text = (name: string) => readFileSync(join(folder, name), 'utf8')
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    const ask = (name: string) =>
      openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`)
    const sign = (name: string, by: string, out: string, days: string, ...more: string[]) =>
      openssl(
        'x509',
        '-req',
        '-in',
        `${name}.csr`,
        ...(by === name ? ['-key', `${by}.key`] : ['-CA', `${by}.old`, '-CAkey', `${by}.key`]),
        '-days',
        days,
        '-out',
        out,
        ...more,
      )
    try {
      writeFileSync(join(folder, 'ca.ext'), 'basicConstraints=critical,CA:TRUE')
      for (const name of ['root', 'between', 'leaf']) ask(name)
      for (const [out, days] of [
        ['old', '1'],
        ['new', '90'],
      ] as const) {
        sign('root', 'root', `root.${out}`, days, '-extfile', 'ca.ext')
        sign('between', 'root', `between.${out}`, days, '-extfile', 'ca.ext')
      }
      sign('leaf', 'between', 'leaf.pem', '30')
      const [old, renewed] = [text('between.old') + text('root.old'), text('between.new') + text('root.new')]
      for (const issuers of [
        [old, renewed],
        [renewed, old],
      ]) {
        const made = { certificate: text('leaf.pem'), issuers, key: text('leaf.key'), origin: 'test', receivedAt: now }
        const bundle = toBundle(made)
        assert.doesNotThrow(() => assertUsable(bundle, lenient, now))
        assert.deepEqual([bundle.intermediates.length, bundle.unrelated], [1, undefined])
      }
      const made = {
        certificate: text('leaf.pem'),
        issuers: [old],
        key: text('leaf.key'),
        origin: 'test',
        receivedAt: now,
      }
      assert.throws(() => assertUsable(toBundle(made), lenient, now), failsWith('CA_EXPIRING', /after its CA/))
    } finally {
      rmSync(folder, { recursive: true })
    }
  })

  it('refuses weak keys, weak signatures and CA certificates', () => {
    const make = (...options: string[]) => {
      const text = execFileSync(
        'openssl',
        [
          'req',
          '-x509',
          '-newkey',
          'rsa:2048',
          '-nodes',
          '-subj',
          '/CN=weak.test',
          '-days',
          '2',
          '-keyout',
          '-',
          ...options,
        ],
        { stdio: ['ignore', 'pipe', 'ignore'] },
      ).toString()
      return toBundle({ certificate: text, issuers: [text], key: text, origin: 'test', receivedAt: now })
    }
    const leaf = ['-addext', 'basicConstraints=critical,CA:FALSE']
    assert.throws(
      () => assertUsable(make('-newkey', 'rsa:1024', ...leaf), { ...lenient, chain: 'lenient' }, now),
      failsWith('POLICY_REJECT', /RSA key of 1024 bits/),
    )
    assert.throws(
      () => assertUsable(make('-sha1', ...leaf), { ...lenient, chain: 'lenient' }, now),
      failsWith('POLICY_REJECT', /is signed with/),
    )
    assert.throws(
      () => assertUsable(make(), { ...lenient, chain: 'lenient' }, now),
      failsWith('POLICY_REJECT', /is a CA certificate/),
    )
  })
})

it('refuses a certificate that TLS clients would refuse in a server', () => {
  const options = ['-addext', 'basicConstraints=critical,CA:FALSE', '-addext', 'extendedKeyUsage=clientAuth']
  const text = execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-subj',
      '/CN=client.test',
      '-days',
      '2',
      '-keyout',
      '-',
      ...options,
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  ).toString()
  const bundle = toBundle({ certificate: text, issuers: [], key: text, origin: 'test', receivedAt: Date.now() })
  const expect: Expectation = { ...lenient, chain: 'lenient' }
  assertUsable(bundle, expect, Date.now())
  assert.throws(
    () => assertUsable(bundle, { ...expect, serverAuth: true }, Date.now()),
    failsWith('POLICY_REJECT', /is not for servers \(extended key usage 1\.3\.6\.1\.5\.5\.7\.3\.2\)/),
  )
})

it('refuses a chain through what is no CA', async () => {
  const { bundle } = await ca.issue({ withIntermediate: true })
  const [leafAsIssuer] = [bundle.leaf]
  assert.throws(
    () =>
      assertUsable(
        { ...bundle, intermediates: [...bundle.intermediates, leafAsIssuer] },
        { ...lenient, chain: 'lenient' },
        Date.now(),
      ),
    failsWith('CHAIN_INVALID', /is no CA/),
  )
})

it('does not let hundreds of issuers keep the process busy', async () => {
  const issued = await ca.issue()
  const strangers = await Promise.all(Array.from({ length: 21 }, () => createTestCa()))
  assert.throws(
    () =>
      toBundle({
        certificate: issued.certificatePem,
        issuers: strangers.map(({ rootPem }) => rootPem),
        key: issued.keyPem,
        origin: 'test',
        receivedAt: 0,
      }),
    failsWith('BAD_RESPONSE', /21 issuers came with certificate/),
  )
})

it('configMismatch says in words what a certificate on disk lacks', async () => {
  const { bundle } = await ca.issue({ commonName: 'web.test' })
  const wanted = requestedNames({ commonName: 'web.test', altNames: ['www.web.test'], excludeCnFromSans: false })
  assert.equal(configMismatch(bundle, { names: wanted })?.message, 'dns lacks www.web.test')
  assert.equal(configMismatch(bundle, {}), undefined)
})

describe('of any text', async () => {
  const issued = await ca.issue({ commonName: 'web.test', withIntermediate: true })
  const whole = [issued.certificatePem, ...issued.chainPems]
  const receivedAt = Date.now()
  const junk = fc.string({ unit: fc.constantFrom(...'aZ09 -:=\n'), maxLength: 30 })

  it('certificates are found in their order, whatever stands between them', () =>
    fc.assert(
      fc.property(fc.array(fc.tuple(junk, fc.constantFrom(...whole)), { maxLength: 5 }), junk, (parts, end) => {
        const text = parts.map(([before, pem]) => `${before}\n${pem}`).join('') + end
        const expected = parts.map(([, pem]) => parseCertificates(pem).map(certificatePem).join())
        assert.deepEqual(parseCertificates(text).map(certificatePem), expected)
      }),
    ))

  it('a chain is the same in whatever order, and however often, its certificates come', () => {
    const chainOf = (issuers: readonly string[]) =>
      toBundle({ certificate: issued.certificatePem, issuers, key: issued.keyPem, origin: 'test', receivedAt })
    const { intermediates, roots } = chainOf(issued.chainPems)
    const orders = fc.array(fc.constantFrom(...whole), { maxLength: 6 })
    fc.assert(
      fc.property(orders, fc.nat(6), (more, at) => {
        const bundle = chainOf([...more.slice(0, at), ...issued.chainPems.toReversed(), ...more.slice(at)])
        assert.deepEqual(bundle.intermediates.map(certificatePem), intermediates.map(certificatePem))
        assert.deepEqual(bundle.roots.map(certificatePem), roots.map(certificatePem))
      }),
      { numRuns: 50 },
    )
  })

  it('what is damaged is refused with its reason, or the same key and certificate', () => {
    const damages = fc.record({ at: fc.nat(999), cut: fc.nat(20), put: junk })
    const change = (text: string, { at, cut, put }: { at: number; cut: number; put: string }) => {
      const start = Math.floor((at / 1_000) * text.length)
      return text.slice(0, start) + put + text.slice(start + cut)
    }
    fc.assert(
      fc.property(damages, damages, fc.boolean(), (one, other, isKeyToo) => {
        const certificate = change(issued.certificatePem, one)
        const key = isKeyToo ? change(issued.keyPem, other) : issued.keyPem
        try {
          const bundle = toBundle({ certificate, issuers: [], key, origin: 'test', receivedAt })
          assert.ok(bundle.leaf.checkPrivateKey(bundle.key))
        } catch (error) {
          assert.ok(error instanceof SidecarError, String(error))
          assert.ok(['BAD_RESPONSE', 'KEY_MISMATCH'].includes(error.code), error.code)
        }
      }),
      { numRuns: 300 },
    )
  })
})
