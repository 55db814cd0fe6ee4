import assert from 'node:assert/strict'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import type { ErrorCode } from '../../src/errors.ts'
import { createTestCa } from '../support/ca.ts'
import { mountedSecret } from '../support/mounted.ts'
import { never, place, type Running, run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'

const ca = await createTestCa()
const issue = async () => {
  const { certificatePem, chainPems, keyPem, bundle } = await ca.issue({
    commonName: 'web.test',
    withIntermediate: true,
  })
  return { cert: certificatePem + chainPems[0], ca: chainPems[1] ?? '', key: keyPem, serial: bundle.serial }
}
type Pair = Awaited<ReturnType<typeof issue>>

/** A sidecar with one certificate of source `file`; where `directory` is empty, nothing is there yet. */
function begin(watch: 'inotify' | 'polling' | 'off', { poll = '10m', hasFallback = false } = {}) {
  const { folder } = place()
  const [input, output, file] = [join(folder, 'in'), join(folder, 'out'), join(folder, 'c.yaml')]
  mkdirSync(input)
  const path = (name: string) => join(input, name)
  const source = {
    kind: 'file',
    certFile: path('tls.crt'),
    keyFile: path('tls.key'),
    caFile: path('ca.crt'),
    watch,
    poll,
  }
  const devCa = { kind: 'dev-ca', directory: join(folder, 'ca'), commonName: 'web.test' }
  const outputs = [{ kind: 'pem', directory: output }]
  const fallback = hasFallback ? [devCa] : []
  const certificates = [{ name: 'web', source, fallback, check: { minTtl: '1s' }, outputs }]
  writeFileSync(file, JSON.stringify({ certificates }), { mode: 0o600 })
  return {
    input,
    path,
    output: (name: string) => readFileSync(join(output, name), 'utf8'),
    served: () => readFileSync(join(output, 'tls.crt'), 'utf8'),
    running: run(loadConfig(file, {})),
    put: ({ cert, key, ca: root }: Pair) => {
      writeFileSync(path('ca.crt'), root)
      writeFileSync(path('tls.crt'), cert)
      writeFileSync(path('tls.key'), key)
    },
  }
}
const isServing = (running: Running, { serial }: Pair) =>
  until(`${serial} is delivered`, () => running.loop('web').report?.state.serving?.serial === serial)
const failuresOf = ({ events }: Running, code: string) =>
  events.filter(({ name, event }) => name === 'rotation.failed' && 'code' in event && event.code === code).length

describe('certificates that somebody else writes', { concurrency: true }, () => {
  for (const watch of ['inotify', 'polling'] as const) {
    test(`follow each swap of a mounted Secret at once, by ${watch}`, async () => {
      const at = begin(watch)
      await using running = at.running
      const volume = mountedSecret(at.input)
      await until('it waits for the first one', () => failuresOf(running, 'INPUT_MISSING') > 0)
      for (let count = 0; count < 4; count++) {
        const pair = await issue()
        volume.write({ 'tls.crt': pair.cert, 'tls.key': pair.key, 'ca.crt': pair.ca })
        await isServing(running, pair)
        assert.ok(at.served().startsWith(pair.cert.slice(0, 200)))
      }
    })

    test(`S1 are replaced only once both halves are there, by ${watch}`, async () => {
      const at = begin(watch)
      await using running = at.running
      const [one, two, three] = [await issue(), await issue(), await issue()]
      at.put(one)
      await isServing(running, one)
      // 1. The certificate first, cut off in the middle; then whole, without its key; then the key.
      writeFileSync(at.path('tls.crt'), two.cert.slice(0, two.cert.length / 3))
      await until('half a certificate is noticed', () => failuresOf(running, 'INPUT_INCOMPLETE') > 0)
      assert.equal(running.loop('web').report?.state.serving?.serial, one.serial)
      writeFileSync(at.path('tls.crt'), two.cert)
      const error = () => running.loop('web').report?.state.failure?.message
      await until('a pair that does not fit is noticed', () => /belongs to no certificate/.test(error() ?? ''))
      assert.equal(running.loop('web').report?.state.serving?.serial, one.serial)
      writeFileSync(at.path('tls.key'), two.key)
      await isServing(running, two)
      // 2. Emptied in place, and replaced by renames.
      truncateSync(at.path('tls.crt'))
      await until('an emptied file is noticed', () => /holds no certificate/.test(error() ?? ''))
      assert.equal(running.loop('web').report?.state.serving?.serial, two.serial)
      for (const [name, content] of [
        ['tls.key', three.key],
        ['tls.crt', three.cert],
      ] as const) {
        writeFileSync(at.path(`${name}.new`), content)
        renameSync(at.path(`${name}.new`), at.path(name))
      }
      await isServing(running, three)
      assert.equal(running.loop('web').report?.state.failures, 0)
    })
  }

  test('are found by the slow look where nothing is watched', async () => {
    const at = begin('off', { poll: '1s' })
    await using running = at.running
    for (let count = 0; count < 2; count++) {
      const pair = await issue()
      at.put(pair)
      await isServing(running, pair)
    }
  })

  test('are asked for by hand, and there is nothing newer', async () => {
    const at = begin('off', { poll: '1h' })
    await using running = at.running
    const [one, two] = [await issue(), await issue()]
    at.put(one)
    const rotate = () => running.sidecar.rotate(['web'], 'test', never)
    await rotate()
    await isServing(running, one)
    assert.deepEqual(
      (await rotate()).map(({ outcome, isNew }) => [outcome.kind, isNew]),
      [['served', false]],
    )
    at.put(two)
    assert.deepEqual(
      (await rotate()).map(({ outcome, isNew }) => [outcome.kind, isNew]),
      [['served', true]],
    )
    const finished = running.events.flatMap(({ event }) => ('issued' in event ? [event.issued] : []))
    assert.ok(finished.length >= 3)
    assert.ok(!finished.includes(true), 'what was read was not issued')
  })

  test('that nobody renews are followed by the fallback before they end', async () => {
    const at = begin('inotify', { hasFallback: true })
    const short = await ca.issue({ commonName: 'web.test', notAfter: new Date(Date.now() + 6_000) })
    at.put({ cert: short.certificatePem, ca: ca.rootPem, key: short.keyPem, serial: short.bundle.serial })
    await using running = at.running
    const origin = () => running.loop('web').report?.state.serving?.origin ?? ''
    await until('one of both is served', () => origin() !== '')
    if (origin().startsWith('file ')) await until('the other follows', () => origin().startsWith('dev-ca '))
    const told = running.events.find(({ name }) => name === 'source.fallback')?.event
    assert.ok(told && 'message' in told && 'origin' in told)
    assert.match(told.origin, /^dev-ca /)
    assert.match(told.message, /has nothing newer than certificate \w+, which /)
    const issued = running.events.filter(({ name }) => name === 'certificate.issued')
    assert.equal(issued.length, 1, 'what was read from files was not issued')
  })

  test('that are compromised do not come back, however often they are read', async () => {
    const at = begin('inotify')
    await using running = at.running
    const [bad, good] = [await issue(), await issue()]
    at.put(bad)
    await isServing(running, bad)
    const rotate = () => running.sidecar.rotate(['web'], 'compromised', never)
    const [first] = await rotate()
    assert.ok(first?.outcome.kind === 'failed', 'what is there is what shall not be used')
    assert.equal(first.outcome.error.code, 'STALE_RESPONSE')
    assert.match(first.outcome.error.message, new RegExp(`has nothing but certificate ${bad.serial}, which must not`))
    at.put(good)
    await isServing(running, good)
    at.put(bad)
    await until('it is refused', () => failuresOf(running, 'STALE_RESPONSE') > 1)
    assert.equal(running.loop('web').report?.state.serving?.serial, good.serial)
    assert.ok(at.served().startsWith(good.cert.slice(0, 200)))
  })

  test('that are compromised are replaced by the fallback at once', async () => {
    const at = begin('inotify', { hasFallback: true })
    await using running = at.running
    const bad = await issue()
    at.put(bad)
    const origin = () => running.loop('web').report?.state.serving?.origin ?? ''
    await until('one of both is served', () => origin() !== '')
    if (origin().startsWith('dev-ca ')) await running.sidecar.rotate(['web'], 'test', never)
    await isServing(running, bad)
    await running.sidecar.rotate(['web'], 'compromised', never)
    assert.match(origin(), /^dev-ca /)
  })

  test('S1 stay the last good ones whatever is wrong with what is there, and the next attempt is scheduled', async () => {
    const at = begin('inotify')
    await using running = at.running
    const [good, other] = [await issue(), await issue()]
    at.put(good)
    await isServing(running, good)
    const past = { notBefore: new Date(Date.now() - 7_200_000), notAfter: new Date(Date.now() - 3_600_000) }
    const old = await ca.issue({ commonName: 'web.test', ...past })
    const cipher = { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' } as const
    const bad: [ErrorCode, string | Buffer, string][] = [
      ['CERTIFICATE_EXPIRED', old.certificatePem, old.keyPem],
      ['KEY_ENCRYPTED', good.cert, createPrivateKey(good.key).export(cipher).toString()],
      ['INPUT_INVALID', good.cert, good.key + other.key],
      ['INPUT_INVALID', new X509Certificate(good.cert).raw, good.key],
      ['INPUT_INCOMPLETE', good.cert, other.key],
      ['INPUT_INCOMPLETE', good.cert, good.ca],
    ]
    for (const [code, cert, key] of bad) {
      writeFileSync(at.path('tls.crt'), cert)
      writeFileSync(at.path('tls.key'), key)
      const state = () => running.loop('web').report?.state ?? assert.fail()
      await until(`${code} is told`, () => state().failure?.code === code)
      assert.equal(state().serving?.serial, good.serial)
      assert.ok(state().nextAt > (state().failure?.at ?? 0))
      assert.ok(at.served().startsWith(good.cert.slice(0, 200)))
      at.put(good)
      await until('all is well again', () => state().failures === 0)
    }
  })

  test('whose chain is in the wrong order, with one that does not belong there, are delivered in order, with a warning', async () => {
    const at = begin('inotify')
    await using running = at.running
    const good = await issue()
    const stranger = await (await createTestCa({ commonName: 'Stranger Root' })).issue({ withIntermediate: true })
    const [leaf = '', intermediate = ''] = good.cert.match(/-----BEGIN[\s\S]+?-----END CERTIFICATE-----\n?/g) ?? []
    at.put({ ...good, cert: `${intermediate}\n${stranger.chainPems[0]}\n${leaf}\n` })
    await isServing(running, good)
    const served = at.served().match(/-----BEGIN[\s\S]+?-----END CERTIFICATE-----/g) ?? []
    assert.deepEqual(
      served.map((pem) => new X509Certificate(pem).fingerprint256),
      [leaf, intermediate].map((pem) => new X509Certificate(pem).fingerprint256),
    )
    const warning = running.events.find(({ name }) => name === 'source.warning')?.event
    assert.ok(warning && 'message' in warning)
    assert.match(warning.message, /tls\.crt holds "CN=Stranger +Intermediate" besides/)
    // The same certificate, with one root more to trust: another edition.
    const roots = () => at.output('ca.crt').match(/-----BEGIN CERT/g)?.length
    assert.equal(roots(), 1)
    writeFileSync(at.path('ca.crt'), good.ca + stranger.chainPems[1])
    await until('the other root is delivered', () => roots() === 2)
    assert.equal(running.loop('web').report?.state.serving?.serial, good.serial)
  })
})
