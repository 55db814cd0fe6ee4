import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import { trustStatus } from '../../src/snapshot.ts'
import { createTestCa } from '../support/ca.ts'
import { run } from '../support/sidecar.ts'
import { until } from '../support/until.ts'

const folder = mkdtempSync(join(tmpdir(), 'certferry-ended-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const at = (name: string) => join(folder, name)
const [old, next] = [await createTestCa({ commonName: 'Old' }), await createTestCa({ commonName: 'New' })]
const soon = (ms: number) => new Date(Date.now() + ms)

test('K4 a list that ends in service stays, the status says so, and the next one is taken without a restart', async () => {
  writeFileSync(at('ca.pem'), old.rootPem)
  writeFileSync(at('list'), await old.crl({ number: 1, nextUpdate: soon(2_500) }))
  const config = {
    trust: [
      {
        name: 'peers',
        anchors: [{ kind: 'file', file: at('ca.pem') }],
        crls: [{ kind: 'file', file: at('list') }],
        poll: '1s',
        outputs: [
          { kind: 'pem', directory: at('trust') },
          { kind: 'crl', directory: at('trust') },
        ],
      },
    ],
  }
  writeFileSync(at('config.yaml'), JSON.stringify(config), { mode: 0o600 })
  const status = ({ sidecar: { trust } }: ReturnType<typeof run>) => {
    const [peers = assert.fail()] = trust
    return trustStatus(peers, Date.now())
  }
  const is = (phase: string, code?: string) => (one: ReturnType<typeof run>) =>
    until(`it is ${phase} with ${code ?? 'no error'}`, () => {
      const { phase: now, lastError } = status(one)
      return now === phase && lastError?.code === code
    })
  const text = () => readFileSync(at('trust/crl.pem'), 'utf8')
  let first: string
  {
    await using running = run(loadConfig(at('config.yaml'), {}))
    await is('ACTIVE')(running)
    first = text()
    await is('EXPIRED', 'CRL_INVALID')(running)
    assert.match(
      status(running).lastError?.message ?? '',
      /^the revocation list of "CN=Old" \(file \S+\) has ended at /,
    )
    assert.equal(text(), first)
    const { failures } = status(running)
    await until('it is tried again', () => status(running).failures > failures)
  }
  // A restart finds it ended on disk, and nothing better.
  await using running = run(loadConfig(at('config.yaml'), {}))
  await is('EXPIRED', 'CRL_INVALID')(running)
  assert.equal(text(), first)
  writeFileSync(at('list'), await old.crl({ number: 2 }))
  await is('ACTIVE')(running)
  assert.notEqual(text(), first)

  // One that has ended when it comes changes nothing, nor does what came with it.
  writeFileSync(at('list'), await old.crl({ number: 3, nextUpdate: soon(-1_000) }))
  writeFileSync(at('ca.pem'), old.rootPem + next.rootPem)
  await is('ACTIVE', 'CRL_INVALID')(running)
  assert.equal(status(running).anchors.length, 1)
  assert.equal(status(running).crls[0]?.number, '2')
})
