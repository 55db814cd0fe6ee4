import assert from 'node:assert/strict'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { before, describe, type TestContext, test } from 'node:test'
import type { Bundle } from '../../src/core/bundle.ts'
import { createStore } from '../../src/outputs/disk-store.ts'
import { LAYOUTS, type Output, render } from '../../src/outputs/output.ts'
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

let issued: Bundle[] = []
before(async () => {
  const ca = await createTestCa()
  issued = await Promise.all(Array.from({ length: 4 }, async () => (await ca.issue()).bundle))
})
const bundle = (index: number): Bundle => {
  const found = issued[index]
  assert.ok(found)
  return found
}

/** A store with set 0 proven and set 1 in place, unless told otherwise. */
async function openWithSets(t: TestContext, { sets = 2, options = {} } = {}) {
  const output = makeOutput({ directory: join(makeVolume(t), 'tls'), ...options })
  const opened = await openStore(t, [output])
  for (let index = 0; index < sets; index += 1) {
    await opened.store.apply(render([output], bundle(index)))
    if (index === 0) await opened.store.settle(1)
  }
  return { ...opened, output, directory: output.directory }
}

describe('a start', () => {
  test('F14 clears temporary files and half-written generations', async (t) => {
    const { directory, reopen } = await openWithSets(t)
    const current = currentIn(directory)
    const clean = fs.readdirSync(directory).sort()
    fs.writeFileSync(join(directory, '..tmp-0123456789abcdef'), 'key')
    fs.symlinkSync('nowhere', join(directory, '..tmp-0123456789abcdee'))
    fs.mkdirSync(join(directory, '..gen-99999999999999-00000000'))
    for (const [index, spoil] of [
      (path: string) => fs.rmSync(join(path, '..manifest.json')),
      (path: string) => fs.truncateSync(join(path, '..manifest.json'), 40),
      (path: string) => fs.truncateSync(join(path, 'tls.key'), 10),
      (path: string) => fs.rmSync(join(path, '..bundle.pem')),
    ].entries()) {
      const half = join(directory, `..gen-99999999999999-0000001${index}`)
      fs.cpSync(current, half, { recursive: true })
      spoil(half)
    }
    const { held } = await reopen()
    assert.deepEqual(serials(held.current, held.pending), serials(bundle(1), undefined))
    assert.deepEqual(fs.readdirSync(directory).sort(), clean)
  })

  test('F14 clears them before the next write as well', async (t) => {
    const { directory, output, store } = await openWithSets(t)
    for (const act of [() => store.preflight(), () => store.apply(render([output], bundle(2)))]) {
      fs.writeFileSync(join(directory, '..tmp-0123456789abcdef'), 'key')
      fs.mkdirSync(join(directory, '..gen-1-00000000'))
      await act()
      assertTidy(directory)
      assert.ok(!fs.existsSync(join(directory, '..gen-1-00000000')))
    }
  })

  test('writes nothing where nothing was left behind', async (t) => {
    const { directory, reopen } = await openWithSets(t)
    const untouched = snapshot(directory)
    await reopen()
    assert.deepEqual(snapshot(directory), untouched)
  })

  const rows: [why: string, spoil: (directory: string) => void, held: number | undefined][] = [
    ['keeps the set in place when the way back is gone', (directory) => fs.rmSync(join(directory, '..prev')), 1],
    ['returns to the proven set when ..data is gone', (directory) => fs.rmSync(join(directory, '..data')), 1],
    [
      'returns to the proven set when the set in place is gone',
      (directory) => fs.rmSync(currentIn(directory), { recursive: true }),
      0,
    ],
    [
      'returns to the proven set when the bundle in place is damaged',
      (directory) => fs.writeFileSync(join(currentIn(directory), '..bundle.pem'), 'x'),
      0,
    ],
    [
      'returns to the proven set when the manifest in place is damaged',
      (directory) => fs.writeFileSync(join(currentIn(directory), '..manifest.json'), '{}'),
      0,
    ],
    [
      'makes the files of the set in place anew when they are damaged',
      (directory) => fs.writeFileSync(join(currentIn(directory), 'tls.key'), 'x'),
      1,
    ],
    [
      'finds a whole set when both links are gone',
      (directory) => {
        fs.rmSync(join(directory, '..data'))
        fs.rmSync(join(directory, '..prev'))
      },
      1,
    ],
    [
      'holds nothing when nothing whole is left',
      (directory) => {
        for (const name of generationsIn(directory)) fs.writeFileSync(join(directory, name, '..bundle.pem'), 'x')
      },
      undefined,
    ],
  ]
  for (const layout of ['generation', 'flat'] as const)
    for (const [why, spoil, expected] of rows) {
      test(`${why} (${layout})`, async (t) => {
        const { directory, output, reopen } = await openWithSets(t, { options: { layout } })
        spoil(directory)
        const { store, held } = await reopen()
        const good = expected === undefined ? undefined : bundle(expected)
        assert.equal(held.current?.serial, good?.serial)
        if (good) assert.equal(readPair(directory, layout), good.fingerprint)
        await store.apply(render([output], bundle(2)))
        assert.equal(readPair(directory, layout), bundle(2).fingerprint)
        assertTidy(directory)
      })
    }

  test('does not put a set back into place that was superseded, even when the clock went back in between', async (t) => {
    const output = makeOutput({ directory: join(makeVolume(t), 'tls') })
    const future = { ...bundle(0), receivedAt: bundle(0).receivedAt + 86_400_000 }
    let now = Date.now() + 86_400_000
    const { store, reopen } = await openStore(t, [output], { now: () => now })
    await store.apply(render([output], future))
    await store.settle(now)
    now -= 86_400_000
    await store.apply(render([output], bundle(1)))
    await store.settle(now)
    const { held } = await reopen()
    assert.deepEqual(serials(held.current, held.pending), serials(bundle(1), undefined))
  })

  test('puts no condemned set into place, but leaves one that is', async (t) => {
    const { directory, store, reopen } = await openWithSets(t)
    await store.remember({ condemned: [bundle(0).fingerprint] })
    const link = join(directory, '..data')
    fs.rmSync(currentIn(directory), { recursive: true })
    const { held, reopen: again } = await reopen()
    assert.equal(held.current, undefined)
    fs.rmSync(link)
    fs.symlinkSync(fs.readlinkSync(join(directory, '..prev')), link)
    assert.equal((await again()).held.current?.serial, bundle(0).serial)
  })

  test('does not offer a condemned set for another try', async (t) => {
    const { store, reopen } = await openWithSets(t)
    await store.undo()
    await store.remember({ condemned: [bundle(1).fingerprint] })
    const { held } = await reopen()
    assert.deepEqual(serials(held.current, held.pending), serials(bundle(0), undefined))
  })

  test('goes on with nothing but a fresh memory when the state is damaged', async (t) => {
    const { directory, store, reopen } = await openWithSets(t)
    const { seed } = store.memory
    await store.remember({ issuedAt: [1, 2], told: 'x' })
    const { store: same, reopen: again } = await reopen()
    assert.deepEqual(same.memory, {
      seed,
      issuedAt: [1, 2],
      told: 'x',
      verified: { fingerprint: bundle(0).fingerprint, at: 1 },
      rejected: [],
      condemned: [],
      toRevoke: [],
    })
    fs.writeFileSync(join(directory, '..state.json'), '{"schema":1,')
    const { store: next, held } = await again()
    assert.equal(held.current?.serial, bundle(1).serial)
    assert.deepEqual(
      { ...next.memory, seed: '' },
      { seed: '', issuedAt: [], told: undefined, verified: undefined, rejected: [], condemned: [], toRevoke: [] },
    )
    assert.notEqual(next.memory.seed, seed)
  })
})

