import assert from 'node:assert/strict'
import { type StdioOptions, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { constants, existsSync, openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { locate } from '../../src/reloaders/command.ts'
import { bundleCli } from '../../tools/build.ts'
import { bundled, nodeIn } from '../support/bundled.ts'
import { type Running, startProgram } from '../support/program.ts'
import { until } from '../support/until.ts'

const root = await mkdtemp(join(tmpdir(), 'certferry-supervisor-'))
after(() => rm(root, { recursive: true, force: true }))
const SUPERVISE = await bundled(new URL('../fixtures/supervise.ts', import.meta.url), join(root, 'supervise.mjs'))
const PATH = process.env.PATH ?? ''

interface Options {
  readonly stopSignal?: string
  readonly stopTimeoutMs?: number
  readonly env?: Readonly<Record<string, string>>
}

const commandLine = (command: readonly string[], options: Options & { socket?: string } = {}) => [
  process.execPath,
  SUPERVISE,
  JSON.stringify(options),
  ...command,
]

let count = 0
/** The supervisor with a command, in an environment of its own. */
function supervise(command: readonly string[], options: Options = {}, before: readonly string[] = [], own = {}) {
  count += 1
  const socket = join(root, `${count}.sock`)
  // After a failure, before the supervisor is killed, which would leave its command behind.
  after(() => {
    for (const pid of leaders(program.child.pid)) process.kill(-pid, 'SIGKILL')
  })
  const program = startProgram([...before, ...commandLine(command, { ...options, socket })], { PATH, ...own })
  return {
    ...program,
    said: (text: string) => until(`it says ${text}`, () => program.output().includes(text)),
    restart: async (env: Readonly<Record<string, string>>) => {
      const connection = connect(socket)
      connection.end(JSON.stringify(env))
      connection.resume()
      await once(connection, 'close')
    },
  }
}

/** Children that lead a group of their own. */
function leaders(pid: number | undefined): number[] {
  if (!existsSync(`/proc/${pid}`)) return []
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').map(Number)
  return children.filter((child) => child > 0 && groupOf(child) === child)
}

const groupOf = (pid: number) =>
  Number(
    readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ')[2],
  )

/** How often a line is in it. */
const times = (output: string, line: string) => output.split(/\r?\n/).filter((one) => one === line).length

/** A word that no other program on this machine has as its last argument. */
const markOf = (name: string) => `certferry-${name}-${process.pid}-${count}`
const marked = (mark: string) =>
  readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').at(-2) === mark
    } catch {
      return false
    }
  })
/** What nothing but SIGKILL ends. */
const STUBBORN = `trap '' TERM; echo stubborn; while :; do sleep 0.1; done`

const childOf = ({ child }: Running) =>
  until('it has a child', async () => {
    const ids = await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')
    return ids.trim() === '' ? undefined : Number(ids.trim())
  })

const statusOf = (pid: number | string) => readFileSync(`/proc/${pid}/status`, 'utf8')

describe('how the command ends is how the supervisor ends:', () => {
  const ends: [title: string, command: readonly string[], ended: number | string][] = [
    ['success', ['true'], 0],
    ['an exit code', ['sh', '-c', 'exit 7'], 7],
    ['an exit code that shells use for signals', ['sh', '-c', 'exit 143'], 143],
    ['a program that is not there', ['no-such-program'], 127],
    ['a file that may not be executed', [SUPERVISE], 126],
    ['death by SIGTERM', ['sh', '-c', 'kill -TERM $$'], 'SIGTERM'],
    ['death by SIGINT', ['sh', '-c', 'kill -INT $$'], 'SIGINT'],
    ['death by SIGHUP', ['sh', '-c', 'kill -HUP $$'], 'SIGHUP'],
    ['death by SIGKILL, as a code: nobody killed the supervisor', ['sh', '-c', 'kill -KILL $$'], 137],
    ['death by SIGSEGV, as a code: the supervisor has no defect', ['sh', '-c', 'kill -SEGV $$'], 139],
  ]
  for (const [title, command, ended] of ends)
    test(title, async () => {
      const program = supervise(command)
      assert.equal(await program.ended, ended, program.output())
    })

  test('an environment that the kernel does not take is said, and is code 126', async () => {
    const program = supervise(['sleep', '1000'])
    await program.said('started by')
    await program.restart({ HUGE: 'x'.repeat(140_000) })
    assert.equal(await program.ended, 126)
    assert.match(program.output(), /could not be started: its arguments and environment are too long \(E2BIG\)/)
  })

  test('a value with a null byte is told by its name alone', async () => {
    const program = supervise(['true'], { env: { API_KEY: 'hunter2\0' } })
    assert.equal(await program.ended, 126)
    assert.match(program.output(), /could not be started: the value of API_KEY holds a null byte/)
    assert.doesNotMatch(program.output(), /hunter2/)
  })
})

