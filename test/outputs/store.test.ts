import assert from 'node:assert/strict'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { before, describe, type TestContext, test } from 'node:test'
import type { Bundle } from '../../src/core/bundle.ts'
import { withStaple } from '../../src/core/staple.ts'
import { LAYOUTS, type Layout, type Output, render } from '../../src/outputs/output.ts'
import { createTestCa } from '../support/ca.ts'
import { openStore } from '../support/store.ts'
import {
  assertTidy,
  currentIn,
  generationsIn,
  makeOutput,
  makeVolume,
  readPair,
  serials,
  snapshot,
} from '../support/volume.ts'

let [a, b, c]: Bundle[] = []
before(async () => {
  const ca = await createTestCa()
  ;[a, b, c] = await Promise.all(
    Array.from({ length: 3 }, async () => (await ca.issue({ withIntermediate: true })).bundle),
  )
})
const bundles = (): [Bundle, Bundle, Bundle] => {
  assert.ok(a && b && c)
  return [a, b, c]
}

const KINDS = ['pem', 'combined'] as const

/** What every layout of every kind promises. */
for (const layout of LAYOUTS)
  for (const kind of KINDS)
    describe(`${kind} in layout ${layout}`, () => {
      const open = async (t: TestContext) => {
        const directory = join(makeVolume(t), 'tls')
        const output = makeOutput({ kind, layout, directory })
        return { directory, output, ...(await openStore(t, [output])) }
      }
      const userNames = [
        ...(kind === 'pem' ? ['ca.crt', 'tls.crt', 'tls.key'] : ['tls.pem']),
        ...(layout === 'nginx-include' ? ['tls.conf'] : []),
      ].sort()
      const visible = (directory: string) => fs.readdirSync(directory).filter((name) => !name.startsWith('..'))

      test('makes the directory, and shows exactly the files of the set, for their owner alone', async (t) => {
        const [first] = bundles()
        const { directory, output, store, held } = await open(t)
        assert.deepEqual(held, { current: undefined, pending: undefined })
        await store.preflight()
        const change = await store.apply(render([output], first))
        assert.deepEqual(change, { changed: true, previous: undefined })
        assert.equal(readPair(directory, layout), first.fingerprint)
        assert.deepEqual(visible(directory).sort(), userNames)
        for (const [name, content] of contents(output, first))
          assert.deepEqual(fs.readFileSync(join(directory, name)), content, name)
        assertTidy(directory)
      })

      test('knows since when the set in service is proven, after a restart too', async (t) => {
        const [first, second] = bundles()
        const { output, store, reopen } = await open(t)
        await store.apply(render([output], first))
        await store.settle(1)
        const { store: next } = await reopen()
        await next.settle(2)
        assert.deepEqual(next.memory.verified, { fingerprint: first.fingerprint, at: 1 })
        await next.apply(render([output], second))
        await next.settle(3)
        assert.deepEqual(next.memory.verified, { fingerprint: second.fingerprint, at: 3 })
      })

      test('touches nothing when the same set is applied, before and after a restart', async (t) => {
        const [first] = bundles()
        const { directory, output, store, reopen } = await open(t)
        await store.apply(render([output], first))
        await store.settle(1)
        const untouched = snapshot(directory)
        const noVeto = () => assert.fail('asked about an unchanged set')
        assert.equal((await store.apply(render([output], first), noVeto)).changed, false)
        const { store: next, held } = await reopen()
        assert.equal(held.current?.fingerprint, first.fingerprint)
        assert.equal((await next.apply(render([output], first), noVeto)).changed, false)
        assert.deepEqual(await next.repair(), [])
        assert.deepEqual(snapshot(directory), untouched)
      })

      test('swaps the set, and leaves the one before for those who read it still', async (t) => {
        const [first, second] = bundles()
        const { directory, output, store } = await open(t)
        await store.apply(render([output], first))
        await store.settle(1)
        const old = currentIn(directory)
        const change = await store.apply(render([output], second))
        assert.deepEqual(serials(change.previous, store.current), serials(first, second))
        assert.equal(readPair(directory, layout), second.fingerprint)
        for (const [name, content] of contents(output, first))
          assert.deepEqual(fs.readFileSync(join(old, name)), content)
        assertTidy(directory)
      })

      test('goes back to the proven set, and keeps the refused one to try again after a restart', async (t) => {
        const [first, second] = bundles()
        const { directory, output, store, reopen } = await open(t)
        await store.apply(render([output], first))
        await store.settle(1)
        await store.apply(render([output], second))
        await store.undo()
        assert.equal(readPair(directory, layout), first.fingerprint)
        assert.deepEqual(serials(store.current), serials(first))
        assert.deepEqual(store.memory.rejected, [second.fingerprint])

        const { store: next, held } = await reopen()
        assert.deepEqual(serials(held.current, held.pending), serials(first, second))
        assert.equal(readPair(directory, layout), first.fingerprint)
        const generations = generationsIn(directory)
        const retried = await next.apply(render([output], second))
        assert.deepEqual(serials(retried.previous), serials(first))
        assert.deepEqual(generationsIn(directory), generations, 'the set on disk is used again')
        await next.settle(2)
        assert.deepEqual(next.memory.rejected, [])
        assert.equal(readPair(directory, layout), second.fingerprint)
        assertTidy(directory)
      })

      test('leaves the old set in place when the caller says no, and keeps the new one to try again', async (t) => {
        const [first, second] = bundles()
        const { directory, output, store, reopen } = await open(t)
        await store.apply(render([output], first))
        const shown = visible(directory).map((name) => [name, fs.readFileSync(join(directory, name), 'utf8')])
        const veto = new Error('nginx -t failed')
        const refuse = async ([path = '', ...others]: readonly string[]) => {
          assert.deepEqual(others, [])
          for (const [name, content] of contents(output, second))
            assert.deepEqual(fs.readFileSync(join(path, name)), content, `${name} is complete before the commit`)
          throw veto
        }
        await assert.rejects(store.apply(render([output], second), refuse), veto)
        assert.deepEqual(
          visible(directory).map((name) => [name, fs.readFileSync(join(directory, name), 'utf8')]),
          shown,
        )
        assertTidy(directory)
        const { held } = await reopen()
        assert.deepEqual(serials(held.current, held.pending), serials(first, second))
      })

      test('keeps another edition of the same certificate over a restart, and condemns nothing when one is vetoed', async (t) => {
        const [first] = bundles()
        const directory = join(makeVolume(t), 'tls')
        const named = kind === 'pem' ? { files: { ocsp: 'tls.ocsp' } } : { ocspFile: 'tls.ocsp' }
        const withOcsp = makeOutput({ kind, layout, directory, ...named })
        const { store, reopen } = await openStore(t, [withOcsp])
        const edition = (text: string) => withStaple(first, { der: Buffer.from(text), thisUpdate: 1, nextUpdate: 2 })
        await store.apply(render([withOcsp], edition('one')))
        await store.settle(1)
        const veto = new Error('nginx -t failed')
        await assert.rejects(
          store.apply(render([withOcsp], edition('two')), () => Promise.reject(veto)),
          veto,
        )
        assert.deepEqual(store.memory.rejected, [])
        assert.equal(fs.readFileSync(join(directory, 'tls.ocsp'), 'utf8'), 'one')
        assert.equal((await store.apply(render([withOcsp], edition('two')))).changed, true)
        assert.equal((await store.apply(render([withOcsp], edition('two')))).changed, false)
        assert.equal(fs.readFileSync(join(directory, 'tls.ocsp'), 'utf8'), 'two')
        const { held } = await reopen()
        assert.deepEqual(held.current?.staple, edition('two').staple)
        assert.deepEqual(serials(held.current, held.pending), serials(first, undefined))
      })

      test('rolls a complete set forward that was never committed', async (t) => {
        const [first, second] = bundles()
        const { directory, output, store, reopen } = await open(t)
        await store.apply(render([output], first))
        await store.settle(1)
        const before = currentIn(directory)
        await store.apply(render([output], second))
        // As it is on disk after step 6 of building, before the first link moves.
        relink(join(directory, '..data'), before)
        fs.rmSync(join(directory, '..prev'))
        if (layout === 'flat') copyAll(before, directory, output.names)
        const { store: next, held } = await reopen()
        assert.deepEqual(serials(held.current, held.pending), serials(second, undefined))
        assert.equal(readPair(directory, layout), second.fingerprint)
        await next.undo()
        assert.equal(readPair(directory, layout), first.fingerprint, 'and can still go back')
      })

      test('shows what ..data names after a stop between the commit and the last visible name', async (t) => {
        const [first, second] = bundles()
        const { directory, output, store, reopen } = await open(t)
        await store.apply(render([output], first))
        const former = currentIn(directory)
        await store.apply(render([output], second))
        const [last = ''] = userNames.slice(-1)
        fs.rmSync(join(directory, last))
        if (layout === 'flat') copyAll(former, directory, [last])
        await reopen()
        assert.equal(readPair(directory, layout), second.fingerprint)
        for (const [name, content] of contents(output, second))
          assert.deepEqual(fs.readFileSync(join(directory, name)), content, name)
      })

      // What a file holds makes no difference here, and there is much to restore.
      if (kind === 'combined') return
      test('restores whatever somebody else did to the files', async (t) => {
        const [first, second] = bundles()
        const { directory, output, store } = await open(t)
        await store.apply(render([output], first))
        await store.settle(1)
        await store.apply(render([output], second))
        for (const [why, tamper, ...expected] of tamperings(directory, layout, output.names[0] ?? '')) {
          tamper()
          const repairs = await store.repair()
          assert.deepEqual(
            repairs.map(
              ({ path, what }) => `${what} ${path.replace(/\.\.gen-[^/]+/, 'GEN').slice(directory.length + 1)}`,
            ),
            expected,
            why,
          )
          assert.equal(readPair(directory, layout), second.fingerprint, why)
          for (const [name, content] of contents(output, second))
            assert.deepEqual(fs.readFileSync(join(directory, name)), content, `${why}: ${name}`)
          assert.deepEqual(await store.repair(), [], `${why}: nothing is left to repair`)
        }
        await store.undo()
        assert.equal(readPair(directory, layout), first.fingerprint, 'and can still go back')
      })
    })

