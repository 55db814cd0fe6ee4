import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { skipReason } from '../support/components.ts'
import { plantDefect } from '../support/defect.ts'
import { assertNoSecret, bundleOnce, createRig, isWell, servedBy } from '../support/fault-rig.ts'
import { startVault } from '../support/vault.ts'
import { readPair } from '../support/volume.ts'

const skip = await skipReason('vault', 'nginx')
const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())
await vault?.setupPki()
const { program, remove } = await bundleOnce()
after(remove)

test('P6 a defect that does not pass ends the process with 70 after the fifth time, and the next start goes on', {
  skip,
}, async (t) => {
  assert.ok(vault)
  const defect = plantDefect(t, BROKEN_TLS)
  await using rig = await createRig({ vault, program, certferry: { env: defect.env } })
  const { fingerprint } = await rig.certferry.certificate('web', 'is in service', isWell)
  defect.begin()
  const tooLong = setTimeout(() => rig.certferry.send('SIGKILL'), 150_000)
  const { code } = await rig.certferry.ended
  clearTimeout(tooLong)
  assert.equal(code, 70)
  assert.match(rig.certferry.stderr(), /a defect made by the test/)
  assert.match(rig.certferry.stderr(), /defect of certferry; please report it/)
  assert.ok(rig.certferry.log('rotation.failed').filter(({ reason }) => reason === 'bug').length >= 4)
  assertNoSecret(`${JSON.stringify(rig.certferry.log())}${rig.certferry.stderr()}`, rig.stage)
  assert.equal(readPair(rig.directory, rig.layout), fingerprint)
  assert.equal(await servedBy(rig.stage), fingerprint)

  defect.end()
  await using next = rig.stage.certferry()
  assert.equal((await next.certificate('web', 'is in service', isWell)).fingerprint, fingerprint)
  assert.equal(await rig.stage.issued(), 1)
})

const BROKEN_TLS = (flag: string) => `
  const tls = require('node:tls')
  const { connect } = tls
  tls.connect = (...args) => {
    if (require('node:fs').existsSync(${flag})) throw new TypeError('a defect made by the test')
    return connect(...args)
  }
`
