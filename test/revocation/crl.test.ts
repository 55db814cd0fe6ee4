import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { after, describe, it } from 'node:test'
import { SidecarError } from '../../src/errors.ts'
import { createCheck } from '../../src/revocation/check.ts'
import { createTestCa } from '../support/ca.ts'
import { pemOfLists } from '../trust/support.ts'

const HOUR = 3_600_000
const never = new AbortController().signal
const [ca, other] = [await createTestCa(), await createTestCa({ commonName: 'Other' })]
const { bundle } = await ca.issue()
const revoked = [bundle.leaf.serialNumber]

let answer: { readonly status?: number; readonly body: string | Buffer } = { body: '' }
const server = createServer((_, response) => response.writeHead(answer.status ?? 200).end(answer.body))
server.listen(0, '127.0.0.1')
await once(server, 'listening')
after(() => {
  server.closeAllConnections()
  server.close()
})
const place = server.address()
const crlUrl = `http://127.0.0.1:${typeof place === 'object' ? place?.port : ''}/crl`

/** What the check says of the certificate by a list: a verdict, or the words of REVOCATION_UNKNOWN. */
async function judge(body: string | Buffer, { status = 200, now = Date.now() } = {}): Promise<string> {
  answer = { status, body }
  const check = createCheck({ check: ['crl'], crlUrl }, { sourceOf: () => undefined, now: () => now })
  try {
    const verdict = await check?.(bundle, never)
    return `${verdict?.status} by ${verdict?.by}`
  } catch (error) {
    assert.ok(error instanceof SidecarError && error.code === 'REVOCATION_UNKNOWN', String(error))
    return error.message.replaceAll(crlUrl, 'URL')
  }
}
/** The value of an issuing distribution point (RFC 5280 §5.2.5) with this one boolean set. */
const scope = (tag: number) => ({ '2.5.29.28': Buffer.of(0x30, 0x03, 0x80 | tag, 0x01, 0xff) })
const SCOPES = { users: 1, authorities: 2, indirect: 4 }

describe('a certificate asked about by a list', () => {
  it('is good when the list does not name it, and revoked when it does, in DER and in PEM', async () => {
    for (const form of [(der: Buffer) => der, (der: Buffer) => pemOfLists(der)]) {
      assert.equal(await judge(form(await ca.crl())), 'good by crl')
      assert.equal(await judge(form(await ca.crl({ revoked }))), 'revoked by crl')
      assert.equal(await judge(form(await ca.crl({ revoked: ['0a'] }))), 'good by crl')
    }
  })

  it('K4 is neither by a list that has ended, however it names it', async () => {
    const ended = await ca.crl({ revoked, nextUpdate: new Date(Date.now() + HOUR) })
    assert.equal(await judge(ended), 'revoked by crl')
    assert.match(await judge(ended, { now: Date.now() + 2 * HOUR }), /^the list at URL ended at \d{4}-/)
    assert.equal(await judge(await ca.crl({ nextUpdate: null }), { now: Date.now() + 2 * HOUR }), 'good by crl')
  })

  it('K5 is neither by a list of somebody else, by none, or while nobody answers', async () => {
    assert.match(await judge(await other.crl({ revoked })), /^the list at URL is not signed by the issuer of /)
    const list = await ca.crl()
    const forged = Buffer.concat([list.subarray(0, -1), Buffer.of((list.at(-1) ?? 0) ^ 1)])
    assert.match(await judge(forged), /is not signed by the issuer/)
    for (const junk of ['', '<html>', list.subarray(0, list.length / 2)])
      assert.equal(await judge(junk), 'the list at URL is no CRL')
    assert.equal(await judge(list, { status: 503 }), 'URL answered 503')
    assert.match(await judge(Buffer.alloc(17 * 1024 * 1024)), /^URL did not answer: /)
  })

  it('K5 is neither by a delta, which leaves out who was revoked before', async () => {
    const delta = await ca.crl({ number: 5, base: 4 })
    assert.equal(await judge(delta), 'the list at URL is a delta: it does not name who was revoked before')
  })

  it('is neither by a list of others, or one that says something critical that is not understood', async () => {
    const with_ = async (critical: Readonly<Record<string, Buffer>>) => judge(await ca.crl({ critical }))
    assert.equal(await with_(scope(SCOPES.users)), 'good by crl')
    for (const tag of [SCOPES.authorities, SCOPES.indirect])
      assert.match(await with_(scope(tag)), /has the critical extension 2\.5\.29\.28, which is not understood$/)
    assert.match(await with_({ '1.2.3.4': Buffer.of(0x05, 0) }), /has the critical extension 1\.2\.3\.4/)
  })
})