/** What `env -0` printed, beside the supervisor. */
const environmentIn = (output: string) =>
  output
    .replace(/supervise: .*\n/g, '')
    .split('\0')
    .filter(Boolean)
    .sort()

describe('the command', () => {
  test('has the environment it is given, and no credential of certferry', async () => {
    const own = {
      KEPT: 'a=b\n c',
      VAULT_TOKEN: 'hvs.secret',
      VAULT_ADDR: 'https://vault',
      CERTFERRY_CONFIG: 'x',
      OLD: '1',
    }
    const program = supervise(['env', '-0'], { env: { PASSWORD: 'ä "', OLD: '2' } }, [], own)
    assert.equal(await program.ended, 0)
    const seen = program
      .output()
      .replace(/supervise: .*\n/g, '')
      .split('\0')
      .filter(Boolean)
    assert.deepEqual(
      seen.sort(),
      ['KEPT=a=b\n c', 'OLD=2', 'PASSWORD=ä "', `PATH=${PATH}`, 'VAULT_ADDR=https://vault'].sort(),
    )
  })

  test('has standard input, output and error of the supervisor, blocking, and nothing else that is open there', async () => {
    const far = 40
    const stdio: StdioOptions = Array.from({ length: far + 1 }, () => 'ignore')
    stdio.splice(0, 4, 'pipe', 'pipe', 'pipe', openSync('/etc/hostname', 'r'))
    stdio[far] = openSync('/etc/hostname', 'r')
    const [node = '', ...args] = commandLine(['sleep', '1000'])
    const child = spawn(node, args, { env: { PATH }, stdio })
    after(() => child.kill('SIGKILL'))
    assert.ok(child.stderr)
    await once(child.stderr, 'data')
    const pid = await childOf({ child, output: () => '', ended: Promise.resolve(0) })
    const open = readdirSync(`/proc/${pid}/fd`).sort()
    assert.deepEqual(open, ['0', '1', '2'])
    for (const fd of open) {
      assert.equal(readlinkSync(`/proc/${pid}/fd/${fd}`), readlinkSync(`/proc/${child.pid}/fd/${fd}`))
      const flags = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))?.[1] ?? ''
      assert.equal(Number.parseInt(flags, 8) & constants.O_NONBLOCK, 0, `fd ${fd} is non-blocking`)
    }
    child.kill('SIGTERM')
    assert.deepEqual(await once(child, 'exit'), [null, 'SIGTERM'])
  })

  test('has the signals, working directory and core dumps of a program that nobody supervises', async () => {
    const program = supervise(['sleep', '1000'])
    await program.said('started by')
    const pid = await childOf(program)
    for (const mask of ['SigBlk', 'SigIgn', 'SigCgt']) assert.match(statusOf(pid), new RegExp(`^${mask}:\\t0+$`, 'm'))
    assert.equal(readlinkSync(`/proc/${pid}/cwd`), process.cwd())
    const filter = (id: number | 'self') => readFileSync(`/proc/${id}/coredump_filter`, 'utf8')
    assert.equal(filter(pid), filter('self'))
    assert.equal(Number.parseInt(filter(program.child.pid ?? 0), 16), 0)
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 'SIGTERM')
  })
})