const contents = (output: Output, bundle: Bundle) =>
  output.render(bundle).map(({ name, content }): [string, Buffer] => [name, content])

function relink(link: string, target: string): void {
  fs.rmSync(link, { force: true })
  fs.symlinkSync(target.slice(target.lastIndexOf('/') + 1), link)
}

const copyAll = (from: string, to: string, names: readonly string[]) => {
  for (const name of names) {
    fs.copyFileSync(join(from, name), join(to, name))
    fs.chmodSync(join(to, name), 0o600)
  }
}

type Tampering = [why: string, act: () => void, ...repairs: string[]]

function tamperings(directory: string, layout: Layout, name: string): Tampering[] {
  const user = join(directory, name)
  const inside = () => join(currentIn(directory), name)
  const flip = (path: string) => {
    const content = fs.readFileSync(path)
    content[60] = (content[60] ?? 0) ^ 1
    fs.writeFileSync(path, content)
  }
  const atUserName: Tampering[] =
    layout === 'flat'
      ? [
          ['a file was edited, its size the same', () => flip(user), `content ${name}`],
          ['a file was appended to', () => fs.appendFileSync(user, 'x'), `content ${name}`],
          ['a file was opened to all', () => fs.chmodSync(user, 0o644), `mode ${name}`],
          [
            'a file was given away',
            () => (process.geteuid?.() === 0 ? fs.chownSync(user, 12, 12) : fs.chmodSync(user, 0o644)),
            `${process.geteuid?.() === 0 ? 'owner' : 'mode'} ${name}`,
          ],
          ['a second name was given to a file', () => fs.linkSync(user, `${directory}/copy`), `links ${name}`],
        ]
      : [['a link was replaced by a file', () => replace(user, () => fs.writeFileSync(user, 'x')), `type ${name}`]]
  return [
    ...atUserName,
    ['a name was removed', () => fs.rmSync(user), `missing ${name}`],
    [
      'a name was pointed elsewhere',
      () => replace(user, () => fs.symlinkSync('/etc/passwd', user)),
      `${layout === 'flat' ? 'type' : 'content'} ${name}`,
    ],
    ['a file of the generation was edited', () => flip(inside()), `content GEN/${name}`],
    ['a file of the generation was opened to all', () => fs.chmodSync(inside(), 0o666), `mode GEN/${name}`],
    ['a file of the generation was removed', () => fs.rmSync(inside()), `missing GEN/${name}`],
    [
      'a file of the generation was linked elsewhere',
      () => fs.linkSync(inside(), join(directory, 'copy2')),
      `links GEN/${name}`,
    ],
    ['the generation was opened to all', () => fs.chmodSync(currentIn(directory), 0o777), 'mode GEN'],
    [
      'the manifest was edited',
      () => fs.appendFileSync(join(currentIn(directory), '..manifest.json'), ' '),
      'content GEN/..manifest.json',
    ],
    ['the whole generation was removed', () => fs.rmSync(currentIn(directory), { recursive: true }), 'missing GEN'],
    [
      'the commit was turned back',
      () => relink(join(directory, '..data'), fs.readlinkSync(join(directory, '..prev'))),
      'content ..data',
    ],
    ['the commit was removed', () => fs.rmSync(join(directory, '..data')), 'missing ..data'],
    ['the way back was removed', () => fs.rmSync(join(directory, '..prev')), 'missing ..prev'],
  ]
}

function replace(path: string, make: () => void): void {
  fs.rmSync(path)
  make()
}
