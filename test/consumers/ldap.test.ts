import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { verifiers } from '../../src/verifiers/index.ts'
import { createTestCa } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { startLdap } from '../support/ldap.ts'

const skip = await skipReason('slapd')

const folder = await mkdtemp(join(tmpdir(), 'certferry-test-'))
after(() => rm(folder, { recursive: true, force: true }))
const place = async (name: string, text: string) => {
  await writeFile(join(folder, name), text, { mode: 0o600 })
  return join(folder, name)
}

const look = (address: string) => {
  const options = { kind: 'tls', address: address.replace('ldap://', ''), serverName: 'a.test', startTls: 'ldap' }
  return verifiers.create(verifiers.schema.parse(options), { clock: systemClock }).probe(new AbortController().signal)
}

test('a real slapd shows its certificate after StartTLS, and says so where it has none', { skip }, async () => {
  const { certificatePem, keyPem, bundle } = await (await createTestCa()).issue({ commonName: 'a.test' })
  const certificate = await place('tls.crt', certificatePem)
  const key = await place('tls.key', keyPem)
  const settings = [`TLSCertificateFile ${certificate}`, `TLSCertificateKeyFile ${key}`]
  await using secured = await startLdap({ ada: 'a-test' }, settings)
  const seen = await look(secured.address)
  assert.equal(seen.up && seen.fingerprint, bundle.fingerprint, JSON.stringify(seen))
  await using plain = await startLdap({ ada: 'a-test' })
  assert.deepEqual(await look(plain.address), { up: false, why: 'LDAP refuses StartTLS with result 2' })
})
