import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import { createTestCa } from '../support/ca.ts'
import { place, run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'

const [old, next] = [await createTestCa({ commonName: 'Old' }), await createTestCa({ commonName: 'New' })]

test('while a trust cannot be put in force, certificates of the CA in service are renewed, those of another one wait, whatever roots come along', async () => {
  const { folder } = place()
  const at = (name: string) => join(folder, name)
  mkdirSync(at('in'))
  const put = async (ca: typeof old) => {
    const { certificatePem, keyPem, bundle } = await ca.issue({ commonName: 'web.test' })
    // Whoever wrote it gives both roots, as is usual while they change.
    writeFileSync(at('in/tls.crt'), certificatePem + next.rootPem + old.rootPem)
    writeFileSync(at('in/tls.key'), keyPem)
    return bundle.serial
  }
  const source = { kind: 'file', certFile: at('in/tls.crt'), keyFile: at('in/tls.key') }
  const certificates = [{ name: 'web', trust: 'peers', source, outputs: [{ kind: 'pem', directory: at('web') }] }]
  const trust = [
    {
      name: 'peers',
      anchors: [{ kind: 'file', file: at('ca.pem') }],
      poll: '1s',
      outputs: [{ kind: 'pem', directory: at('trust') }],
      reload: [{ kind: 'exec', command: ['test', '!', '-e', at('broken')] }],
    },
  ]
  writeFileSync(at('ca.pem'), old.rootPem)
  writeFileSync(at('c.json'), JSON.stringify({ certificates, trust }), { mode: 0o600 })
  const first = await put(old)
  await using running = run(loadConfig(at('c.json'), {}))
  const serving = (serial: string) =>
    running.once('web', `serves ${serial}`, ({ report }) => report?.state.serving?.serial === serial)
  await serving(first)
  writeFileSync(at('broken'), '')
  writeFileSync(at('ca.pem'), old.rootPem + next.rootPem)
  await until('the trust is refused', () => running.sidecar.trust[0]?.report?.state.verification === 'failed')
  await serving(await put(old))
  const moved = await put(next)
  await running.once('web', 'waits', ({ report }) => report?.state.failure?.code === 'TRUST_PENDING')
  const { state } = running.loop('web').report ?? assert.fail()
  assert.notEqual(state.serving?.serial, moved)
})