describe('undo', () => {
  test('does nothing while no other set is proven', async (t) => {
    const output = makeOutput({ directory: join(makeVolume(t), 'tls') })
    const { store } = await openStore(t, [output])
    await store.undo()
    await store.settle(1)
    await store.apply(render([output], bundle(0)))
    await store.undo()
    await store.apply(render([output], bundle(1)))
    const untouched = snapshot(output.directory)
    await store.undo()
    assert.deepEqual(snapshot(output.directory), untouched)
    await store.settle(1)
    await store.undo()
    assert.equal(readPair(output.directory, 'generation'), bundle(1).fingerprint)
    assert.deepEqual(store.memory.rejected, [])
  })

  test('goes back to the proven set over several that were not', async (t) => {
    const { directory, output, store } = await openWithSets(t)
    const change = await store.apply(render([output], bundle(2)))
    assert.equal(change.previous?.serial, bundle(0).serial)
    await store.undo()
    assert.equal(readPair(directory, 'generation'), bundle(0).fingerprint)
  })

  test('makes the proven set anew when its files were damaged', async (t) => {
    const { directory, store } = await openWithSets(t)
    fs.writeFileSync(join(directory, '..prev/tls.crt'), 'x')
    await store.undo()
    assert.equal(readPair(directory, 'generation'), bundle(0).fingerprint)
    assertTidy(directory)
  })

  test('leaves what it cannot decide: a refused set in place stays in place after a restart', async (t) => {
    const { store, output, directory, reopen } = await openWithSets(t)
    await store.undo()
    await store.apply(render([output], bundle(1)))
    const { held } = await reopen()
    assert.deepEqual(serials(held.current, held.pending), serials(bundle(1), undefined))
    assert.equal(readPair(directory, 'generation'), bundle(1).fingerprint)
  })
})

