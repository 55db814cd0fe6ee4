import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { createServer, type TlsOptions } from 'node:tls'
import { systemClock } from '../../src/clock.ts'
import { toTrustSet } from '../../src/core/trust.ts'
import { trustVerifiers } from '../../src/verifiers/trust.ts'
import { createTestCa } from '../support/ca.ts'

const [trusted, other] = [await createTestCa({ commonName: 'Trusted' }), await createTestCa({ commonName: 'Other' })]
const server = await trusted.issue({ commonName: 'web.example.com' })
const forever = new AbortController().signal
const setOf = (...roots: (typeof trusted.root)[]) =>
  toTrustSet({
    anchors: roots.map((certificate) => ({ certificate, since: 0, inForceSince: undefined, retiredAt: undefined })),
    lists: [],
    origin: 'test',
    receivedAt: Date.now(),
  })

describe('client-ca', () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'certferry-client-ca-'))
  })
  after(() => rm(folder, { recursive: true, force: true }))

  const serving = async (options: TlsOptions, work: (address: string) => Promise<void>) => {
    const listener = createServer({ cert: server.certificatePem, key: server.keyPem, ...options }, (socket) => {
      socket.on('error', () => {})
      socket.resume()
      socket.end('HTTP/1.0 200 OK\r\n\r\n')
    })
    listener.on('tlsClientError', () => {})
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
    const address = listener.address()
    try {
      await work(`127.0.0.1:${typeof address === 'object' ? address?.port : ''}`)
    } finally {
      await new Promise((resolve) => listener.close(resolve))
    }
  }
  const verifier = (options: object) =>
    trustVerifiers.create(
      trustVerifiers.schema.parse({ kind: 'client-ca', serverName: 'web.example.com', ...options }),
      {
        clock: systemClock,
      },
    )
  const asking = { requestCert: true, rejectUnauthorized: true, ca: [trusted.rootPem] }
  const client = async (ca: typeof trusted, name: string) => {
    const { certificatePem, keyPem } = await ca.issue({ commonName: name })
    const [clientCertFile, clientKeyFile] = [join(folder, `${name}.crt`), join(folder, `${name}.key`)]
    await writeFile(clientCertFile, certificatePem)
    await writeFile(clientKeyFile, keyPem, { mode: 0o600 })
    return { clientCertFile, clientKeyFile }
  }

  it('sees by TLS 1.2 which CAs the target names, and says which are missing', () =>
    serving(asking, async (address) => {
      const set = setOf(trusted.root)
      const seen = await verifier({ address }).probe(forever, set)
      assert.deepEqual(seen.up && seen.fingerprint, set.fingerprint)
      const both = await verifier({ address }).probe(forever, setOf(trusted.root, other.root))
      assert.ok(both.up && /does not name "CN=Other"/.test(both.serial))
      await verifier({ address }).verify(set, undefined, forever)
      const late = verifier({ address, deadline: '300ms' }).verify(setOf(other.root), undefined, forever)
      await assert.rejects(late, { code: 'RELOAD_NOT_EFFECTIVE' })
    }))

  it('takes a target that asks nobody for one that trusts nobody', () =>
    serving({}, async (address) => {
      const seen = await verifier({ address }).probe(forever, setOf(trusted.root))
      assert.ok(seen.up && /asks for no client certificate/.test(seen.serial))
    }))

  it('shows a certificate over TLS 1.3, and believes only what the target does with it', () =>
    serving({ ...asking, minVersion: 'TLSv1.3' }, async (address) => {
      const [good, bad] = [await client(trusted, 'good'), await client(other, 'bad')]
      const accepted = await verifier({ address, ...good }).probe(forever, setOf(trusted.root))
      assert.equal(accepted.up && accepted.fingerprint, setOf(trusted.root).fingerprint)
      const refused = await verifier({ address, ...bad }).probe(forever, setOf(other.root))
      assert.ok(refused.up && /refuses the certificate/.test(refused.serial), JSON.stringify(refused))
      const foreign = await verifier({ address, ...bad }).probe(forever, setOf(trusted.root))
      assert.ok(!foreign.up && /chains to none of the CAs/.test(foreign.why))
    }))

  it('is down where nobody answers', async () => {
    const seen = await verifier({ address: '127.0.0.1:1' }).probe(forever, setOf(trusted.root))
    assert.equal(seen.up, false)
  })
})
