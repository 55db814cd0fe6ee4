import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { after, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { type Bundle, toBundle } from '../../src/core/bundle.ts'
import { bundleFile } from '../../src/outputs/bundle-file.ts'
import { createCheck } from '../../src/revocation/check.ts'
import { askOcsp, readOcsp } from '../../src/revocation/ocsp.ts'
import { stapling } from '../../src/revocation/stapling.ts'
import type { Source } from '../../src/sources/source.ts'

const run = promisify(execFile)
const never = new AbortController().signal
const folder = mkdtempSync(join(tmpdir(), 'certferry-ocsp-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const at = (name: string) => join(folder, name)
const openssl = (...args: string[]) => run('openssl', args, { cwd: folder })
const pemOf = (name: string) => readFileSync(at(name), 'utf8')

/** OpenSSL as a CA: three certificates of one issuer, two of which may sign responses, and somebody else. */
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
const root = (name: string) =>
  openssl('req', '-x509', ...EC, '-keyout', `${name}.key`, '-out', `${name}.pem`, '-days', '30', '-subj', `/CN=${name}`)
async function issue(name: string, extension: string, serial: string): Promise<void> {
  await openssl('req', ...EC, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}.example.com`)
  writeFileSync(at(`${name}.ext`), extension)
  const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-set_serial', serial, '-days', '10', '-extfile', `${name}.ext`]
  await openssl('x509', '-req', '-in', `${name}.csr`, '-out', `${name}.pem`, ...by)
}
await Promise.all([root('ca'), root('stranger')])
await issue('leaf', 'subjectAltName=DNS:leaf.example.com', '0x10')
await issue('other', 'subjectAltName=DNS:other.example.com', '0x11')
await issue('delegate', 'extendedKeyUsage=OCSPSigning', '0x12')
await issue('pretender', 'extendedKeyUsage=serverAuth', '0x13')

/** What the responder knows: the status of `leaf`. */
function know(status: 'V' | 'R'): void {
  const line = (serial: string) =>
    status === 'V'
      ? `V\t401231235959Z\t\t${serial}\tunknown\t/CN=${serial}\n`
      : `R\t401231235959Z\t260101000000Z,keyCompromise\t${serial}\tunknown\t/CN=${serial}\n`
  writeFileSync(at('index.txt'), line('10') + line('11'))
}
know('V')

interface Signing {
  readonly by?: string
  readonly of?: string
  readonly more?: readonly string[]
}
let made = 0
async function respond({ by = 'ca', of = 'leaf', more = ['-ndays', '1'] }: Signing = {}): Promise<Buffer> {
  const out = `response-${++made}.der`
  const signer = ['-index', 'index.txt', '-CA', 'ca.pem', '-rsigner', `${by}.pem`, '-rkey', `${by}.key`]
  const about = ['-issuer', 'ca.pem', '-cert', `${of}.pem`]
  await openssl('ocsp', ...signer, ...about, '-respout', out, '-noverify', ...more)
  return readFileSync(at(out))
}

const bundle: Bundle = toBundle({
  certificate: pemOf('leaf.pem'),
  issuers: [pemOf('ca.pem')],
  key: pemOf('leaf.key'),
  origin: 'openssl',
  receivedAt: Date.now(),
})
const [issuer] = bundle.roots
assert.ok(issuer)
const subject = { leaf: bundle.leaf, issuer }
const read = (der: Buffer, now = Date.now()) => readOcsp(der, subject, { now, from: 'http://ocsp.test' })

describe('a response of OpenSSL', () => {
  it('by the issuer, or a responder it delegates to, is good', async () => {
    for (const by of ['ca', 'delegate']) {
      const { status, nextUpdate = 0, thisUpdate } = await read(await respond({ by }))
      assert.equal(status, 'good')
      assert.equal(nextUpdate - thisUpdate, 86_400_000)
    }
  })

  it('by a stranger, or by a certificate of the same issuer for another purpose, is refused', async () => {
    for (const by of ['stranger', 'pretender'])
      await assert.rejects(
        respond({ by }).then((der) => read(der)),
        {
          code: 'OCSP_INVALID',
          message: /certificate 10 is not signed by its issuer/,
        },
      )
  })

  it('about another certificate, or one that has ended, or not begun, is refused', async () => {
    await assert.rejects(
      respond({ of: 'other' }).then((der) => read(der)),
      /is about another one/,
    )
    const der = await respond({ more: ['-nmin', '1'] })
    await assert.rejects(read(der, Date.now() + 120_000), { code: 'OCSP_INVALID', message: /ended at / })
    await assert.rejects(read(der, Date.now() - 3_600_000), { code: 'OCSP_INVALID', message: /is valid from .* only/ })
  })

  it('that was changed anywhere says nothing else, and fails by name', async () => {
    const [der, delegated] = [await respond(), await respond({ by: 'delegate' })]
    for (const whole of [der, delegated])
      for (let place = 0; place < whole.length; place += 3) {
        const changed = Buffer.from(whole)
        changed[place] = (changed[place] ?? 0) ^ 0xff
        await read(changed).then(
          // Outside of what is signed there is room for what means nothing, such as the certificates that came along.
          ({ status, nextUpdate }) => assert.deepEqual([status, typeof nextUpdate], ['good', 'number']),
          ({ code, message }) => assert.match(String(code), /^OCSP_/, message),
        )
      }
    for (const end of [0, 1, 20, der.length - 1]) await assert.rejects(read(der.subarray(0, end)), { code: /^OCSP_/ })
  })

  it('says since when and why it is revoked', async () => {
    know('R')
    const { status, revokedAt, reason } = await read(await respond())
    know('V')
    assert.deepEqual([status, revokedAt, reason], ['revoked', Date.UTC(2026, 0, 1), 'keyCompromise'])
  })
})

/** OpenSSL behind HTTP. */
let isAway = false
let lifetime: readonly string[] = ['-ndays', '1']
const server = createServer(async (request, response) => {
  const asked = await buffer(request)
  if (isAway) return void response.writeHead(503).end()
  const [input, output] = [`request-${++made}.der`, `answer-${made}.der`]
  writeFileSync(at(input), asked)
  const signer = ['-index', 'index.txt', '-CA', 'ca.pem', '-rsigner', 'delegate.pem', '-rkey', 'delegate.key']
  await openssl('ocsp', ...signer, '-reqin', input, '-respout', output, ...lifetime)
  response.end(request.url === '/huge' ? Buffer.alloc(70_000) : readFileSync(at(output)))
}).listen(0, '127.0.0.1')
await once(server, 'listening')
after(() => server.close())
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
const now = () => Date.now()

describe('a responder of OpenSSL', () => {
  it('understands what is asked, and is believed', async () => {
    assert.equal((await askOcsp(url, subject, now, never)).status, 'good')
    const check = createCheck({ check: 'auto', ocspUrl: url, crlUrl: undefined }, { sourceOf: () => undefined, now })
    know('R')
    const verdict = await check?.(bundle, never)
    know('V')
    assert.deepEqual([verdict?.status, verdict?.by, verdict?.reason], ['revoked', 'ocsp', 'keyCompromise'])
  })

  it('that is away, or sends too much, is named', async () => {
    isAway = true
    await assert.rejects(askOcsp(url, subject, now, never), { code: 'OCSP_UNAVAILABLE', message: /answered 503/ })
    isAway = false
    await assert.rejects(askOcsp(`${url}huge`, subject, now, never), { code: 'OCSP_UNAVAILABLE' })
    await assert.rejects(askOcsp('http://127.0.0.1:1/', subject, now, never), /did not answer: ECONNREFUSED/)
  })

  it('is not there where a certificate names none', async () => {
    const check = createCheck(
      { check: 'auto', ocspUrl: undefined, crlUrl: undefined },
      { sourceOf: () => undefined, now },
    )
    await assert.rejects(async () => check?.(bundle, never), {
      code: 'REVOCATION_UNKNOWN',
      message: /nobody can be asked/,
    })
  })
})

describe('stapling', () => {
  const plain: Source = {
    origin: 'openssl',
    issues: true,
    ttlMs: undefined,
    names: undefined,
    algorithm: undefined,
    fetch: async () => bundle,
    examine: async () => [],
  }

  it('puts a response beside what is fetched, which a restart finds in its file again', async () => {
    const { source } = stapling(plain, { ocspUrl: url, now })
    const stapled = await source.fetch(never)
    assert.ok(stapled.staple && stapled.edition)
    const bytes = bundleFile.encode(stapled)
    const again = bundleFile.decode(bytes, stapled)
    assert.deepEqual([again.staple, again.edition], [stapled.staple && { ...again.staple }, stapled.edition])
    assert.deepEqual(again.staple?.der, stapled.staple.der)
    assert.equal(again.staple?.nextUpdate, stapled.staple.nextUpdate)
  })

  it('puts one beside what comes of a trial as well, so that it is judged like the real one', async () => {
    const trial = { what: 'a trial', bundle, isStaging: false }
    const { source, assertStapled } = stapling({ ...plain, rehearse: async () => [trial] }, { ocspUrl: url, now })
    const [rehearsed] = (await source.rehearse?.(never)) ?? []
    assert.ok(rehearsed?.bundle.staple)
    assertStapled(rehearsed.bundle, undefined, now())
    assert.equal(stapling(plain, { ocspUrl: url, now }).source.rehearse, undefined)
  })

  it('holds a new certificate back while there is none, and lets it pass when the one in service is about to end', async () => {
    isAway = true
    const { source, assertStapled } = stapling(plain, { ocspUrl: url, now })
    const fetched = await source.fetch(never)
    assert.equal(fetched.staple, undefined)
    const serving = { ...bundle, fingerprint: 'before' }
    const refused = { code: 'OCSP_UNAVAILABLE', message: /certificate 10: .* answered 503/ }
    assert.throws(() => assertStapled(fetched, undefined, now()), refused)
    assert.throws(() => assertStapled(fetched, serving, now()), refused)
    assertStapled(fetched, serving, serving.notAfter - 1000)
    assertStapled(bundle, bundle, now())
    isAway = false
    const found = await source.polling?.look(fetched, never)
    assert.equal(found?.fingerprint, fetched.fingerprint)
    assertStapled(found ?? fetched, serving, now())
  })

  it('keeps the last one while the responder is away, and asks for a newer one from half of its life on', async () => {
    lifetime = ['-nmin', '10']
    const { source } = stapling(plain, { ocspUrl: url, now })
    const first = await source.fetch(never)
    const afterMs = source.polling?.afterMs(first) ?? 0
    assert.ok(afterMs > 290_000 && afterMs <= 300_000, `${afterMs}`)
    isAway = true
    assert.deepEqual(await source.polling?.look(first, never), first)
    assert.ok(first.staple)
    const half = { ...first, staple: { ...first.staple, thisUpdate: Date.now() - 700_000 } }
    const left = source.polling?.afterMs(half) ?? 0
    assert.ok(left > 290_000 && left <= 300_000, `${left}`)
    await assert.rejects(async () => source.polling?.look(half, never), { code: 'OCSP_UNAVAILABLE' })
    isAway = false
    const renewed = await source.polling?.look(
      { ...half, staple: { ...half.staple, nextUpdate: Date.now() + 300_000 } },
      never,
    )
    assert.ok((renewed?.staple?.nextUpdate ?? 0) > Date.now() + 500_000)
    assert.equal(source.polling?.renewAt?.(first), undefined)
  })

  it('never staples that it is revoked', async () => {
    know('R')
    const { source } = stapling(plain, { ocspUrl: url, now })
    const first = await source.fetch(never)
    know('V')
    assert.equal(first.staple, undefined)
  })

  it('takes a responder that repeats itself for trouble only when the end is near', async () => {
    const { source } = stapling(plain, { ocspUrl: url, now })
    const first = await source.fetch(never)
    const { staple } = first
    assert.ok(staple)
    const later = {
      ...first,
      staple: { ...staple, thisUpdate: Date.now() - 100_000_000, nextUpdate: Date.now() + 86_400_000 },
    }
    assert.equal(await source.polling?.look(later, never).then((found) => found?.edition), first.edition)
    const ending = stapling(plain, { ocspUrl: url, now: () => Date.now() })
    const near = { ...first, staple: { ...staple, thisUpdate: 0, nextUpdate: Date.now() + 86_400_000 } }
    await assert.rejects(async () => ending.source.polling?.look(near, never), /has nothing newer than until/)
  })
})