describe('signals to the supervisor', () => {
  const LISTED = ['HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'WINCH', 'TSTP', 'CONT', 'TTIN', 'TTOU'] as const
  const LISTENER = `for s in ${LISTED.join(' ')}; do trap "echo got $s" $s; done
trap 'echo got TERM; exit 5' TERM; echo listening; while :; do sleep 1000 & wait $!; done`

  test('reach the command, each once; SIGTERM stops it', async () => {
    const program = supervise(['sh', '-c', LISTENER])
    await program.said('listening')
    for (const name of LISTED) {
      program.child.kill(`SIG${name}`)
      await program.said(`got ${name}\n`)
    }
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 5, program.output())
    // A stop also wakes what is stopped; whether that is told before the end is the shell's affair.
    const told = program.output().replace(/(got CONT\n)+/g, '$1')
    for (const name of LISTED) assert.equal(times(told, `got ${name}`), 1, name)
    assert.equal(times(program.output(), 'got TERM'), 1)
  })

  test('SIGTERM is told by the stop signal, each time anew', async () => {
    const script = `trap 'echo asked; n=$((n+1)); [ $n = 2 ] && exit 6' USR2; n=0; echo ready; while :; do sleep 1000 & wait $!; done`
    const program = supervise(['sh', '-c', script], { stopSignal: 'SIGUSR2' })
    await program.said('ready')
    program.child.kill('SIGTERM')
    await program.said('asked')
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 6)
  })

  test('a command that is stopped can still be ended', async () => {
    const program = supervise(['sleep', '1000'])
    await program.said('started by')
    const pid = await childOf(program)
    process.kill(pid, 'SIGSTOP')
    await until('it is stopped', () => /^State:\tT/m.test(statusOf(pid)))
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 'SIGTERM')
  })
})

describe('at a stop', () => {
  test('what does not end in time is killed, with all it started', async () => {
    const mark = markOf('stubborn')
    const family = `trap '' TERM; sh -c "$1" "$0" & sh -c 'sh -c "$1" "$0" & wait' "$0" "$1" & while :; do sleep 0.1; done`
    const program = supervise(['sh', '-c', family, mark, STUBBORN], { stopTimeoutMs: 300 })
    await until('the family is there', () => marked(mark).length === 2 && times(program.output(), 'stubborn') === 2)
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 137)
    assert.match(program.output(), /it did not end within 300ms of SIGTERM and must be killed/)
    assert.deepEqual(marked(mark), [])
  })

  test('what a command leaves behind is asked as well, and killed in the end', async () => {
    const mark = markOf('left')
    const script = `sh -c 'trap "echo child asked; exit" TERM; echo child; sleep 1000 & wait' "$0" &
sh -c "$1" "$0" & trap 'exit 4' TERM; wait`
    const program = supervise(['sh', '-c', script, mark, STUBBORN], { stopTimeoutMs: 3_000 })
    await until('both run', () => times(program.output(), 'child') === 1 && times(program.output(), 'stubborn') === 1)
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 4)
    assert.equal(times(program.output(), 'child asked'), 1)
    assert.match(program.output(), /of its processes did not end within 3s of SIGTERM and must be killed/)
    assert.deepEqual(marked(mark), [])
  })
})

test('a command that ends by itself takes what it leaves behind with it', async () => {
  const mark = markOf('orphan')
  const program = supervise(['sh', '-c', `sh -c 'echo up; while :; do sleep 0.1; done' "$0" & exit 3`, mark])
  assert.equal(await program.ended, 3)
  assert.deepEqual(marked(mark), [])
})

describe('a restart', () => {
  test('stops the command, and starts it with the new environment', async () => {
    const program = supervise(
      ['sh', '-c', `trap 'echo bye; exit 0' TERM; echo "value $VALUE"; while :; do sleep 1000 & wait $!; done`],
      {
        env: { VALUE: 'one' },
      },
    )
    await program.said('value one')
    const first = await childOf(program)
    await program.restart({ VALUE: 'two' })
    await program.said('value two')
    assert.notEqual(await childOf(program), first)
    assert.equal(times(program.output(), 'bye'), 1)
    assert.equal(program.child.exitCode, null)
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 0)
  })

  /** Takes its time to stop: until the file `$0` is there. */
  const SLOW = `trap 'echo stopping; until [ -e "$0" ]; do sleep 0.05; done; exit 8' TERM
echo "value $VALUE"; while :; do sleep 1000 & wait $!; done`

  test('those that come while one is under way become one, with the last environment', async () => {
    const gate = join(root, 'gate')
    const program = supervise(['sh', '-c', SLOW, gate], { env: { VALUE: 'first' } })
    await program.said('value first')
    const first = program.restart({ VALUE: 'a' })
    await program.said('stopping')
    const others = [program.restart({ VALUE: 'b' }), program.restart({ VALUE: 'c' })]
    // Connections are accepted in the order in which they come, but each is read at its own pace.
    await until('all have been asked', () => program.output().includes('asked 3'))
    await writeFile(gate, '')
    await Promise.all([first, ...others])
    const values = await until('it runs again', () => {
      const found = program.output().match(/value \w+/g) ?? []
      return found.length > 1 ? found : undefined
    })
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 8)
    assert.equal(program.output().match(/value \w+/g)?.length, 2, program.output())
    assert.match(values[1] ?? '', /value [bc]/)
  })

  test('is given up when a stop comes meanwhile', async () => {
    const gate = join(root, 'gate-2')
    const program = supervise(['sh', '-c', SLOW, gate], { env: { VALUE: 'first' } })
    await program.said('value first')
    void program.restart({ VALUE: 'never' }).catch(() => {})
    await program.said('stopping')
    program.child.kill('SIGTERM')
    await writeFile(gate, '')
    assert.equal(await program.ended, 8)
    assert.doesNotMatch(program.output(), /value never/)
  })

  test('leaves nothing of the command before', async () => {
    const mark = markOf('restart')
    const script = `[ "$VALUE" = two ] && { echo second; exec sleep 1000; }; sh -c "$1" "$0" & trap 'exit' TERM; wait`
    const program = supervise(['sh', '-c', script, mark, STUBBORN], { stopTimeoutMs: 200 })
    await program.said('stubborn')
    await program.restart({ VALUE: 'two' })
    assert.deepEqual(marked(mark), [])
    await program.said('second')
    program.child.kill('SIGTERM')
    assert.equal(await program.ended, 'SIGTERM')
  })
})

