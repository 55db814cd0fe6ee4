import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '../../src/clock.ts'
import { reloaders } from '../../src/reloaders/index.ts'
import { COUNTS_HUPS, context, deps, failure, make, never, runShell, shellNamed, temporaryFolder } from './support.ts'

test('signals the process that the pid file names, and says beforehand which', async () => {
  await using folder = await temporaryFolder()
  await using target = runShell('/bin/sh', COUNTS_HUPS)
  assert.equal(await target.next(), 'ready')
  const pidFile = join(folder.path, 'a.pid')
  await writeFile(pidFile, `${target.pid}\nsecond line, as PostgreSQL has\n`)
  const reloader = make({ kind: 'signal', pidFile, process: 'sh' })
  assert.equal(reloader.description, `SIGHUP to sh (pid file ${pidFile})`)
  assert.match(await reloader.inspect(), new RegExp(`^SIGHUP to (sh|dash|bash|busybox), pid ${target.pid}$`))
  await reloader.reload(context, never)
  assert.equal(await target.next(), 'HUP')
})

test('reads the pid file anew each time', async () => {
  await using folder = await temporaryFolder()
  await using first = runShell('/bin/sh', COUNTS_HUPS)
  await using second = runShell('/bin/sh', COUNTS_HUPS)
  assert.deepEqual([await first.next(), await second.next()], ['ready', 'ready'])
  const pidFile = join(folder.path, 'a.pid')
  const reloader = make({ kind: 'signal', pidFile })
  for (const target of [first, second]) {
    await writeFile(pidFile, `${target.pid}`)
    await reloader.reload(context, never)
    assert.equal(await target.next(), 'HUP')
  }
})

test('R2 waits for a pid file that is just being written', async () => {
  await using folder = await temporaryFolder()
  await using target = runShell('/bin/sh', COUNTS_HUPS)
  assert.equal(await target.next(), 'ready')
  const pidFile = join(folder.path, 'a.pid')
  await writeFile(pidFile, '')
  const clock = { ...systemClock, sleep: () => writeFile(pidFile, `${target.pid}\n`) }
  const reloader = reloaders.create(reloaders.schema.parse({ kind: 'signal', pidFile }), { ...deps, clock, env: {} })
  await reloader.reload(context, never)
  assert.equal(await target.next(), 'HUP')
})

test('R2 waits for a target that does not take the signal yet, which would end it', async () => {
  await using folder = await temporaryFolder()
  // It has a pid file, and catches nothing before it is told to go on; a shell that starts a command would hold signals up for a moment.
  const go = join(folder.path, 'go')
  execFileSync('mkfifo', [go])
  await using target = runShell('/bin/sh', `echo early; read _ <${go}; ${COUNTS_HUPS}`)
  assert.equal(await target.next(), 'early')
  const pidFile = join(folder.path, 'a.pid')
  await writeFile(pidFile, `${target.pid}\n`)
  const pauses: number[] = []
  const hasty = { ...systemClock, sleep: async (ms: number) => void pauses.push(ms) }
  const impatient = reloaders.create(reloaders.schema.parse({ kind: 'signal', pidFile }), {
    ...deps,
    clock: hasty,
    env: {},
  })
  await assert.rejects(
    impatient.reload(context, never),
    failure('RELOAD_TARGET_MISSING', /, pid \d+, does not take SIGHUP, or not yet; nothing was signalled$/),
  )
  assert.equal(pauses.length, 9)
  await writeFile(go, 'on\n')
  assert.equal(await target.next(), 'ready')
  await make({ kind: 'signal', pidFile }).reload(context, never)
  assert.equal(await target.next(), 'HUP')
})

const NO_PIDS = ['', '0', '-1', '-0', '007', '1.5', 'nginx', '\u001b[2J', '0x10', '99999999999']
for (const content of NO_PIDS) {
  test(`R2 signals nobody when the pid file holds ${JSON.stringify(content)}`, async () => {
    await using folder = await temporaryFolder()
    const pidFile = join(folder.path, 'a.pid')
    await writeFile(pidFile, content)
    const reloader = make({ kind: 'signal', pidFile })
    await assert.rejects(
      reloader.inspect(),
      failure('RELOAD_TARGET_MISSING', /a\.pid holds "[ -~]*", which is no process id; nothing was signalled$/),
    )
  })
}

test('R2 gives up on a pid file that stays empty, and stops at once when told to', async () => {
  await using folder = await temporaryFolder()
  const pidFile = join(folder.path, 'a.pid')
  await writeFile(pidFile, 'soon')
  let pauses = 0
  const clock = {
    ...systemClock,
    sleep: async () => {
      pauses += 1
    },
  }
  const reloader = reloaders.create(reloaders.schema.parse({ kind: 'signal', pidFile }), { ...deps, clock, env: {} })
  await assert.rejects(reloader.reload(context, never), failure('RELOAD_TARGET_MISSING', /holds "soon"/))
  assert.equal(pauses, 9)
  const stop = new AbortController()
  const reload = make({ kind: 'signal', pidFile }).reload(context, stop.signal)
  stop.abort(new Error('stopping'))
  await assert.rejects(reload, /stopping/)
})

