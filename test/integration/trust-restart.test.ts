import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { loadConfig } from '../../src/config/config.ts'
import { createTestCa } from '../support/ca.ts'
import { never, place, type Running, run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'

const [old, next] = [await createTestCa({ commonName: 'Old' }), await createTestCa({ commonName: 'New' })]

test('a CA that is to go stays after a restart while a certificate cannot be looked at yet, and then if it is of that CA', async () => {
  const { folder } = place()
  const at = (name: string) => join(folder, name)
  const { certificatePem, keyPem } = await old.issue({ commonName: 'web.test' })
  mkdirSync(at('in'))
  writeFileSync(at('in/tls.crt'), certificatePem + old.rootPem)
  writeFileSync(at('in/tls.key'), keyPem)
  writeFileSync(at('ca.pem'), old.rootPem)
  const source = { kind: 'file', certFile: at('in/tls.crt'), keyFile: at('in/tls.key') }
  const certificates = [{ name: 'web', source, outputs: [{ kind: 'pem', directory: at('web') }] }]
  const anchors = [{ kind: 'file', file: at('ca.pem') }]
  const outputs = [{ kind: 'pem', directory: at('trust') }]
  const trust = [{ name: 'peers', anchors, outputs, poll: '1s', keep: '1s' }]
  const config = (content: object) => {
    writeFileSync(at('c.json'), JSON.stringify(content), { mode: 0o600 })
    return loadConfig(at('c.json'), {})
  }
  const cas = () => readFileSync(at('trust/ca.crt'), 'utf8').match(/BEGIN CERT/g)?.length
  const state = ({ sidecar }: Running) => sidecar.trust[0]?.report?.state
  const isWritten = async (running: Running, count: number) => {
    await until(`${count} CAs are in force`, () => state(running)?.serving?.anchors.length === count)
    assert.equal(cas(), count)
  }
  {
    await using running = run(config({ certificates, trust }))
    await running.once('web', 'is delivered', ({ report }) => report?.state.verification === 'none')
    await isWritten(running, 1)
    writeFileSync(at('ca.pem'), next.rootPem)
    await isWritten(running, 2)
  }
  const later = { ...systemClock, now: () => Date.now() + 60_000 }
  // Somebody else has the directory of the certificate.
  await using holder = run(config({ certificates }))
  await holder.once('web', 'is held', ({ report }) => report?.state.serving !== undefined)
  await using running = run(config({ certificates, trust }), { clock: later })
  const hasLooked = () => (state(running)?.pollAt ?? 0) > later.now()
  await until('the trust was looked at', hasLooked)
  assert.equal(running.loop('web').report?.state.failure?.code, 'LOCK_HELD')
  await isWritten(running, 2)
  await holder[Symbol.asyncDispose]()
  await running.once('web', 'is read', ({ report }) => report?.state.serving !== undefined)
  const before = state(running)?.pollAt
  await until('the trust was looked at again', () => hasLooked() && state(running)?.pollAt !== before)
  await isWritten(running, 2)
  const moved = await next.issue({ commonName: 'web.test' })
  writeFileSync(at('in/tls.crt'), moved.certificatePem + next.rootPem)
  writeFileSync(at('in/tls.key'), moved.keyPem)
  await isWritten(running, 1)
})

test('a trust whose CAs stay is published again when a rotation is said to be for a compromise', async () => {
  const { folder } = place()
  writeFileSync(join(folder, 'ca.pem'), next.rootPem)
  const anchors = [{ kind: 'file', file: join(folder, 'ca.pem') }]
  const outputs = [{ kind: 'pem', directory: join(folder, 'trust') }]
  writeFileSync(join(folder, 'c.json'), JSON.stringify({ trust: [{ name: 'peers', anchors, outputs }] }), {
    mode: 0o600,
  })
  await using running = run(loadConfig(join(folder, 'c.json'), {}))
  const [rotated] = await running.sidecar.rotate(['peers'], 'compromised', never)
  assert.equal(rotated?.outcome.kind, 'served')
})