/** A container with processes of its own; its Node is where also those find it who may not look into the clone. */
const CONTAINER = ['unshare', '--pid', '--fork', '--mount-proc', '--mount', '--kill-child']
const noContainer =
  spawnSync(CONTAINER[0] ?? '', [...CONTAINER.slice(1), 'true']).status === 0 ? false : 'takes root, for PID namespaces'

describe('as the first process of a container', { skip: noContainer }, () => {
  /** Leaves fifty orphans, waits until nothing of them runs, and counts those that nobody waited for. */
  const ORPHANS = `
const { spawnSync } = require('node:child_process')
const { readdirSync, readFileSync } = require('node:fs')
const states = () => readdirSync('/proc').filter(Number).flatMap((pid) => {
  try { const [, name, state] = /^\\d+ \\((.*)\\) (\\S)/s.exec(readFileSync('/proc/' + pid + '/stat', 'latin1')); return name === 'true' || name === 'sh' ? [state] : [] } catch { return [] }
})
const before = states().length
spawnSync(process.execPath, ['-e', "for (let i = 0; i < 50; i += 1) require('child_process').spawn('true')"])
const look = () => {
  const zombies = states().filter((state) => state === 'Z').length
  if (states().length === before || zombies === 50) { console.log('zombies: ' + zombies); process.exit(9) }
  setTimeout(look, 20)
}
look()`

  /** Where `sh` is this shell. */
  async function pathWith(shell: string): Promise<string> {
    const folder = await mkdtemp(join(root, 'bin-'))
    await symlink((await locate(shell, PATH)) ?? '', join(folder, 'sh'))
    return `${folder}:${PATH}`
  }

  const shells = ['dash', 'bash', 'busybox'].filter((name) => spawnSync(name, ['--help']).error === undefined)
  for (const shell of shells)
    test(`it goes beneath ${shell}, which leaves no orphan as a zombie and passes the exit code on`, async () => {
      const path = await pathWith(shell)
      const program = supervise([process.execPath, '-e', ORPHANS], {}, CONTAINER, { PATH: path })
      assert.equal(await program.ended, 9, program.output())
      assert.match(program.output(), /^zombies: 0$/m)
      assert.doesNotMatch(program.output(), /started by 1$/m)
    })

  for (const shell of shells)
    test(`${shell} leaves nothing of its own in the environment of the command`, async () => {
      const own = { PATH: await pathWith(shell), KEPT: 'a\nb' }
      const program = supervise(['env', '-0'], { env: { VALUE: 'x' } }, CONTAINER, own)
      assert.equal(await program.ended, 0)
      assert.deepEqual(environmentIn(program.output()), [`PATH=${own.PATH}`, 'KEPT=a\nb', 'VALUE=x'].sort())
    })

  for (const shell of shells)
    test(`beneath ${shell} signals reach the command once, its input and exit code are kept`, async () => {
      const script = `for s in HUP INT QUIT USR1 USR2 WINCH TSTP TTIN TTOU; do trap "echo got $s" $s; done
trap 'echo got TERM; exit 6' TERM; read line; echo "read $line"; while :; do sleep 1000 & wait $!; done`
      const input = join(root, 'input')
      await writeFile(input, 'a line\n')
      const redirect = ['sh', '-c', `exec "$@" < ${input}`, 'sh']
      const program = supervise(['sh', '-c', script], {}, [...CONTAINER, ...redirect], { PATH: await pathWith(shell) })
      await program.said('read a line')
      const first = await childOf(program)
      for (const name of ['HUP', 'INT', 'QUIT', 'USR1', 'USR2', 'WINCH', 'TSTP', 'TTIN', 'TTOU', 'TERM'] as const) {
        process.kill(first, `SIG${name}`)
        await program.said(`got ${name}\n`)
        assert.equal(times(program.output(), `got ${name}`), 1)
      }
      assert.equal(await program.ended, 6)
    })

  test('a command that is ended by SIGTERM is 143 to whoever runs the container', async () => {
    const program = supervise(['sleep', '1000'], {}, CONTAINER)
    await program.said('started by')
    process.kill(await childOf(program), 'SIGTERM')
    assert.equal(await program.ended, 143)
  })

  test('the end of the supervisor, by whatever, is the end of the container', async () => {
    const mark = markOf('container')
    const program = supervise(['sh', '-c', 'trap "" TERM; echo up; while :; do sleep 0.1; done', mark], {}, CONTAINER)
    await program.said('up')
    const [below = ''] = (
      await readFile(`/proc/${await childOf(program)}/task/${await childOf(program)}/children`, 'utf8')
    ).split(' ')
    process.kill(Number(below), 'SIGKILL')
    assert.equal(await program.ended, 137)
    assert.deepEqual(marked(mark), [])
  })

  test('certferry exec does the same, with a certificate of its own', async () => {
    const folder = await mkdtemp(join(root, 'exec-'))
    await bundleCli(folder)
    const config = join(folder, 'config.yaml')
    const text = `certificates:
  - name: web
    source: { kind: dev-ca, directory: ${folder}/ca, commonName: web.internal, ttl: 1h }
    outputs: [{ kind: pem, directory: ${folder}/tls }]
`
    await writeFile(config, text, { mode: 0o600 })
    const script = `[ -s ${folder}/tls/tls.crt ] && "$0" -e "$1"; trap 'exit 6' TERM; echo ready; while :; do sleep 1000 & wait $!; done`
    const command = ['sh', '-c', script, process.execPath, ORPHANS]
    const cli = [process.execPath, join(folder, 'cli.cjs'), 'exec', '-c', config, '--', ...command]
    const program = startProgram([...CONTAINER, ...cli], { PATH })
    await until('the command is ready', () => times(program.output(), 'ready') === 1)
    process.kill(await childOf(program), 'SIGTERM')
    assert.equal(await program.ended, 6, program.output())
    assert.match(program.output(), /^zombies: 0$/m)
  })

  test('without a shell it says so, once, and runs the command all the same', async () => {
    const node = await nodeIn(root)
    const hide = ['sh', '-c', 'mount -t tmpfs none /usr/bin; [ -L /bin ] || mount -t tmpfs none /bin; exec "$@"', 'sh']
    const command = [node, '-e', 'console.log("ran"); process.exitCode = 4']
    const program = startProgram([...CONTAINER, ...hide, node, SUPERVISE, '{}', ...command], { PATH })
    assert.equal(await program.ended, 4, program.output())
    assert.equal(times(program.output(), 'ran'), 1)
    assert.equal(program.output().match(/has no sh to wait for orphans/g)?.length, 1)
    assert.match(program.output(), /started by 1$/m)
  })
})

