import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import type { TrustSet } from '../../src/core/trust.ts'
import { trustOutputs } from '../../src/outputs/trust.ts'
import { createTestCa } from '../support/ca.ts'
import { failure, forever } from '../vault/support.ts'
import { createTrust, pemOfLists } from './support.ts'

const HOUR = 3_600_000
const folder = mkdtempSync(join(tmpdir(), 'certferry-lists-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const [ca, other] = [await createTestCa(), await createTestCa({ commonName: 'Other' })]
const at = (name: string) => join(folder, name)
writeFileSync(at('ca.pem'), ca.rootPem + other.rootPem)

/** A trust whose lists are in these files, one place each. */
function open(files: Readonly<Record<string, string | Buffer>>, now?: () => number, warn?: (message: string) => void) {
  for (const [name, content] of Object.entries(files)) writeFileSync(at(name), content)
  return createTrust({
    anchors: [{ kind: 'file', file: at('ca.pem') }],
    crls: Object.keys(files).map((name) => ({ kind: 'file', file: at(name) })),
    ...(now && { now }),
    ...(warn && { warn }),
  })
}
const refusal = async (source: ReturnType<typeof open>) => {
  const { code, message } = await failure(source.fetch(forever))
  assert.equal(code, 'CRL_INVALID')
  return message
}
const numbers = ({ lists }: TrustSet) => lists.map(({ number, isDelta }) => `${isDelta ? 'delta ' : ''}${number}`)
/** Text of a file of the output. */
const written = (set: TrustSet, name: string) => {
  const options = { kind: 'crl', directory: '/d', deltaFile: 'delta.pem' }
  const files = trustOutputs.create(trustOutputs.schema.parse(options), undefined).render(set)
  return String(files.find((file) => file.name === name)?.content)
}

describe('K5 delta lists', () => {
  it('come in a file of their own, beside the complete list that they build on', async () => {
    const [complete, delta] = [await ca.crl({ number: 4 }), await ca.crl({ number: 5, base: 4, revoked: ['0a'] })]
    for (const files of [{ all: pemOfLists(delta, complete) }, { delta, complete }]) {
      const set = await open(files).fetch(forever)
      assert.deepEqual(numbers(set), ['4', 'delta 5'])
      assert.equal(written(set, 'crl.pem'), pemOfLists(complete))
      assert.equal(written(set, 'delta.pem'), pemOfLists(delta))
    }
  })

  it('may be added to a complete list that is later than the one they build on', async () => {
    const files = { complete: await ca.crl({ number: 6 }), delta: await ca.crl({ number: 7, base: 4 }) }
    assert.deepEqual(numbers(await open(files).fetch(forever)), ['6', 'delta 7'])
  })

  it('are refused without a complete list of the same CA', async () => {
    const delta = await ca.crl({ number: 5, base: 4 })
    const alone = /^the delta list of "CN=Test Root" \(number 5, base 4\) comes without the complete list/
    assert.match(await refusal(open({ delta })), alone)
    assert.match(await refusal(open({ delta, complete: await other.crl({ number: 4 }) })), alone)
  })

  it('are refused beside a complete list that is older than the one they build on, or has no number', async () => {
    const delta = await ca.crl({ number: 6, base: 5 })
    const older = await refusal(open({ delta, complete: await ca.crl({ number: 4 }) }))
    assert.match(older, /\(number 6, base 5\) builds on a later list than the complete one there is, of number 4$/)
    const unnumbered = await refusal(open({ delta, complete: await ca.crl({ number: null }) }))
    assert.match(unnumbered, /there is, of number none$/)
  })

  it('are refused when they are older than the one in service', async () => {
    const complete = await ca.crl({ number: 4 })
    const source = open({ complete, delta: await ca.crl({ number: 6, base: 4 }) })
    const serving = await source.fetch(forever)
    writeFileSync(at('delta'), await ca.crl({ number: 5, base: 4 }))
    const { message } = await failure(source.polling?.look(serving, forever) ?? assert.fail())
    assert.match(message, /is older than the one in service: number 5, not number 6/)
  })
})

describe('a list', () => {
  it('K4 that has ended is refused by its name and end, and the next one is taken', async () => {
    const nextUpdate = new Date(Date.now() - 1000)
    const source = open({ list: await ca.crl({ number: 1, nextUpdate }) })
    const named = new RegExp(
      `^the revocation list of "CN=Test Root" \\(file ${at('list')}\\) has ended at ${new Date(Math.floor(+nextUpdate / 1000) * 1000).toISOString()}$`,
    )
    assert.match(await refusal(source), named)
    writeFileSync(at('list'), await ca.crl({ number: 2 }))
    assert.deepEqual(numbers(await source.fetch(forever)), ['2'])
  })

  it('is asked for when half of its time is over, and each second once it has ended', async () => {
    let now = Date.now()
    const source = open({ list: await ca.crl({ nextUpdate: new Date(now + 60_000) }) }, () => now)
    const serving = await source.fetch(forever)
    const wait = () => source.polling?.afterMs(serving) ?? 0
    assert.ok(wait() > 29_000 && wait() <= 30_000, String(wait()))
    assert.equal(Math.floor(serving.notAfter / 1000), Math.floor((now + 60_000) / 1000))
    now += HOUR
    assert.equal(wait(), 1000)
  })

  it('without an end is kept, and the end of the set is that of its CAs', async () => {
    const set = await open({ list: await ca.crl({ nextUpdate: null }) }).fetch(forever)
    assert.equal(set.notAfter, Math.max(...[ca, other].map(({ root }) => root.validToDate.getTime())))
  })

  it('K5 of a CA that is not in the trust, or that is none, is refused, or left out beside others in its place', async () => {
    const foreign = await createTestCa({ commonName: 'Foreign' })
    assert.match(
      await refusal(open({ list: await foreign.crl() })),
      /"CN=Foreign" \(file \S+\) is signed by none of the CAs/,
    )
    // As of a CA that is not trusted any more, in a file that somebody still writes.
    const warnings: string[] = []
    const [ours, theirs] = [await ca.crl({ number: 7 }), await foreign.crl()]
    const mixed = await open({ list: pemOfLists(theirs, ours) }, undefined, (told) => warnings.push(told)).fetch(
      forever,
    )
    assert.deepEqual(numbers(mixed), ['7'])
    assert.match(warnings.join(), /^the revocation list of "CN=Foreign" \(file \S+\) is signed by none of the CAs/)
    assert.match(await refusal(open({ list: ours, other: theirs })), /"CN=Foreign" \(file \S+other\) is signed by none/)
    const forged = await createTestCa()
    assert.match(
      await refusal(open({ list: await forged.crl() })),
      /"CN=Test Root" \(file \S+\) is signed by none of the CAs/,
    )
    assert.match(await refusal(open({ list: 'nothing' })), /list holds no revocation list, neither DER nor PEM$/)
    assert.match(await refusal(open({ list: Buffer.of(0x30, 0x81, 0) })), /does not parse/)
    for (const garbage of [pemOfLists(Buffer.from('hello')), Buffer.from([0x30, 0x82, 1, 2])])
      assert.match(await refusal(open({ list: garbage })), /^a revocation list of file \S+ does not parse$/)
    const whole = pemOfLists(await ca.crl())
    assert.match(await refusal(open({ list: whole.slice(0, -20) })), /list is cut off within a revocation list$/)
    // What stands before the cut is not all there is.
    const two = whole + pemOfLists(await other.crl())
    assert.equal(numbers(await open({ list: two }).fetch(forever)).length, 2)
    assert.match(await refusal(open({ list: two.slice(0, -20) })), /list is cut off within a revocation list$/)
  })
})

describe('two places of the list of one CA', () => {
  it('may have different ones for a while, as long as the newest does not go back', async () => {
    const put = async (one: number, other: number) =>
      open({ one: await ca.crl({ number: one }), other: await ca.crl({ number: other }) })
    const source = await put(5, 4)
    const serving = await source.fetch(forever)
    const look = async () => source.polling?.look(serving, forever)
    assert.deepEqual(numbers(serving), ['5', '4'])
    assert.equal((await look())?.fingerprint, serving.fingerprint)
    await put(4, 4)
    const { code, message } = await failure(source.polling?.look(serving, forever) ?? assert.fail())
    assert.equal(code, 'CRL_INVALID')
    assert.match(message, /is older than the one in service: number 4, not number 5/)
    await put(4, 6)
    assert.equal((await look())?.lists.length, 2)
  })
})
