import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import { reloadHelper } from '../../src/commands/reload-helper.ts'
import { temporaryFolder } from '../reloaders/support.ts'
import { until } from '../support/until.ts'

const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })

/** A process whose listener is this script instead of certferry. */
const io = (script: string, signal = new AbortController().signal) => ({
  stdout: nowhere,
  stderr: nowhere,
  env: { PATH: process.env.PATH },
  self: [process.execPath, '-e', script, '--'],
  signal,
  onHangup: () => {},
  process,
  releaseSignals: () => process,
})
const options = { socket: '/nowhere/app.sock', socketMode: '0600', signal: 'SIGHUP' }

test('a stop before it listens ends both, and the command never begins', async () => {
  await using folder = await temporaryFolder()
  const pidFile = join(folder.path, 'pid')
  const stop = new AbortController()
  const script = `require('fs').writeFileSync('${pidFile}', String(process.pid)); setInterval(() => {}, 1000)`
  const helping = reloadHelper(['true'], options, io(script, stop.signal))
  const pid = Number(await until('it has begun', async () => (await readFile(pidFile, 'utf8')) || undefined))
  stop.abort(new DOMException('SIGTERM', 'AbortError'))
  await assert.rejects(helping, (error) => error === stop.signal.reason)
  await until('it is gone', () => {
    try {
      process.kill(pid, 0)
      return false
    } catch {
      return true
    }
  })
})

test('a listener that cannot begin ends it with the same exit code, and the command never begins', async () => {
  assert.equal(await reloadHelper(['true'], options, io('process.exit(78)')), 78)
})

test('a listener that is killed before it listens is a defect', async () => {
  assert.equal(await reloadHelper(['true'], options, io('process.kill(process.pid, "SIGKILL")')), 70)
})