describe('generations', () => {
  const KEEP_MS = 600_000

  async function openAt(t: TestContext, start = 1_000_000_000_000) {
    const clock = { now: start }
    const output = makeOutput({ directory: join(makeVolume(t), 'tls') })
    const opened = await openStore(t, [output], { now: () => clock.now })
    const put = async (index: number) => {
      await opened.store.apply(render([output], bundle(index)))
      return currentIn(output.directory)
    }
    return { ...opened, output, clock, put, directory: output.directory }
  }

  test('stay for slow readers, then go, except the one in place and the one to go back to', async (t) => {
    const { store, clock, put, directory } = await openAt(t)
    const old = await put(0)
    await store.settle(1)
    clock.now += 86_400_000
    const proven = await put(1)
    await store.settle(2)
    const current = await put(2)
    clock.now += KEEP_MS
    await store.repair()
    assert.ok(fs.existsSync(old), 'it was in place until ten minutes ago')
    clock.now += 1
    await store.preflight()
    assert.deepEqual(
      generationsIn(directory).map((name) => join(directory, name)),
      [proven, current],
    )
    clock.now += 10 * KEEP_MS
    await store.repair()
    assert.deepEqual(
      generationsIn(directory).map((name) => join(directory, name)),
      [proven, current],
    )
  })

  test('stay for slow readers no longer than their certificate lives', async (t) => {
    const { store, clock, put, directory, output } = await openAt(t)
    const minute = await (await createTestCa()).issue({ notAfter: new Date(Date.now() + 60_000) })
    await store.apply(render([output], minute.bundle))
    const brief = currentIn(directory)
    await put(0)
    clock.now += 58_000
    await store.preflight()
    assert.ok(fs.existsSync(brief))
    clock.now += 2_001
    await store.preflight()
    assert.ok(!fs.existsSync(brief))
  })

  test('that somebody else removed stand in the way of nothing', async (t) => {
    const { store, clock, put, directory, output } = await openAt(t)
    const old = await put(0)
    await put(1)
    await put(2)
    fs.rmSync(old, { recursive: true })
    clock.now += KEEP_MS + 1
    await store.preflight()
    for (const name of fs.readdirSync(directory)) fs.rmSync(join(directory, name), { recursive: true })
    clock.now += KEEP_MS + 1
    await store.preflight()
    await store.repair()
    assert.equal(readPair(directory, 'generation'), bundle(2).fingerprint)
    await store.apply(render([output], bundle(1)))
    assert.equal(readPair(directory, 'generation'), bundle(1).fingerprint)
  })

  test('refused ones stay until a newer one is proven', async (t) => {
    const { store, clock, put, directory, reopen } = await openAt(t)
    await put(0)
    await store.settle(1)
    const refused = await put(1)
    await store.undo()
    clock.now += 10 * KEEP_MS
    const { store: next, held } = await reopen()
    assert.equal(held.pending?.serial, bundle(1).serial)
    assert.ok(fs.existsSync(refused))
    await next.apply(render([makeOutput({ directory })], bundle(2)))
    await next.settle(2)
    clock.now += KEEP_MS + 1
    await next.preflight()
    assert.ok(!fs.existsSync(refused))
  })

  test('do not pile up while the clock is behind', async (t) => {
    const { clock, put, directory, store } = await openAt(t)
    await put(0)
    clock.now -= 10 * KEEP_MS
    for (const index of [1, 2, 3]) await put(index)
    await store.preflight()
    assert.equal(generationsIn(directory).length, 1)
    assert.equal(readPair(directory, 'generation'), bundle(3).fingerprint)
  })
})

