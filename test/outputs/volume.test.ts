import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { inspect } from 'node:util'
import type { Bundle } from '../../src/core/bundle.ts'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { createStore } from '../../src/outputs/disk-store.ts'
import { takeLock } from '../../src/outputs/lock.ts'
import { render } from '../../src/outputs/output.ts'
import { pinDirectory } from '../../src/outputs/pinned-dir.ts'
import { createTestCa } from '../support/ca.ts'
import { openStore } from '../support/store.ts'
import { assertTidy, currentIn, generationsIn, makeOutput, makeVolume, readPair, snapshot } from '../support/volume.ts'

let [a, b]: Bundle[] = []
before(async () => {
  const ca = await createTestCa()
  ;[a, b] = [(await ca.issue()).bundle, (await ca.issue()).bundle]
})
const bundles = (): [Bundle, Bundle] => {
  assert.ok(a && b)
  return [a, b]
}
const isRoot = process.geteuid?.() === 0
const needsRoot = isRoot ? {} : { skip: 'only root can give files away' }
const failsWith = (code: ErrorCode, text: RegExp) => (error: unknown) => {
  assert.ok(error instanceof SidecarError, inspect(error))
  assert.equal(error.code, code, inspect(error))
  assert.match(error.message, text)
  return true
}

describe('the directory', () => {
  const openAt = (directory: string) =>
    createStore({ certificate: 'web', outputs: [makeOutput({ directory })], now: Date.now }).open()

  test('is made with its parents, for its owner alone', async (t) => {
    const directory = join(makeVolume(t), 'a/b/tls')
    await openStore(t, [makeOutput({ directory })])
    assert.equal(fs.statSync(directory).mode & 0o7777, 0o700)
  })

  test('lets others pass, not list, when a file is meant for others', async (t) => {
    const [first] = bundles()
    const directory = join(makeVolume(t), 'tls')
    const output = makeOutput({ directory, mode: '0640', certificateMode: '0644' })
    const { store } = await openStore(t, [output])
    await store.apply(render([output], first))
    const modes = ['.', '..data/.', '..data/tls.key', '..data/tls.crt', '..data/..bundle.pem', '..data/..manifest.json']
    assert.deepEqual(
      modes.map((name) => (fs.statSync(join(directory, name)).mode & 0o777).toString(8)),
      ['711', '711', '640', '644', '600', '600'],
    )
  })

  const rows: [
    why: string,
    prepare: (directory: string) => void,
    code: ErrorCode,
    says: RegExp,
    only?: { skip?: string },
  ][] = [
    ['is a file', (directory) => fs.writeFileSync(directory, ''), 'VOLUME_UNAVAILABLE', /not a directory/],
    [
      'is a link',
      (directory) => {
        fs.mkdirSync(`${directory}-real`)
        fs.symlinkSync(`${directory}-real`, directory)
      },
      'VOLUME_UNSAFE',
      /symbolic link/,
    ],
    [
      'may be written by everybody',
      (directory) => makeMode(directory, 0o777),
      'VOLUME_UNSAFE',
      /use a directory in it/,
    ],
    [
      'belongs to somebody else',
      (directory) => {
        makeMode(directory, 0o700)
        fs.chownSync(directory, 12, 12)
      },
      'VOLUME_UNSAFE',
      /user 12/,
      needsRoot,
    ],
    [
      'may be written by a group that is not ours',
      (directory) => {
        makeMode(directory, 0o770)
        fs.chownSync(directory, 0, 12)
      },
      'VOLUME_UNSAFE',
      /group 12/,
      needsRoot,
    ],
    [
      'cannot be made',
      (directory) => fs.writeFileSync(join(directory, '..', 'tls-parent'), ''),
      'VOLUME_UNAVAILABLE',
      /tls-parent/,
    ],
  ]
  for (const [why, prepare, code, says, only = {}] of rows) {
    test(`X4 is refused, and left alone, when it ${why}`, only, async (t) => {
      const directory = join(makeVolume(t), 'tls')
      prepare(directory)
      const untouched = snapshot(join(directory, '..'))
      await assert.rejects(
        openAt(why === 'cannot be made' ? `${directory}-parent/tls` : directory),
        failsWith(code, says),
      )
      assert.deepEqual(snapshot(join(directory, '..')), untouched)
    })
  }

  for (const [why, mode] of [
    ['a group was given it on purpose (setgid, as with fsGroup)', 0o2770],
    ['everybody may write, but not take away what is ours (sticky)', 0o1777],
  ] as const) {
    test(`X4 is accepted when ${why}`, async (t) => {
      const directory = join(makeVolume(t), 'tls')
      makeMode(directory, mode)
      if (isRoot) fs.chownSync(directory, 0, 12)
      const [first] = bundles()
      const output = makeOutput({ directory })
      const { store } = await openStore(t, [output])
      await store.apply(render([output], first))
      assert.equal(readPair(directory, 'generation'), first.fingerprint)
      const { gid } = fs.statSync(join(currentIn(directory), 'tls.key'))
      assert.equal(gid, mode & 0o2000 && isRoot ? 12 : process.getegid?.())
    })
  }

  test('F11 must stay the one that was opened: what is put in its place is not written to', async (t) => {
    const [first, second] = bundles()
    const directory = join(makeVolume(t), 'tls')
    const output = makeOutput({ directory })
    const { store } = await openStore(t, [output])
    await store.apply(render([output], first))
    fs.renameSync(directory, `${directory}-moved`)
    const refused = failsWith('VOLUME_REPLACED', /tls/)
    await assert.rejects(store.preflight(), refused)
    fs.mkdirSync(directory, { mode: 0o700 })
    const moved = snapshot(`${directory}-moved`)
    for (const act of [store.preflight, () => store.apply(render([output], second)), store.repair])
      await assert.rejects(act(), refused)
    assert.deepEqual(fs.readdirSync(directory), [])
    assert.deepEqual(snapshot(`${directory}-moved`), moved)

    fs.rmdirSync(directory)
    fs.renameSync(`${directory}-moved`, directory)
    await store.apply(render([output], second))
    assert.equal(readPair(directory, 'generation'), second.fingerprint, 'once it is back, all goes on')
  })

  test('F11 is written to through its descriptor, wherever its name leads meanwhile', {
    skip: !fs.existsSync('/proc/self/fd'),
  }, async (t) => {
    const directory = join(makeVolume(t), 'tls')
    fs.mkdirSync(directory)
    await using pinned = await pinDirectory(directory)
    fs.renameSync(directory, `${directory}-moved`)
    fs.mkdirSync(`${directory}-evil`)
    fs.symlinkSync(`${directory}-evil`, directory)
    await (await pinned.create('key')).close()
    assert.deepEqual(fs.readdirSync(`${directory}-moved`), ['key'])
    assert.deepEqual(fs.readdirSync(`${directory}-evil`), [])
  })

  for (const umask of [0, 0o277, 0o777]) {
    test(`F13 gets the same modes under umask ${umask.toString(8)}`, {
      skip: !isRoot && umask === 0o777,
    }, async (t) => {
      const [first] = bundles()
      const volume = makeVolume(t)
      const before = process.umask(umask)
      t.after(() => process.umask(before))
      const output = makeOutput({ directory: join(volume, 'tls'), layout: 'flat' })
      const { store } = await openStore(t, [output])
      await store.preflight()
      await store.apply(render([output], first))
      await store.settle(1)
      process.umask(before)
      assertTidy(output.directory)
      assert.equal(fs.statSync(output.directory).mode & 0o7777, 0o700)
    })
  }

  test('gives files to the user and group of the config', needsRoot, async (t) => {
    const [first, second] = bundles()
    const output = makeOutput({ directory: join(makeVolume(t), 'tls'), layout: 'flat', uid: 12, gid: 13 })
    const { store, reopen } = await openStore(t, [output])
    await store.apply(render([output], first))
    for (const name of ['tls.key', '..data/tls.key']) {
      const { uid, gid, mode } = fs.statSync(join(output.directory, name))
      assert.deepEqual([uid, gid, mode & 0o777], [12, 13, 0o600])
    }
    assert.equal(fs.statSync(join(output.directory, '..data/..bundle.pem')).uid, 0)
    const { store: next } = await reopen()
    assert.deepEqual(await next.repair(), [])
    await next.apply(render([output], second))
    assert.equal(readPair(output.directory, 'flat'), second.fingerprint)
  })
})

