import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { before, describe, type TestContext, test } from 'node:test'
import type { Bundle } from '../../src/core/bundle.ts'
import { render } from '../../src/outputs/output.ts'
import { secretOutputs } from '../../src/outputs/secrets.ts'
import { createTestCa } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { openStore } from '../support/store.ts'
import { makeOutput, makeVolume } from '../support/volume.ts'

let bundle: Bundle
before(async () => {
  bundle = (await (await createTestCa()).issue()).bundle
})
const acl = (file: string) =>
  execFileSync('getfacl', ['-cn', '--absolute-names', file], { encoding: 'utf8' }).trim().split('\n')

/** A set in place whose key two others may read. */
async function inPlace(t: TestContext, layout: string) {
  const directory = join(makeVolume(t), 'tls')
  const output = makeOutput({ directory, layout, files: { key: { acl: ['u:990:r', 'g:991:r'] } } })
  const { store, reopen } = await openStore(t, [output], { now: () => Date.now() + 60_000 })
  await store.apply(render([output], bundle))
  await store.settle(1)
  const [key, certificate] = [join(directory, 'tls.key'), join(directory, 'tls.crt')]
  return { directory, output, store, reopen, key, certificate }
}

const WANTED = ['user::rw-', 'user:990:r--', 'group::---', 'group:991:r--', 'mask::r--', 'other::---']

test('an output of a secret has one as well', () => {
  const options = { kind: 'dotenv', directory: '/secrets', file: '.env', acl: ['g:app:r'] }
  const output = secretOutputs.create(secretOutputs.schema.parse(options), { values: ['db'] })
  assert.equal(output.isShared, true)
  const snapshot = { readings: {}, fingerprint: '', serial: '', notBefore: 0, notAfter: 0, receivedAt: 0, origin: '' }
  assert.deepEqual(
    output.render(snapshot).map(({ acl }) => acl),
    [['g:app:r']],
  )
})

describe('an ACL of a file', { skip: await skipReason('setfacl') }, () => {
  for (const layout of ['generation', 'flat']) {
    test(`is on it before it is in place, and is left alone (${layout})`, async (t) => {
      const { directory, output, store, reopen, key, certificate } = await inPlace(t, layout)
      assert.deepEqual(acl(key), WANTED)
      assert.deepEqual(acl(certificate), ['user::rw-', 'group::---', 'other::---'])
      assert.equal(fs.statSync(directory).mode & 0o777, 0o711, 'others pass through')
      const generation = join(directory, fs.readlinkSync(join(directory, '..data')))
      assert.equal(fs.statSync(generation).mode & 0o777, 0o711)
      assert.equal((await store.apply(render([output], bundle))).changed, false)
      const { store: next } = await reopen()
      assert.equal((await next.apply(render([output], bundle))).changed, false)
      assert.deepEqual(await next.repair(), [])
    })

    test(`comes back where it was taken away, extended or masked (${layout})`, async (t) => {
      const { store, key } = await inPlace(t, layout)
      for (const change of [['-b'], ['-m', 'u:992:r'], ['-m', 'm::-'], ['-x', 'g:991']]) {
        execFileSync('setfacl', [...change, fs.realpathSync(key)])
        const repairs = await store.repair()
        assert.ok(
          repairs.some(({ what }) => what === 'acl' || what === 'mode'),
          `${change}: ${JSON.stringify(repairs)}`,
        )
        assert.deepEqual(acl(key), WANTED, change.join(' '))
        assert.deepEqual(await store.repair(), [])
      }
    })
  }

  test('lets the user read that it names, and nobody else', {
    skip: process.geteuid?.() !== 0 && 'only root can be somebody else',
  }, async (t) => {
    const { directory, key } = await inPlace(t, 'generation')
    fs.chmodSync(join(directory, '..'), 0o711)
    const readAs = (uid: number) => execFileSync('cat', [key], { uid, gid: 65_534, stdio: 'pipe' }).toString()
    assert.match(readAs(990), /^-----BEGIN PRIVATE KEY-----/)
    assert.throws(() => readAs(993), /Permission denied/)
  })

  test('says what is wrong where it cannot be set, and leaves nothing', async (t) => {
    const directory = join(makeVolume(t), 'tls')
    const output = makeOutput({ directory, acl: ['u:nobody-of-that-name:r'] })
    const { store } = await openStore(t, [output])
    await assert.rejects(store.apply(render([output], bundle)), {
      code: 'ACL_DENIED',
      message: /setfacl --set .*u:nobody-of-that-name:r of .*ca\.crt failed: .*Invalid argument/,
    })
    assert.deepEqual(
      fs.readdirSync(directory).filter((name) => name.includes('gen') || name.includes('tmp')),
      [],
    )
  })
})