describe('a change of the config', () => {
  for (const from of LAYOUTS)
    for (const to of LAYOUTS) {
      if (from === to) continue
      test(`switches layout ${from} to ${to} with the same bundle`, async (t) => {
        const directory = join(makeVolume(t), 'tls')
        const [before, after] = [makeOutput({ directory, layout: from }), makeOutput({ directory, layout: to })]
        const { store, reopen } = await openStore(t, [before])
        await store.apply(render([before], bundle(0)))
        const { store: next, held } = await reopen([after])
        assert.equal(held.current?.serial, bundle(0).serial)
        assert.equal(readPair(directory, from), bundle(0).fingerprint)
        await next.apply(render([after], held.current ?? bundle(1)))
        assert.equal(readPair(directory, to), bundle(0).fingerprint)
        assert.equal(fs.lstatSync(join(directory, 'tls.key')).isSymbolicLink(), to !== 'flat')
        assert.equal(fs.existsSync(join(directory, 'tls.conf')), to === 'nginx-include')
      })
    }

  for (const layout of LAYOUTS) {
    test(`takes away names of earlier sets, as far as they are still ours (${layout})`, async (t) => {
      const directory = join(makeVolume(t), 'tls')
      const before = makeOutput({ directory, layout, files: { certificate: 'a', key: 'b', ca: 'c' } })
      const { store, reopen } = await openStore(t, [before])
      await store.apply(render([before], bundle(0)))
      await store.settle(1)
      const { store: next } = await reopen([makeOutput({ directory, layout })])
      fs.rmSync(join(directory, 'c'))
      fs.writeFileSync(join(directory, 'c'), 'of somebody else')
      await next.apply(render([makeOutput({ directory, layout })], bundle(1)))
      const names = fs.readdirSync(directory).filter((name) => !name.startsWith('..'))
      assert.deepEqual(names.filter((name) => name !== 'tls.conf').sort(), ['c', 'ca.crt', 'tls.crt', 'tls.key'])
      assert.equal(fs.readFileSync(join(directory, 'c'), 'utf8'), 'of somebody else')
      await next.undo()
      assert.equal(readPair(directory, layout, { certificate: 'a', key: 'b' }), bundle(0).fingerprint)
      assert.ok(!fs.existsSync(join(directory, 'tls.crt')), 'and back')
    })
  }

  test('changes modes and owners with the same bundle', async (t) => {
    const directory = join(makeVolume(t), 'tls')
    const { store, reopen } = await openStore(t, [makeOutput({ directory })])
    await store.apply(render([makeOutput({ directory })], bundle(0)))
    const shared = makeOutput({ directory, mode: '0640' })
    const { store: next } = await reopen([shared])
    assert.equal((await next.apply(render([shared], bundle(0)))).changed, true)
    assert.equal(fs.statSync(join(directory, 'tls.key')).mode & 0o777, 0o640)
  })

  test('puts another directory first and still finds bundle and memory', async (t) => {
    const volume = makeVolume(t)
    const [one, two] = [makeOutput({ directory: join(volume, '1') }), makeOutput({ directory: join(volume, '2') })]
    const { store, reopen } = await openStore(t, [one])
    await store.apply(render([one], bundle(0)))
    await store.settle(1)
    await store.remember({ issuedAt: [7] })
    const { store: next, held, reopen: again } = await reopen([two, one])
    assert.equal(held.current?.serial, bundle(0).serial)
    assert.deepEqual(next.memory.issuedAt, [7])
    await next.apply(render([two, one], bundle(0)))
    await next.remember({ told: 'x' })
    const { store: last, held: found } = await again([two])
    assert.equal(found.current?.serial, bundle(0).serial)
    assert.equal(last.memory.told, 'x')
  })
})

