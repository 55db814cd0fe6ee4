import assert from 'node:assert/strict'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { accountKey } from '../../src/acme/account.ts'

describe('the key of an account', () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'certferry-acme-'))
  })
  after(() => rm(folder, { recursive: true, force: true }))

  it('is made once, for its owner alone, whoever asks at the same time', async () => {
    const file = join(folder, 'new.pem')
    const [one, other] = await Promise.all([accountKey(file), accountKey(file)])
    const pem = await readFile(file, 'utf8')
    for (const key of [one, other, await accountKey(file)])
      assert.equal(key.export({ type: 'pkcs8', format: 'pem' }).toString().trim(), pem.trim())
    assert.equal((await stat(file)).mode & 0o777, 0o600)
  })
  it('that others may read is refused', async () => {
    const file = join(folder, 'open.pem')
    await accountKey(file)
    await chmod(file, 0o644)
    await assert.rejects(accountKey(file), /has mode 644: others may read it; chmod 600/)
  })
  it('that is none is refused, and left alone', async () => {
    const file = join(folder, 'garbage.pem')
    await writeFile(file, 'nothing', { mode: 0o600 })
    await assert.rejects(accountKey(file), /holds no private key in PEM/)
    assert.equal(await readFile(file, 'utf8'), 'nothing')
  })
  it('needs a folder that is there', async () => {
    await assert.rejects(
      accountKey(join(folder, 'no/such/key.pem')),
      /cannot be made \(ENOENT\); make its directory first$/,
    )
  })
})
