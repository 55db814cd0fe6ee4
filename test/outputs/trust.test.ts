import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { nextAnchors, toTrustSet } from '../../src/core/trust.ts'
import { trustOutputs } from '../../src/outputs/trust.ts'
import { createTestCa } from '../support/ca.ts'
import { failure } from '../vault/support.ts'

const folder = mkdtempSync(join(tmpdir(), 'certferry-trust-outputs-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const passwordFile = join(folder, 'password')
const { root } = await createTestCa()
const anchors = nextAnchors([root], [], { now: 0, keepMs: 0, isUsed: () => false })
const set = toTrustSet({ anchors, lists: [], origin: 'trust peers', receivedAt: Date.now() })
const open = (more: object) => trustOutputs.create(trustOutputs.schema.parse({ directory: folder, ...more }), undefined)

describe('the trust store of a trust', () => {
  const output = open({ kind: 'pkcs12', passwordFile })
  const written = () => output.render(set)[0]?.content.toString('base64')
  const withPassword = (password: string, mode = 0o400) => {
    rmSync(passwordFile, { force: true })
    writeFileSync(passwordFile, password)
    chmodSync(passwordFile, mode)
  }

  it('is the same bytes for the same CAs and password, and others for another', () => {
    withPassword('geheim 1')
    const first = written()
    assert.equal(written(), first)
    withPassword('geheim 2')
    assert.notEqual(written(), first)
  })

  it('needs its password before anything is read: a file of its own that not everybody may read, of one line', async () => {
    const refusal = async () => {
      const { code, message } = await failure(output.prepare?.() ?? assert.fail())
      return `${code} ${message.replaceAll(passwordFile, 'FILE')}`
    }
    rmSync(passwordFile, { force: true })
    assert.equal(await refusal(), 'PASSWORD_FILE cannot read FILE (ENOENT)')
    withPassword('geheim', 0o644)
    assert.equal(await refusal(), 'PASSWORD_FILE FILE has mode 0644: everybody may read the password')
    withPassword('')
    assert.equal(await refusal(), 'PASSWORD_FILE FILE is empty')
    withPassword('one\ntwo\n')
    assert.equal(await refusal(), 'PASSWORD_FILE FILE holds more than one line, or more than ASCII')
    withPassword('geheim\n')
    await output.prepare?.()
  })

  it('is for all to read, unless the config says otherwise, as nothing in it is secret', () => {
    assert.equal(output.render(set)[0]?.mode, 0o644)
    assert.equal(open({ kind: 'pkcs12', passwordFile, mode: '0640' }).render(set)[0]?.mode, 0o640)
  })
})