describe('the lock', () => {
  test('F15 keeps a second store out, which touches nothing and gets in when the first one is closed', async (t) => {
    const [first] = bundles()
    const output = makeOutput({ directory: join(makeVolume(t), 'tls') })
    const { store } = await openStore(t, [output])
    await store.apply(render([output], first))
    const untouched = snapshot(output.directory)
    const second = createStore({ certificate: 'other', outputs: [output], now: Date.now })
    t.after(() => second[Symbol.asyncDispose]())
    await assert.rejects(second.open(), failsWith('LOCK_HELD', /tls/))
    assert.deepEqual(snapshot(output.directory), untouched)
    await store[Symbol.asyncDispose]()
    assert.equal((await second.open()).current?.fingerprint, first.fingerprint)
  })

  test('F15 is one lock however the directory is reached', async (t) => {
    const volume = makeVolume(t)
    fs.mkdirSync(join(volume, 'real'), { mode: 0o700 })
    fs.symlinkSync('real', join(volume, 'link'))
    await openStore(t, [makeOutput({ directory: join(volume, 'real/tls') })])
    await assert.rejects(
      openStore(t, [makeOutput({ directory: join(volume, 'link/tls') })]),
      failsWith('LOCK_HELD', /tls/),
    )
  })

  test('as a socket file is taken over from the dead, not from the living', async (t) => {
    const directory = makeVolume(t)
    await using pinned = await pinDirectory(directory)
    const lock = await takeLock(pinned, false)
    await assert.rejects(takeLock(pinned, false), failsWith('LOCK_HELD', /certferry-test/))
    await lock[Symbol.asyncDispose]()
    const { dev, ino } = await pinned.self()
    const address = join(tmpdir(), `certferry-${dev}-${ino}.lock`)
    const script = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`
    assert.equal(spawnSync(process.execPath, ['-e', script, address]).signal, 'SIGKILL')
    assert.ok(fs.existsSync(address), 'the dead left its socket')
    await using _ = await takeLock(pinned, false)
    await assert.rejects(takeLock(pinned, false), failsWith('LOCK_HELD', /certferry-test/))
  })
})

describe('what is not ours', () => {
  const fifo = (path: string) => execFileSync('mkfifo', [path])
  const rows: [what: string, at: string, make: (path: string) => void][] = [
    ['a FIFO at a visible name', 'tls.key', fifo],
    ['a directory at a visible name', 'tls.crt', (path) => fs.mkdirSync(path)],
    ['a FIFO at the commit link', '..data', fifo],
    ['a directory at the commit link', '..data', (path) => fs.mkdirSync(path)],
    ['a file at the commit link', '..data', (path) => fs.writeFileSync(path, '')],
    ['a FIFO at the way back', '..prev', fifo],
    ['a FIFO at the state', '..state.json', fifo],
    ['a link at the state', '..state.json', (path) => fs.symlinkSync('/etc/passwd', path)],
    ['a FIFO at a temporary name', '..tmp-0123456789abcdef', fifo],
    ['a directory at a temporary name', '..tmp-0123456789abcdef', (path) => fs.mkdirSync(path)],
    ['a file at the name of a generation', '..gen-1-01234567', (path) => fs.writeFileSync(path, '')],
    ['a link at the name of a generation', '..gen-1-01234567', (path) => fs.symlinkSync('/etc', path)],
    [
      'a FIFO in a generation to be removed',
      '..gen-1-01234567/x',
      (path) => {
        fs.mkdirSync(join(path, '..'))
        fifo(path)
      },
    ],
  ]
  for (const [what, at, make] of rows) {
    test(`F12 ${what} is an error that names it, before a set and over one, and stays`, async (t) => {
      const [first, second] = bundles()
      const output = makeOutput({ directory: join(makeVolume(t), 'tls') })
      const path = join(output.directory, at)
      const refused = failsWith('FOREIGN_OBJECT', new RegExp(at.replaceAll('.', '\\.')))
      const { store, reopen } = await openStore(t, [output])
      make(path)
      const foreign = fs.lstatSync(path)
      await assert.rejects(store.preflight(), refused)
      await assert.rejects(store.apply(render([output], first)), refused)
      clearAway(path)

      await store.apply(render([output], first))
      fs.rmSync(path, { force: true })
      make(path)
      const served = fs.readFileSync(join(currentOf(output.directory), 'tls.crt'), 'utf8')
      await assert.rejects(store.apply(render([output], second)), refused)
      assert.equal(fs.lstatSync(path).mode, foreign.mode)
      assert.equal(fs.readFileSync(join(currentOf(output.directory), 'tls.crt'), 'utf8'), served)
      await assert.rejects(reopen(), refused)
      assert.equal(fs.lstatSync(path).mode, foreign.mode)
    })
  }

  test('F10 a link or file at a visible name is replaced, and what the link points to stays as it is', async (t) => {
    const [first] = bundles()
    for (const layout of ['generation', 'flat']) {
      const volume = makeVolume(t)
      const output = makeOutput({ directory: join(volume, 'tls'), layout })
      const victim = join(volume, 'victim')
      fs.writeFileSync(victim, 'precious')
      const { store } = await openStore(t, [output])
      fs.symlinkSync(victim, join(output.directory, 'tls.key'))
      fs.writeFileSync(join(output.directory, 'tls.crt'), 'of another tool')
      await store.preflight()
      await store.apply(render([output], first))
      assert.equal(fs.readFileSync(victim, 'utf8'), 'precious')
      assert.equal(readPair(output.directory, 'flat'), first.fingerprint)
    }
  })

  test('F10 a commit link that leads out of the directory is not followed', async (t) => {
    const [first] = bundles()
    const volume = makeVolume(t)
    const output = makeOutput({ directory: join(volume, 'tls') })
    const { store, reopen } = await openStore(t, [output])
    await store.apply(render([output], first))
    fs.cpSync(currentIn(output.directory), join(volume, 'evil'), { recursive: true })
    fs.rmSync(join(output.directory, '..data'))
    fs.symlinkSync('../evil', join(output.directory, '..data'))
    const { held } = await reopen()
    assert.equal(held.current?.fingerprint, first.fingerprint)
    assert.equal(fs.readlinkSync(join(output.directory, '..data')), generationsIn(output.directory).at(-1))
  })

  test('files of other names stay where they are', async (t) => {
    const [first] = bundles()
    const output = makeOutput({ directory: join(makeVolume(t), 'tls') })
    const { store, reopen } = await openStore(t, [output])
    const others = ['notes.txt', '..other', '..2024_05_01', '..gen-x', '..tmp-short']
    for (const name of others) fs.writeFileSync(join(output.directory, name), name)
    await store.apply(render([output], first))
    await reopen()
    for (const name of others) assert.equal(fs.readFileSync(join(output.directory, name), 'utf8'), name)
  })
})

/** The generation in place, found by its certificate where the link itself is what was tampered with. */
const currentOf = (directory: string) =>
  join(
    directory,
    generationsIn(directory)
      .filter((name) => name !== '..gen-1-01234567')
      .at(-1) ?? '',
  )

const clearAway = (path: string) =>
  fs.rmSync(path.includes('gen-1-') && path.endsWith('/x') ? join(path, '..') : path, { recursive: true })

const makeMode = (directory: string, mode: number) => {
  fs.mkdirSync(directory)
  fs.chmodSync(directory, mode)
}
