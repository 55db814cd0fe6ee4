import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { bundleCli } from '../../tools/build.ts'
import { keepNoOrphan } from '../support/child.ts'
import { skipReason } from '../support/components.ts'
import { until } from '../support/until.ts'
import { startVault, type TestVault } from '../support/vault.ts'

const skip = await skipReason('vault')

const vault = skip ? undefined : await startVault()
after(() => vault?.[Symbol.asyncDispose]())

/** Says what it was given, and which signals come; ends with 7 at the first SIGTERM. */
const PROGRAM = `
process.on('SIGHUP', () => console.log('got SIGHUP'))
process.on('SIGTERM', () => process.exit(7))
setInterval(() => {}, 1000)
console.log('env ' + JSON.stringify(process.env))
`

describe('certferry exec', { skip }, async () => {
  const root = mkdtempSync(join(tmpdir(), 'certferry-exec-'))
  after(() => rmSync(root, { recursive: true, force: true }))
  const bundle = skip ? '' : join(root, 'cli.cjs')
  if (!skip) await bundleCli(root)
  const api: TestVault['api'] = (...request) => (vault ?? assert.fail()).api(...request)
  await vault?.api('POST', 'sys/mounts/kv', { type: 'kv', options: { version: '2' } })
  await vault?.api('POST', 'sys/mounts/transit', { type: 'transit' })
  await vault?.api('POST', 'transit/keys/app')
  const put = (path: string, data: object) => api('POST', `kv/data/${path}`, { data })

  function start({ secrets = {}, exec = {}, env = {}, program = PROGRAM }: Start) {
    const { address, rootToken } = vault ?? assert.fail()
    const file = join(mkdtempSync(join(root, 'f-')), 'c.yaml')
    const config = {
      vault: { address, auth: { kind: 'token', token: '${MY_LOGIN}' } },
      log: { format: 'json' },
      secrets: Object.entries(secrets).map(([name, values]) => ({ name, values })),
      exec,
    }
    writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
    const args = [bundle, 'exec', '-c', file, '--timeout', '8s', '--', process.execPath, '-e', program]
    const child = spawn(process.execPath, args, {
      env: { PATH: process.env.PATH, MY_LOGIN: rootToken, VAULT_TOKEN: rootToken, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const kill = keepNoOrphan(child)
    const output = { out: '', log: '' }
    child.stdout.setEncoding('utf8').on('data', (text) => (output.out += text))
    child.stderr.setEncoding('utf8').on('data', (text) => (output.log += text))
    const ended = once(child, 'close').then(([code, signal]) => ({ code, signal }))
    const lines = () => output.out.split('\n').filter((line) => line !== '')
    const environments = () =>
      lines().flatMap((line) => (line.startsWith('env ') ? [JSON.parse(line.slice(4)) as Record<string, string>] : []))
    return {
      output,
      lines,
      environments,
      ended,
      send: (signal: NodeJS.Signals) => child.kill(signal),
      first: () => until('the command runs', () => environments()[0]),
      told: (event: string) => output.log.includes(`"event":"${event}"`),
      [Symbol.asyncDispose]: async () => {
        // Killed, it could not take the command with it.
        child.kill('SIGTERM')
        await ended
        await kill()
      },
    }
  }

  for (const [what, bad] of [
    ['holds a null byte', 'p2\0'],
    ['is too long', 'p'.repeat(131_072)],
  ])
    test(`keeps the command that runs where the new value ${what}`, async () => {
      await put('unfit', { password: 'p1' })
      await using running = start({
        secrets: { app: { db: { kind: 'vault-kv', mount: 'kv', path: 'unfit', poll: '1s' } } },
        exec: { env: { PASSWORD: 'app.db.password' } },
      })
      await running.first()
      await put('unfit', { password: bad })
      await until('it is told', () => running.told('exec.failed'))
      await put('unfit', { password: 'p3' })
      await until('the next good one is taken', () => running.environments()[1]?.PASSWORD === 'p3')
    })

  test('puts secrets into the environment, resolves references, keeps its own credentials, and ends as the command does', async () => {
    await put('app', { user: 'u', password: 'p1', port: 5432 })
    await put('app', { user: 'u', password: 'p2', port: 5432 })
    const { data } = await api('POST', 'transit/encrypt/app', { plaintext: Buffer.from('plain').toString('base64') })
    await using running = start({
      secrets: { app: { db: { kind: 'vault-kv', mount: 'kv', path: 'app' } } },
      exec: { env: { DB_PORT: 'app.db.port' }, transit: { key: 'app' } },
      env: {
        DB_PASSWORD: 'vault:kv/data/app#password',
        OLD: 'vault:kv/data/app#password#1',
        URL: 'postgres://${vault:kv/data/app#user}:${vault:kv/data/app#password}@db',
        DECRYPTED: String(data?.ciphertext),
        RANDOM: '>>vault:sys/tools/random/8#random_bytes',
        PLAIN: 'stays',
      },
    })
    const env = await running.first()
    assert.deepEqual(
      [env.DB_PORT, env.DB_PASSWORD, env.OLD, env.URL, env.DECRYPTED, env.PLAIN],
      ['5432', 'p2', 'p1', 'postgres://u:p2@db', 'plain', 'stays'],
    )
    assert.match(env.RANDOM ?? '', /^[A-Za-z0-9+/]{11}=$/)
    assert.deepEqual([env.VAULT_TOKEN, env.MY_LOGIN], [undefined, undefined])
    running.send('SIGTERM')
    assert.deepEqual(await running.ended, { code: 7, signal: null })
  })

  test('a change restarts the command with the new environment', async () => {
    await put('restart', { n: 'one' })
    await using running = start({ secrets: { app: POLLED('restart') }, exec: { env: { N: 'app.v.n' } } })
    assert.equal((await running.first()).N, 'one')
    await put('restart', { n: 'two' })
    await until('it was restarted', () => running.environments()[1]?.N === 'two')
    assert.ok(running.told('exec.told'))
  })

  test('a change signals the command, where the config says so', async () => {
    await put('signal', { n: 'one' })
    const exec = { env: { N: 'app.v.n' }, onChange: 'signal', signal: 'SIGHUP' }
    await using running = start({ secrets: { app: POLLED('signal') }, exec })
    await running.first()
    await put('signal', { n: 'two' })
    await until('it was signalled', () => running.lines().includes('got SIGHUP'))
    assert.equal(running.environments().length, 1)
  })

  test('outside its window the command is left alone', async () => {
    await put('window', { n: 'one' })
    const month = (new Date().getUTCMonth() + 6) % 12
    const window = { cron: `0 3 1 ${month + 1} *`, duration: '1h' }
    await using running = start({ secrets: { app: POLLED('window') }, exec: { env: { N: 'app.v.n' }, window } })
    await running.first()
    await put('window', { n: 'two' })
    await until('it says that it waits', () => running.told('exec.waits'))
    assert.equal(running.environments().length, 1)
    assert.ok(!running.told('exec.told'))
  })

  test('a field that disappears leaves the command as it is, and is told', async () => {
    await put('gone', { n: 'one' })
    await using running = start({ secrets: { app: POLLED('gone') }, exec: { env: { N: 'app.v.n' } } })
    await running.first()
    await put('gone', { other: 'x' })
    await until('the trouble is told', () => running.told('exec.failed'))
    assert.equal(running.environments().length, 1)
    await put('gone', { n: 'back' })
    await until('it is restarted once the field is back', () => running.environments()[1]?.N === 'back')
  })

  test('without its secrets the command is not started, and the reason is told', async () => {
    await using running = start({ secrets: { app: POLLED('nowhere') }, exec: { env: { N: 'app.v.n' } } })
    assert.equal((await running.ended).code, 69)
    assert.equal(running.output.out, '')
    assert.match(running.output.log, /app: value "v": GET kv\/data\/nowhere \(404\): nothing lies there/)
  })

  test('a command that ends by itself ends certferry, with its code', async () => {
    await put('ends', { n: '1' })
    await using running = start({ secrets: { app: POLLED('ends') }, program: 'process.exit(42)' })
    assert.deepEqual(await running.ended, { code: 42, signal: null })
  })
})

interface Start {
  readonly secrets?: Record<string, object>
  readonly exec?: object
  readonly env?: Record<string, string>
  readonly program?: string
}

const POLLED = (path: string) => ({ v: { kind: 'vault-kv', mount: 'kv', path, poll: '1s' } })
