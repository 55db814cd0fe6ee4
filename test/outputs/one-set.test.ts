import assert from 'node:assert/strict'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { before, describe, type TestContext, test } from 'node:test'
import type { Bundle } from '../../src/core/bundle.ts'
import { LAYOUTS, render } from '../../src/outputs/output.ts'
import { createTestCa } from '../support/ca.ts'
import { openStore } from '../support/store.ts'
import { assertTidy, generationsIn, makeOutput, makeVolume, readPair, serials, snapshot } from '../support/volume.ts'

let [a, b]: Bundle[] = []
before(async () => {
  const ca = await createTestCa()
  ;[a, b] = await Promise.all([1, 2].map(async () => (await ca.issue({ withIntermediate: true })).bundle))
})
const bundles = (): [Bundle, Bundle] => (a && b ? [a, b] : assert.fail('no bundles'))

/** Two directories with one set, and a reader's view of both. */
async function open(t: TestContext, layout = 'generation', names: Record<string, unknown> = {}) {
  const volume = makeVolume(t)
  const [home, shown] = [join(volume, 'home'), join(volume, 'deep', 'shown')]
  const outputs = [
    makeOutput({ directory: home, layout }),
    makeOutput({ directory: shown, oneSetWith: home, ...names }),
    makeOutput({ kind: 'combined', directory: shown, oneSetWith: home }),
  ]
  const certificates = () =>
    [join(home, 'tls.crt'), join(shown, 'tls.crt')].map((file) => fs.readFileSync(file, 'utf8'))
  const assertBoth = ({ fingerprint }: Bundle) => {
    assert.equal(readPair(home, 'flat'), fingerprint)
    assert.equal(readPair(shown, 'flat', { certificate: 'tls.crt', key: 'tls.key' }), fingerprint)
    assert.equal(readPair(shown, 'flat', { certificate: 'tls.pem', key: 'tls.pem' }), fingerprint)
  }
  return { volume, home, shown, outputs, certificates, assertBoth, ...(await openStore(t, outputs)) }
}

for (const layout of LAYOUTS)
  describe(`a directory that is one set with another of layout ${layout}`, () => {
    test('holds links alone, which lead into the set of the other', async (t) => {
      const [first] = bundles()
      const { home, shown, outputs, store, assertBoth } = await open(t, layout)
      await store.preflight()
      const asked: (readonly string[])[] = []
      await store.apply(render(outputs, first), async (directories) => void asked.push(directories))
      assert.equal(asked[0]?.length, 1, 'there is one set to look at')
      assertBoth(first)
      assert.deepEqual(fs.readdirSync(shown).sort(), ['ca.crt', 'tls.crt', 'tls.key', 'tls.pem'])
      for (const name of fs.readdirSync(shown))
        assert.match(fs.readlinkSync(join(shown, name)), /^\.\.\/\.\.\/home\/\.\.data\/\.\.at-[0-9a-f]{8}-/)
      assert.ok(!fs.readdirSync(home).includes('tls.pem'))
      assertTidy(home)
      if (layout === 'nginx-include') assert.equal(readPair(home, layout), first.fingerprint)
    })

    test('changes with it, goes back with it, and is left alone otherwise', async (t) => {
      const [first, second] = bundles()
      const { home, shown, outputs, store, reopen, assertBoth } = await open(t, layout)
      await store.apply(render(outputs, first))
      await store.settle(1)
      const links = snapshot(shown)
      await store.apply(render(outputs, second))
      assertBoth(second)
      assert.deepEqual(snapshot(shown), links, 'not a link of it was touched')
      await store.undo()
      assertBoth(first)
      const { store: next, held } = await reopen()
      assert.deepEqual(serials(held.current, held.pending), serials(first, second))
      assert.equal((await next.apply(render(outputs, first))).changed, false)
      assert.deepEqual(await next.repair(), [])
      assert.deepEqual(snapshot(shown), links)
      assert.equal(generationsIn(home).length, 2)
    })
  })

