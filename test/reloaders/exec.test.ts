import assert from 'node:assert/strict'
import { chmod, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { type Clock, systemClock } from '../../src/clock.ts'
import { reloaders } from '../../src/reloaders/index.ts'
import { context, deps, failure, make, never, temporaryFolder } from './support.ts'

/** With a timeout that even a busy machine does not reach. */
const shell = (script: string) => make({ kind: 'exec', command: ['/bin/sh', '-c', script], timeout: '1h' })
const testing = (...test: readonly string[]) => ({ test, testTimeout: '1h' })
const reload = (script: string) => shell(script).reload(context, never)

// Each waits for processes most of its time.
describe('exec', { concurrency: true }, () => {
  test('runs a command from PATH without a shell, in /, with nothing on stdin', async () => {
    await using folder = await temporaryFolder()
    const file = join(folder.path, 'out')
    await make({ kind: 'exec', command: ['touch', `${file} $HOME;*`], timeout: '1h' }).reload(context, never)
    assert.equal(await readFile(`${file} $HOME;*`, 'utf8'), '')
    await reload(`pwd > ${file}; cat >> ${file}`)
    assert.equal(await readFile(file, 'utf8'), '/\n')
  })

  test('gives the command only the listed variables, its own, and the names of what was renewed', async () => {
    await using folder = await temporaryFolder()
    const file = join(folder.path, 'env')
    const clock = systemClock
    const env = {
      PATH: '/usr/bin:/bin',
      LANG: 'C',
      LC_ALL: undefined,
      TZ: 'UTC',
      VAULT_TOKEN: 'hvs.canary',
      HOME: '/root',
    }
    const options = {
      kind: 'exec',
      command: ['sh', '-c', `env -0 > ${file}`],
      env: { API: 'a b', CERTFERRY_SERIAL: 'lie' },
    }
    const both = { ...context, certificates: ['web', 'api'], directories: ['/tls/web', '/tls/api'] }
    await reloaders.create(reloaders.schema.parse(options), { ...deps, clock, env }).reload(both, never)
    const seen = Object.fromEntries((await readFile(file, 'utf8')).split('\0').map((line) => line.split('=')))
    for (const shellsOwn of ['PWD', 'SHLVL', '_', 'OLDPWD', '']) delete seen[shellsOwn]
    assert.deepEqual(seen, {
      PATH: '/usr/bin:/bin',
      LANG: 'C',
      TZ: 'UTC',
      API: 'a b',
      CERTFERRY_CERTIFICATES: 'web,api',
      CERTFERRY_DIRECTORIES: '/tls/web:/tls/api',
      CERTFERRY_FINGERPRINT: 'f00d',
      CERTFERRY_NOT_AFTER: '2030-01-02T00:00:00.000Z',
      CERTFERRY_SERIAL: '4a',
    })
  })

  test('R7 tells the exit code, the signal and what the command printed', async () => {
    await assert.rejects(
      reload('echo out; echo "bad \u001b[31mthing" >&2; exit 3'),
      failure(
        'RELOAD_FAILED',
        /^reload command "\/bin\/sh -c .*" exited with code 3; it printed: out bad \\x1b\[31mthing$/,
      ),
    )
    await assert.rejects(reload('exit 1'), failure('RELOAD_FAILED', /" exited with code 1$/))
    await assert.rejects(reload('kill -SEGV $$'), failure('RELOAD_FAILED', /was killed by SIGSEGV$/))
  })

  test('R7 a command that cannot be started refused nothing: the target is missing', async () => {
    await using folder = await temporaryFolder()
    const file = join(folder.path, 'plain')
    await writeFile(file, 'echo hello')
    await chmod(file, 0o644)
    const start = (command: string) => make({ kind: 'exec', command: [command] })
    for (const [command, why] of [
      ['/no/such/program', /there is no such program \(ENOENT\)/],
      ['no-such-program', /there is no such program \(ENOENT\)/],
      [file, /may not be executed by this user \(EACCES\)/],
    ] as const) {
      await assert.rejects(start(command).reload(context, never), failure('RELOAD_TARGET_MISSING', why))
      await assert.rejects(start(command).inspect(), failure('RELOAD_TARGET_MISSING', /no program .* to execute/))
    }
    const long = make({ kind: 'exec', command: ['true', 'x'.repeat(4_000_000)] })
    await assert.rejects(long.reload(context, never), failure('RELOAD_TARGET_MISSING', /its arguments are too long/))
    assert.match(await start('sh').inspect(), /^run "sh" \(\/.*\/sh\)$/)
  })

  test('R7 keeps the last 4 KiB of 3 MB of output, without keys and tokens', async () => {
    const script = `
    head -c 3000000 /dev/zero | tr '\\0' x
    echo; echo -----BEGIN PRIVATE KEY-----; head -c 1500 /dev/zero | tr '\\0' K; echo -----END PRIVATE KEY-----
    echo token hvs.CAESIJ12345678; head -c 3900 /dev/zero | tr '\\0' y; exit 1`
    await assert.rejects(reload(script), (error: Error) => {
      const output = error.message.slice(error.message.indexOf('it printed: ') + 12)
      assert.equal(output.length, 4096)
      assert.match(output, /x \[secret\] token \[secret\] y{3900}$/)
      return true
    })
  })

  test('R6 kills the command and its grandchild at the timeout', async () => {
    await using folder = await temporaryFolder()
    const pids = join(folder.path, 'pids')
    const script = `trap '' TERM; sh -c 'trap "" TERM; echo $$ >> ${pids}; while :; do sleep 1; done' & echo $$ >> ${pids}; wait`
    const clock: Clock = {
      ...deps.clock,
      sleep: (ms, signal) => (ms === 2_000 ? untilWritten(pids, 2) : deps.clock.sleep(ms, signal)),
    }
    const options = { kind: 'exec', command: ['sh', '-c', script], timeout: '2s' }
    const reloader = reloaders.create(reloaders.schema.parse(options), { ...deps, clock })
    await assert.rejects(
      reloader.reload(context, never),
      failure('RELOAD_TIMEOUT', /did not end within 2s and was killed$/),
    )
    await assertDead(pids, 2)
  })

  test('R6 when told to stop, kills the command and its grandchild before it rejects', async () => {
    await using folder = await temporaryFolder()
    const pids = join(folder.path, 'pids')
    const stop = new AbortController()
    const running = shell(`sh -c 'echo $$ > ${pids}; echo $PPID >> ${pids}; sleep 99' & wait`).reload(
      context,
      stop.signal,
    )
    await untilWritten(pids, 2)
    stop.abort(new Error('stopping'))
    await assert.rejects(running, /stopping/)
    await assertDead(pids, 2)
    await assert.rejects(shell('exit 0').reload(context, stop.signal), /stopping/)
  })

  test('does not wait for a daemon that the command left behind, nor kills it', async () => {
    await using folder = await temporaryFolder()
    const pids = join(folder.path, 'pids')
    await reload(`sleep 99 & echo $! > ${pids}`)
    const [pid] = await linesOf(pids)
    assert.ok(pid && process.kill(pid, 'SIGKILL'), 'it was alive')
  })

  test('R8 the configuration test of the target is part of every kind', async () => {
    for (const options of [
      { kind: 'exec', command: ['true'] },
      { kind: 'signal', process: 'nginx' },
      { kind: 'http', url: 'http://localhost/' },
    ]) {
      assert.equal(make(options).testCommand, undefined)
      await make(options).test(context, never)
      const tested = make({ ...options, ...testing('true') })
      assert.equal(tested.testCommand, 'true')
      await tested.test(context, never)
      await assert.rejects(
        make({ ...options, ...testing('sh', '-c', 'echo "[emerg] in $CERTFERRY_DIRECTORIES"; exit 1') }).test(
          context,
          never,
        ),
        failure(
          'TARGET_CONFIG_BROKEN',
          /^the configuration test "sh -c .*" exited with code 1: \[emerg\] in \/tls\/web$/,
        ),
      )
    }
    const slow = make({ kind: 'exec', command: ['true'], test: ['sleep', '99'], testTimeout: '2s' })
    await assert.rejects(
      slow.test(context, never),
      failure('TARGET_CONFIG_BROKEN', /"sleep 99" did not end within 2s and was killed$/),
    )
  })

  test('the config takes a list, not a shell line, and no timeout that timers cannot keep', () => {
    const problems = (options: object) =>
      reloaders.schema
        .safeParse({ kind: 'exec', ...options })
        .error?.issues.map(({ path, message }) => `${path}: ${message}`)
    const list = 'command: must be a list such as [nginx, -s, reload]; no shell is run'
    assert.deepEqual(problems({ command: 'nginx -s reload' }), [list])
    assert.deepEqual(problems({ command: [] }), ['command,0: must name a program'])
    assert.deepEqual(problems({ command: ['./reload.sh'] }), [
      'command,0: must be an absolute path, or a name found in PATH',
    ])
    assert.deepEqual(problems({ command: ['sh', 'a\0b'] }), ['command,1: must not hold a null byte'])
    assert.deepEqual(problems({ command: ['sh'], timeout: '2h' }), ['timeout: must be at most 1h'])
    assert.match(String(problems({ command: ['sh'], env: { 'A B': 'x' } })), /^env,A B: /)
  })
})

async function untilWritten(file: string, lines: number) {
  while ((await linesOf(file)).length < lines) await systemClock.sleep(5)
}

const linesOf = async (file: string) =>
  (await readFile(file, 'utf8').catch(() => '')).split('\n').filter(Boolean).map(Number)

/** Killed processes may stay zombies until the first process collects them. */
async function assertDead(file: string, count: number) {
  const pids = await linesOf(file)
  assert.equal(pids.length, count)
  for (const pid of pids) {
    const state = /\) (\w) /.exec(await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ''))?.[1]
    assert.ok(state === undefined || state === 'Z', `process ${pid} is in state ${state}`)
  }
}
