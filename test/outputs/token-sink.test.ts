import assert from 'node:assert/strict'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { Secret } from '../../src/core/secret.ts'
import { SidecarError } from '../../src/errors.ts'
import { writeToken } from '../../src/outputs/token-sink.ts'
import { makeVolume } from '../support/volume.ts'

const put = (file: string, token: string, mode = 0o600) => writeToken({ file, mode }, new Secret(token))

/** Reads as fast as it can until it is told to stop, and says which token it found how often. */
const READER = `
  const { workerData: { file, tokens, stop }, parentPort } = require('node:worker_threads')
  const { readFileSync } = require('node:fs')
  const seen = {}
  parentPort.postMessage('reading')
  while (Atomics.load(new Int32Array(stop), 0) === 0) {
    let found
    try { found = tokens.indexOf(readFileSync(file, 'utf8')) } catch (error) { found = error.code }
    seen[found] = (seen[found] ?? 0) + 1
  }
  parentPort.postMessage(seen)`

describe('the file of a token', () => {
  test('holds the token and nothing else, for its owner alone', async (t) => {
    const directory = makeVolume(t)
    const file = join(directory, 'sink', 'token')
    await put(file, 'hvs.one')
    assert.equal(fs.readFileSync(file, 'utf8'), 'hvs.one')
    assert.equal(fs.statSync(file).mode & 0o7777, 0o600)
    assert.equal(fs.statSync(join(directory, 'sink')).mode & 0o7777, 0o700)
    await put(file, 'hvs.two', 0o640)
    assert.equal(fs.readFileSync(file, 'utf8'), 'hvs.two')
    assert.equal(fs.statSync(file).mode & 0o7777, 0o640)
    assert.deepEqual(fs.readdirSync(join(directory, 'sink')), ['token'])
  })

  test('is never seen torn, empty or missing by somebody who reads it all the time', async (t) => {
    const file = join(makeVolume(t), 'token')
    const tokens = ['hvs.'.padEnd(95, 'a'), 'hvs.'.padEnd(4000, 'b')]
    const stop = new SharedArrayBuffer(4)
    await writeInTurn(1)
    const reader = new Worker(READER, { eval: true, workerData: { file, tokens, stop } })
    t.after(() => reader.terminate())
    const [started] = await once(reader, 'message')
    assert.equal(started, 'reading')
    await writeInTurn(200)
    Atomics.store(new Int32Array(stop), 0, 1)
    const [seen] = await once(reader, 'message')
    assert.deepEqual(Object.keys(seen).sort(), ['0', '1'], JSON.stringify(seen))

    async function writeInTurn(times: number) {
      for (let n = 0; n < times; n += 1) await put(file, tokens[n % 2] ?? '')
    }
  })

  test('takes the place of a link, and leaves alone where that leads', async (t) => {
    const directory = makeVolume(t)
    const [file, elsewhere] = [join(directory, 'token'), join(directory, 'elsewhere')]
    fs.writeFileSync(elsewhere, 'mine')
    fs.symlinkSync(elsewhere, file)
    await put(file, 'hvs.one')
    assert.equal(fs.readFileSync(elsewhere, 'utf8'), 'mine')
    assert.ok(fs.lstatSync(file).isFile())
  })

  test('that was cut off while it was written leaves no token behind after the next one', async (t) => {
    const directory = makeVolume(t)
    const file = join(directory, 'token')
    const made: string[] = []
    const watcher = fs.watch(directory, (_, name) => made.push(String(name)))
    await put(file, 'hvs.one')
    await new Promise((resolve) => setImmediate(resolve))
    watcher.close()
    const temporary = made.find((name) => name.startsWith('..tmp-')) ?? assert.fail(`only ${made}`)
    fs.writeFileSync(join(directory, temporary), 'hvs.hal', { mode: 0o400 })
    await put(file, 'hvs.two')
    assert.deepEqual(fs.readdirSync(directory), ['token'])
  })

  const UNFIT: Readonly<Record<string, [spoil: (directory: string) => void, code: string]>> = {
    'a directory that everybody may write to': [(directory) => fs.chmodSync(directory, 0o777), 'VOLUME_UNSAFE'],
    'a directory at its name': [(directory) => fs.mkdirSync(join(directory, 'token')), 'FOREIGN_OBJECT'],
  }
  for (const [what, [spoil, code]] of Object.entries(UNFIT))
    test(`is not written because of ${what}`, async (t) => {
      const directory = makeVolume(t)
      spoil(directory)
      const error = await put(join(directory, 'token'), 'hvs.one').catch((error: unknown) => error)
      assert.ok(error instanceof SidecarError)
      assert.equal(error.code, code)
      assert.doesNotMatch(error.message, /hvs/)
    })
})