describe('a directory that is one set with another', () => {
  test('gets back what was removed, replaced or left half done', async (t) => {
    const [first] = bundles()
    const { shown, outputs, store, reopen, assertBoth } = await open(t)
    await store.apply(render(outputs, first))
    const whats = (repairs: readonly { path: string; what: string }[]) =>
      repairs.map(({ path, what }) => [path.replace(`${shown}/`, ''), what])
    fs.rmSync(join(shown, 'tls.key'))
    fs.rmSync(join(shown, 'tls.crt'))
    fs.writeFileSync(join(shown, 'tls.crt'), 'of somebody else')
    assert.deepEqual(whats(await store.repair()), [
      ['tls.key', 'missing'],
      ['tls.crt', 'type'],
    ])
    assertBoth(first)
    fs.symlinkSync('nowhere', join(shown, '..tmp-0123456789abcdef'))
    fs.rmSync(join(shown, 'ca.crt'))
    fs.symlinkSync('/etc/hostname', join(shown, 'ca.crt'))
    const { store: next } = await reopen()
    assert.deepEqual(fs.readdirSync(shown).sort(), ['ca.crt', 'tls.crt', 'tls.key', 'tls.pem'])
    assertBoth(first)
    assert.deepEqual(await next.repair(), [])
  })

  test('loses the names that the config names no more', async (t) => {
    const [first] = bundles()
    const { home, shown, outputs, store, reopen } = await open(t)
    await store.apply(render(outputs, first))
    const others = [outputs[0] ?? assert.fail(), makeOutput({ kind: 'der', directory: shown, oneSetWith: home })]
    const { store: next } = await reopen(others)
    assert.equal((await next.apply(render(others, first))).changed, true)
    assert.deepEqual(fs.readdirSync(shown).sort(), ['tls.der', 'tls.key.der'])
    assert.deepEqual(fs.readFileSync(join(shown, 'tls.der')), first.leaf.raw)
  })

  test('may have had a set of its own before, and may have one again', async (t) => {
    const [first, second] = bundles()
    const { home, shown, outputs, store, reopen, assertBoth } = await open(t)
    await store.apply(render(outputs, first))
    const apart = [makeOutput({ directory: home }), makeOutput({ directory: shown })]
    const alone = await reopen(apart)
    await alone.store.apply(render(apart, second))
    assert.equal(readPair(shown, 'generation'), second.fingerprint)
    assert.equal(fs.readlinkSync(join(shown, 'tls.crt')), '..data/tls.crt')
    const { store: together } = await alone.reopen(outputs)
    await together.apply(render(outputs, second))
    assertBoth(second)
  })

  test('is held by one process, and must stay the one that was opened', async (t) => {
    const [first] = bundles()
    const { home, shown, outputs, store } = await open(t)
    await assert.rejects(openStore(t, [makeOutput({ directory: shown })]), { code: 'LOCK_HELD' })
    fs.renameSync(shown, `${shown}.old`)
    fs.mkdirSync(shown, { mode: 0o700 })
    await assert.rejects(store.apply(render(outputs, first)), { code: 'VOLUME_REPLACED' })
    assert.deepEqual(generationsIn(home), [])
  })

  test('lets go of what it opened when a directory cannot be opened', async (t) => {
    const volume = makeVolume(t)
    const home = join(volume, 'home')
    fs.writeFileSync(join(volume, 'shown'), 'no directory')
    const outputs = [
      makeOutput({ directory: home }),
      makeOutput({ directory: join(volume, 'shown'), oneSetWith: home }),
    ]
    await assert.rejects(openStore(t, outputs), { code: 'VOLUME_UNAVAILABLE' })
    await openStore(t, outputs.slice(0, 1))
  })

  test('leaves what stands in the way of a name', async (t) => {
    const [first] = bundles()
    const { shown, outputs, store } = await open(t)
    fs.mkdirSync(join(shown, 'tls.key'))
    await assert.rejects(store.preflight(), { code: 'FOREIGN_OBJECT', message: /shown\/tls\.key is neither/ })
    await assert.rejects(store.apply(render(outputs, first)), { code: 'FOREIGN_OBJECT' })
    assert.deepEqual(fs.readdirSync(shown), ['tls.key'])
  })
})