const noTerminal = spawnSync('script', ['--version']).status === 0 ? false : 'takes script, of util-linux'

describe('at a terminal', { skip: noTerminal }, () => {
  const quoted = (argv: readonly string[]) => argv.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')

  /** A command on a terminal of its own, and what types there. */
  function atTerminal(argv: readonly string[]) {
    const child = spawn('script', ['-qefc', `exec ${quoted(argv)}`, '/dev/null'], { env: { PATH, SHELL: '/bin/sh' } })
    let text = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    after(() => {
      if (child.exitCode !== null) return
      const supervisor = Number(/started by (\d+)/.exec(text)?.[1])
      if (supervisor > 0 && existsSync(`/proc/${supervisor}`)) process.kill(supervisor, 'SIGTERM')
      child.kill('SIGKILL')
    })
    const output = () => text
    return {
      output,
      ended: once(child, 'exit').then(([code]) => code),
      type: (keys: string) => child.stdin.write(keys),
      said: (line: string | RegExp) => until(`it says ${line}`, () => text.match(line) ?? undefined),
      /** The id of the supervisor. */
      pid: async () => Number((await until('it has started', () => /started by (\d+)/.exec(text) ?? undefined))[1]),
    }
  }
  const CTRL_C = '\x03'
  const CTRL_BACKSLASH = '\x1c'
  const CTRL_Z = '\x1a'

  test('what is typed reaches the command once, and so does a new size; what is sent to the supervisor too', async () => {
    const script = `for s in HUP INT QUIT USR1 WINCH; do trap "echo got $s" $s; done; trap 'exit 5' TERM
stty rows 33; while :; do sleep 1000 & wait $!; done`
    const program = atTerminal(commandLine(['sh', '-c', script]))
    const pid = await program.pid()
    await program.said('got WINCH')
    program.type(CTRL_C)
    await program.said('got INT')
    program.type(CTRL_BACKSLASH)
    await program.said('got QUIT')
    // The supervisor sees to its signals one after the other: whatever it made of those before has come by now.
    for (const name of ['HUP', 'USR1'] as const) {
      process.kill(pid, `SIG${name}`)
      await program.said(`got ${name}`)
    }
    const got = program.output().match(/(?<=got )\w+/g) ?? []
    assert.deepEqual(got.toSorted(), ['HUP', 'INT', 'QUIT', 'USR1', 'WINCH'])
    process.kill(pid, 'SIGTERM')
    assert.equal(await program.ended, 5)
  })

  test('an interactive shell works as without a supervisor', async () => {
    const program = atTerminal(commandLine(['sh', '-i']))
    await program.pid()
    program.type('echo pid $$; sleep 1000\n')
    const shell = Number((await program.said(/pid (\d+)/))[1])
    const job = await until('its job runs', () => {
      const [found] = readFileSync(`/proc/${shell}/task/${shell}/children`, 'utf8').trim().split(' ')
      return found && readFileSync(`/proc/${found}/comm`, 'utf8') === 'sleep\n' ? found : undefined
    })
    program.type(CTRL_C)
    await until('the job has ended', () => !existsSync(`/proc/${job}`))
    program.type('echo al""ive; tty; exit 5\n')
    assert.equal(await program.ended, 5)
    assert.match(program.output(), /^alive\r$/m)
    assert.match(program.output(), /^\/dev\/pts\/\d+\r$/m)
    assert.doesNotMatch(program.output(), /job control turned off|can't access tty/)
  })

  const interactive = ['bash', '--norc', '--noprofile', '-i']

  test('Ctrl-Z stops it with the command, fg lets both go on, and Ctrl-C ends both by SIGINT', async () => {
    const shell = atTerminal(interactive)
    shell.type(`${quoted(commandLine(['sleep', '1000']))}\n`)
    const pid = await shell.pid()
    const child = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
    const both = (state: RegExp) => [pid, child].every((one) => state.test(statusOf(one)))
    shell.type(CTRL_Z)
    await until('both are stopped', () => both(/^State:\tT/m))
    shell.type('fg\n')
    await until('both go on', () => both(/^State:\t[SR]/m))
    shell.type(CTRL_C)
    await until('both have ended', () => ![pid, child].some((one) => existsSync(`/proc/${one}`)))
    shell.type('echo code-$?; exit 3\n')
    assert.equal(await shell.ended, 3)
    assert.match(shell.output(), /^code-130\r$/m)
  })

  test('in the background it passes SIGINT on, which nobody typed', async () => {
    const shell = atTerminal(interactive)
    const script = `trap 'echo got INT; kill $!; exit 6' INT; echo ready; while :; do sleep 1000 & wait $!; done`
    shell.type(`${quoted(commandLine(['sh', '-c', script]))} &\n`)
    const pid = await shell.pid()
    await shell.said(/ready\r$/m)
    process.kill(pid, 'SIGINT')
    await shell.said(/got INT\r$/m)
    shell.type(`wait ${pid}; echo code-$?; exit 3\n`)
    assert.equal(await shell.ended, 3)
    assert.match(shell.output(), /^code-6\r$/m)
    assert.equal(shell.output().match(/got INT\r$/gm)?.length, 1)
  })
})
