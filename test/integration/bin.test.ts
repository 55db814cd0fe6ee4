import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import * as z from 'zod'
import { until } from '../support/until.ts'

const BIN = fileURLToPath(new URL('../../bin/certferry.js', import.meta.url))
const PINNED = fileURLToPath(new URL('../../node_modules/.bin/node', import.meta.url))
const manifest = z.object({ version: z.string(), engines: z.object({ node: z.string() }) })
const { version, engines } = manifest.parse(
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')),
)

/** Makes this Node say it is an old one, to the first process only: the one it starts gets no such flag. */
const AS_OLD_NODE = [
  '--import',
  `data:text/javascript,Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })`,
]

const folder = mkdtempSync(join(tmpdir(), 'certferry-bin-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const config = join(folder, 'config.yaml')
const socket = join(folder, 'control.sock')
writeFileSync(
  config,
  `admin: { listen: '127.0.0.1:0', socket: ${socket} }
certificates:
  - name: web
    source: { kind: dev-ca, directory: ${folder}/ca, commonName: web.internal }
    outputs: [{ kind: pem, directory: ${folder}/tls }]
`,
  { mode: 0o600 },
)

test('the command runs from the clone', () => {
  const { stdout, status } = spawnSync(process.execPath, [BIN, '--version'], { encoding: 'utf8' })
  assert.equal(stdout.trim(), version)
  assert.equal(status, 0)
})

describe('an old Node', { skip: existsSync(PINNED) ? false : 'no pinned Node for this platform' }, () => {
  test('hands over to the pinned one, and its exit code back', () => {
    const good = spawnSync(process.execPath, [...AS_OLD_NODE, BIN, '--version'], { encoding: 'utf8' })
    assert.equal(good.stdout.trim(), version)
    const bad = spawnSync(process.execPath, [...AS_OLD_NODE, BIN, 'nonsense'], { encoding: 'utf8' })
    assert.equal(bad.status, 64)
    assert.match(bad.stderr, /unknown command 'nonsense'/)
  })

  test('passes SIGHUP and SIGTERM on, so that the sidecar loads its config and ends cleanly', async () => {
    const child = spawn(process.execPath, [...AS_OLD_NODE, BIN, 'run', '-c', config], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const ended = once(child, 'close')
    let log = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (log += text))
    const logged = (event: string) => until(`the log has ${event}: ${log}`, () => log.includes(`"event":"${event}"`))
    try {
      await logged('certificate.written')
      child.kill('SIGHUP')
      await logged('config.loaded')
    } finally {
      child.kill('SIGTERM')
    }
    assert.deepEqual(await ended, [0, null], log)
    await logged('sidecar.stopped')
  })

  test('without a pinned one says what is needed', () => {
    const elsewhere = join(folder, 'bin.mjs')
    writeFileSync(elsewhere, readFileSync(BIN))
    const { stderr, status } = spawnSync(process.execPath, [...AS_OLD_NODE, elsewhere, '--version'], {
      encoding: 'utf8',
    })
    assert.equal(status, 70)
    const oldest = engines.node.replace('>=', '')
    assert.ok(stderr.startsWith(`certferry needs Node ${oldest} or later, this is v`), stderr)
    assert.equal(stderr.trim().split('\n').length, 1)
  })
})