test('R1, R5 says that the target is not there when the pid file is missing or its process has ended', async () => {
  await using folder = await temporaryFolder()
  const pidFile = join(folder.path, 'a.pid')
  const reloader = make({ kind: 'signal', pidFile })
  await assert.rejects(
    reloader.reload(context, never),
    failure('RELOAD_TARGET_MISSING', /a\.pid does not exist; the target is not running$/),
  )
  let pid: number
  {
    await using target = runShell('/bin/sh', COUNTS_HUPS)
    pid = target.pid
  }
  await writeFile(pidFile, `${pid}`)
  await assert.rejects(reloader.reload(context, never), failure('RELOAD_TARGET_MISSING', /a\.pid.* is not running$/))
})

test('R4 never signals itself, its parent, or the first process, unless the latter two have the name', async () => {
  await using folder = await temporaryFolder()
  const pidFile = join(folder.path, 'a.pid')
  const refused = async (pid: number, message: RegExp) => {
    await writeFile(pidFile, `${pid}`)
    await assert.rejects(make({ kind: 'signal', pidFile }).inspect(), failure('RELOAD_WRONG_PROCESS', message))
  }
  await refused(process.pid, /which is certferry itself; .*shareProcessNamespace/)
  await refused(process.ppid, process.ppid === 1 ? /first process/ : /the parent of certferry/)
  await refused(1, /the first process of this container; give its name with process/)
  await assert.rejects(
    make({ kind: 'signal', pidFile, process: 'nginx' }).inspect(),
    failure(
      'RELOAD_WRONG_PROCESS',
      /says 1, which is ".*", not "nginx"; nothing was signalled; .*shareProcessNamespace/,
    ),
  )
})

test('R3 refuses a process of another name, and one that is younger than its pid file', async () => {
  await using folder = await temporaryFolder()
  await using target = runShell('/bin/sh', COUNTS_HUPS)
  assert.equal(await target.next(), 'ready')
  const pidFile = join(folder.path, 'a.pid')
  await writeFile(pidFile, `${target.pid}`)
  await assert.rejects(
    make({ kind: 'signal', pidFile, process: 'nginx' }).reload(context, never),
    failure(
      'RELOAD_WRONG_PROCESS',
      new RegExp(`says ${target.pid}, which is ".*sh", not "nginx"; nothing was signalled`),
    ),
  )
  const lastYear = new Date(Date.now() - 365 * 86_400_000)
  await utimes(pidFile, lastYear, lastYear)
  await assert.rejects(
    make({ kind: 'signal', pidFile }).reload(context, never),
    failure('RELOAD_WRONG_PROCESS', /started at .*, after the file was written at .*; the file is stale/),
  )
  await make({ kind: 'signal', pidFile, process: 'sh' }).reload(context, never)
  assert.equal(await target.next(), 'HUP', 'the only signal it got')
})

test('finds the master by name among its workers', async () => {
  await using folder = await temporaryFolder()
  const name = `cf-srv-${process.pid}`
  const shell = await shellNamed(name, folder.path)
  const worker = `trap 'echo worker-HUP' HUP; echo worker; while :; do sleep 100 & wait; done`
  await using target = runShell(shell, `"$0" -c "$1" & trap "echo HUP" HUP; while :; do wait; done`, worker)
  assert.equal(await target.next(), 'worker')
  const reloader = make({ kind: 'signal', process: name })
  assert.equal(await reloader.inspect(), `SIGHUP to ${name}, pid ${target.pid}`)
  await reloader.reload(context, never)
  assert.equal(await target.next(), 'HUP')
})

test('signals none of several processes of one name, unless the others were passing', async () => {
  await using folder = await temporaryFolder()
  const name = `cf-two-${process.pid}-with-a-long-name`
  const shell = await shellNamed(name, folder.path)
  await using first = runShell(shell, COUNTS_HUPS)
  assert.equal(await first.next(), 'ready')
  const reloader = make({ kind: 'signal', process: name })
  let reload: Promise<void>
  {
    await using second = runShell(shell, COUNTS_HUPS)
    assert.equal(await second.next(), 'ready')
    await assert.rejects(
      reloader.inspect(),
      failure('RELOAD_WRONG_PROCESS', /several processes are named .* \(pids \d+, \d+\); say which one with pidFile/),
    )
    reload = reloader.reload(context, never)
  }
  await reload
  assert.equal(await first.next(), 'HUP')
})

test('says when no process has the name', async () => {
  await assert.rejects(
    make({ kind: 'signal', process: 'no-such-server' }).reload(context, never),
    failure('RELOAD_TARGET_MISSING', /no process named no-such-server .*shareProcessNamespace/),
  )
})

test('the config must name a target, absolutely, and a signal that means reload', () => {
  const problems = (options: object) =>
    reloaders.schema
      .safeParse({ kind: 'signal', ...options })
      .error?.issues.map(({ path, message }) => [...path, message])
  assert.deepEqual(problems({}), [['needs pidFile, process, or both']])
  assert.deepEqual(problems({ pidFile: 'nginx.pid' }), [['pidFile', 'must be an absolute path']])
  assert.deepEqual(problems({ process: '/usr/sbin/nginx' }), [['process', 'must be the name of a program, not a path']])
  assert.match(
    String(problems({ process: 'a', signal: 'SIGKILL' })),
    /^signal,Invalid option: expected one of "SIGHUP"/,
  )
  assert.match(String(problems({ process: 'a', pidfile: '/a' })), /Unrecognized key: "pidfile"/)
})