describe('several directories', () => {
  async function openTwo(
    t: TestContext,
  ): Promise<{ outputs: Output[]; first: string; second: string } & Awaited<ReturnType<typeof openStore>>> {
    const volume = makeVolume(t)
    const [first, second] = [join(volume, 'nginx'), join(volume, 'haproxy')]
    const outputs = [
      makeOutput({ directory: first }),
      makeOutput({ kind: 'combined', directory: second, layout: 'flat' }),
    ]
    return { outputs, first, second, ...(await openStore(t, outputs)) }
  }

  test('are written, taken back and looked after together', async (t) => {
    const { outputs, first, second, store } = await openTwo(t)
    const seen: string[] = []
    await store.apply(render(outputs, bundle(0)), async (directories) => void seen.push(...directories))
    assert.deepEqual(seen, [currentIn(first), currentIn(second)])
    await store.settle(1)
    await store.apply(render(outputs, bundle(1)))
    for (const index of [1, 0]) {
      assert.equal(readPair(first, 'generation'), bundle(index).fingerprint)
      assert.equal(readPair(second, 'flat'), bundle(index).fingerprint)
      await store.undo()
    }
    const damaged = join(currentIn(first), 'tls.key')
    fs.writeFileSync(damaged, 'x')
    fs.rmSync(join(second, 'tls.pem'))
    const repairs = await store.repair()
    assert.deepEqual(repairs.map(({ path }) => path).sort(), [damaged, join(second, 'tls.pem')].sort())
  })

  test('that disagree after a stop between two commits agree again at the next write of the same bundle', async (t) => {
    const { outputs, first, second, store, reopen } = await openTwo(t)
    await store.apply(render(outputs, bundle(0)))
    await store.apply(render(outputs.slice(0, 1), bundle(1)))
    const { store: next, held } = await reopen()
    assert.equal(held.current?.serial, bundle(1).serial)
    assert.equal(readPair(second, 'flat'), bundle(0).fingerprint)
    assert.equal((await next.apply(render(outputs, bundle(1)))).changed, true)
    assert.equal(readPair(second, 'flat'), bundle(1).fingerprint)
    assert.equal(readPair(first, 'generation'), bundle(1).fingerprint)
    assert.equal((await next.apply(render(outputs, bundle(1)))).changed, false)
  })

  test('leave nothing behind in one when the other cannot be written', async (t) => {
    const { outputs, first, second, store } = await openTwo(t)
    await store.apply(render(outputs, bundle(0)))
    fs.rmSync(join(second, 'tls.pem'))
    fs.mkdirSync(join(second, 'tls.pem'))
    fs.rmSync(join(first, 'tls.key'))
    await assert.rejects(store.apply(render(outputs, bundle(1))), /FOREIGN_OBJECT|neither a file/)
    assertTidy(first)
    assert.equal(readPair(first, 'generation'), bundle(0).fingerprint)
  })

  test('are taken back even where another one fails to be', async (t) => {
    const { outputs, first, second, store } = await openTwo(t)
    await store.apply(render(outputs, bundle(0)))
    await store.settle(1)
    await store.apply(render(outputs, bundle(1)))
    fs.renameSync(first, `${first}-moved`)
    await assert.rejects(store.undo(), /is gone/)
    assert.equal(readPair(second, 'flat'), bundle(0).fingerprint)
    fs.renameSync(`${first}-moved`, first)
    await store.undo()
    assert.equal(readPair(first, 'generation'), bundle(0).fingerprint)
    assert.equal(readPair(second, 'flat'), bundle(0).fingerprint)
  })

  test('F15 are locked all or none', async (t) => {
    const { outputs, store, second } = await openTwo(t)
    const other = createStore({
      certificate: 'other',
      outputs: [makeOutput({ directory: join(second, '../third') }), ...outputs],
      now: Date.now,
    })
    await assert.rejects(other.open(), /LOCK_HELD|holds/)
    await openStore(t, [makeOutput({ directory: join(second, '../third') })])
    await store[Symbol.asyncDispose]()
  })
})

test('keys in memory are overwritten once a set is written, unchanged, vetoed or failed', async (t) => {
  const output = makeOutput({ directory: join(makeVolume(t), 'tls') })
  const { store } = await openStore(t, [output])
  const attempts = [() => {}, () => {}, () => fs.mkdirSync(join(output.directory, '..tmp-0123456789abcdef'))]
  for (const prepare of attempts) {
    prepare()
    const set = render([output], bundle(0))
    await store.apply(set).catch(() => {})
    const files = set.directories.flatMap(({ files }) => files)
    for (const { role, content } of files)
      assert.equal(
        content.every((byte) => byte === 0),
        role === 'key',
        role,
      )
  }
})

test('a reader never meets a torn file or, through one generation, a mixed pair, while sets are swapped', async (t) => {
  for (const layout of LAYOUTS) {
    const { store, output, directory } = await openWithSets(t, { options: { layout } })
    const state = { done: false, reads: 0 }
    const read = async () => {
      for (; !state.done; state.reads += 1) {
        if (layout === 'flat') assertUntorn(directory)
        else readPair(directory, layout)
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
    const reading = read()
    for (let round = 0; round < 8; round += 1) await store.apply(render([output], bundle(round % 4)))
    state.done = true
    await reading
    assert.ok(state.reads > 20, `read ${state.reads} times`)
  }
})

function assertUntorn(directory: string): void {
  assert.match(
    fs.readFileSync(join(directory, 'tls.crt'), 'utf8'),
    /^-----BEGIN CERTIFICATE-----[\s\S]+-----END CERTIFICATE-----\n$/,
  )
  assert.match(
    fs.readFileSync(join(directory, 'tls.key'), 'utf8'),
    /^-----BEGIN PRIVATE KEY-----[\s\S]+-----END PRIVATE KEY-----\n$/,
  )
}
