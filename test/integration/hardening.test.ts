import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bundleCli } from '../../tools/build.ts'
import { type Certferry, type StartOptions, startCertferry } from '../support/certferry.ts'
import { listeningPorts } from '../support/listening.ts'
import { until } from '../support/until.ts'

const programs = mkdtempSync(join(tmpdir(), 'certferry-test-'))
after(() => rmSync(programs, { recursive: true, force: true }))
const program = join(programs, 'cli.cjs')
await bundleCli(programs)
// Other users run it as well.
chmodSync(programs, 0o755)

const DEFECT = fileURLToPath(new URL('../fixtures/defect.ts', import.meta.url))
/** In the environment, and so in the memory, of every certferry here. */
const CANARY = 'hvs.canary-0ddba11-of-the-environment'

interface Place {
  readonly folder: string
  /** Empty; where the process works, and would leave what it leaves. */
  readonly cwd: string
  readonly socket: string
  readonly certferry: (options?: Partial<StartOptions>) => Certferry
}

/** A certificate of a CA in a folder, and beside it one from a Vault that is not there, asked with the canary. */
function place(t: TestContext, reload: readonly object[] = []): Place {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-hard-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const cwd = mkdtempSync(join(folder, 'cwd-'))
  const [socket, configFile] = [join(folder, 'control.sock'), join(folder, 'config.yaml')]
  const config = {
    vault: { address: 'http://127.0.0.1:9', auth: { kind: 'token', token: '${CANARY}' } },
    admin: { listen: '127.0.0.1:0', socket },
    certificates: [
      {
        name: 'web',
        source: { kind: 'dev-ca', directory: join(folder, 'ca'), commonName: 'web.example.com' },
        outputs: [{ kind: 'pem', directory: join(folder, 'web') }],
        reload,
      },
      {
        name: 'vault',
        source: { kind: 'vault-pki', role: 'web', commonName: 'web.example.com' },
        outputs: [{ kind: 'pem', directory: join(folder, 'vault') }],
      },
    ],
  }
  writeFileSync(configFile, JSON.stringify(config), { mode: 0o600 })
  return {
    folder,
    cwd,
    socket,
    certferry: ({ env = {}, before = [], ...more } = {}) =>
      startCertferry({
        configFile,
        socket,
        program,
        env: { CANARY, ...env },
        before: ['env', `--chdir=${cwd}`, ...before],
        ...more,
      }),
  }
}

const ready = (certferry: Certferry) =>
  certferry.certificate('web', 'is delivered', ({ phase, serial }) => phase === 'ACTIVE' && serial !== null)

const REPORTS = '--report-on-fatalerror --report-on-signal --report-uncaught-exception --heapsnapshot-signal=SIGHUP'

describe('memory stays in memory', { concurrency: 3 }, () => {
  const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8').trim()
  const isPlain = /^core(?:\.%p)?$/.test(pattern)

  test('a core dump holds none of it', async (t) => {
    const { cwd, certferry: start } = place(t)
    /** The core of a process that dies of SIGSEGV. */
    const coreOf = async (certferry: Certferry): Promise<Core | undefined> => {
      execFileSync('prlimit', [`--pid=${certferry.pid}`, '--core=unlimited:unlimited'])
      await certferry.stop('SIGSEGV')
      const [name] = readdirSync(cwd)
      if (name === undefined) return undefined
      const path = join(cwd, name)
      return { size: statSync(path).size, holds: (text) => holds(path, text) }
    }
    await using hardened = start()
    await ready(hardened)
    assert.match(readFileSync(`/proc/${hardened.pid}/coredump_filter`, 'utf8'), /^0+$/m)
    if (!isPlain) return t.diagnostic(`only the filter was looked at: cores go to ${pattern}`)
    const core = await coreOf(hardened)
    if (!core) return t.diagnostic('only the filter was looked at: this system writes no core')
    for (const secret of [CANARY, 'PRIVATE KEY']) assert.ok(!core.holds(secret))
    for (const name of readdirSync(cwd)) rmSync(join(cwd, name))
    // The other way round, so that it is known that the canary would be found.
    await using exposed = start()
    await ready(exposed)
    writeFileSync(`/proc/${exposed.pid}/coredump_filter`, '0x1')
    const whole = await coreOf(exposed)
    t.diagnostic(`core of ${core.size} bytes; with private memory in it ${whole?.size} bytes`)
    assert.ok(whole?.holds(CANARY))
  })

  test('P3 no signal brings a report, a heap snapshot or the inspector, whatever NODE_OPTIONS says', async (t) => {
    const { cwd, certferry: start } = place(t)
    await using certferry = start({ env: { NODE_OPTIONS: `${REPORTS} --inspect=127.0.0.1:0` } })
    await ready(certferry)
    for (const signal of ['SIGUSR1', 'SIGUSR2', 'SIGHUP'] as const) {
      certferry.send(signal)
      await certferry.status()
    }
    assert.equal(listeningPorts(certferry.pid).length, 1, 'only admin.listen')
    assert.equal((await certferry.stop()).code, 0)
    assert.deepEqual(readdirSync(cwd), [])
  })

  for (const way of ['throw', 'reject', 'memory'])
    test(`a defect (${way}) brings no report and tells no secret`, async (t) => {
      const { folder, cwd, certferry: start } = place(t)
      const file = join(folder, 'defect')
      const NODE_OPTIONS = `${REPORTS} --import=${DEFECT} --max-old-space-size=100`
      let told = ''
      await using certferry = start({
        env: { NODE_OPTIONS, DEFECT_FILE: file },
        onOutput: (text) => (told += text),
      })
      await ready(certferry)
      writeFileSync(`${file}.new`, `${way} ${CANARY}`)
      renameSync(`${file}.new`, file)
      await until('it ends', () => hasEnded(certferry.pid))
      const { code } = await certferry.stop()
      if (way !== 'memory') assert.equal(code, 70)
      assert.ok(told.length > 0)
      assert.doesNotMatch(told, /canary/)
      assert.deepEqual(readdirSync(cwd), [])
    })

  test('profiles, coverage and traces that Node was told to write hold no secret', async (t) => {
    const { folder, cwd, certferry: start } = place(t)
    const NODE_OPTIONS = '--cpu-prof --heap-prof --trace-event-categories=v8,node,node.async_hooks'
    await using certferry = start({ env: { NODE_OPTIONS, NODE_V8_COVERAGE: cwd } })
    await ready(certferry)
    await certferry.stop()
    const files = readdirSync(cwd).map((name) => readFileSync(join(cwd, name), 'utf8'))
    const keys = bodyLines(readFileSync(join(folder, 'web', 'tls.key'), 'utf8'))
    t.diagnostic(`${files.length} files, ${files.join('').length} characters`)
    assert.ok(files.length >= 3, readdirSync(cwd).join())
    for (const text of files) for (const secret of [CANARY, ...keys]) assert.ok(!text.includes(secret))
  })

  for (const [name, value] of [
    ['NODE_DEBUG', 'child_process'],
    ['NODE_OPTIONS', '--heapsnapshot-near-heap-limit=1'],
    ['NODE_OPTIONS', '--trace-warnings "--tls_keylog=/tmp/certferry-keylog"'],
    ['NODE_OPTIONS', '--tls"-key"log=/tmp/certferry-keylog'],
    ['NODE_OPTIONS', String.raw`"--heapsnapshot-near-heap\-limit=1"`],
    ['NODE_OPTIONS', '--trace-tls'],
  ] as const)
    test(`${name}=${value} is refused, for it cannot be turned off`, (t) => {
      const { folder } = place(t)
      const { status, stderr } = spawnSync(process.execPath, [program, 'run', '-c', join(folder, 'config.yaml')], {
        env: { [name]: value, CANARY },
        encoding: 'utf8',
      })
      assert.equal(status, 78)
      const plain = value.replaceAll(/["\\]/g, '')
      const setting = name === 'NODE_DEBUG' ? name : (/--(?!trace-warnings)[\w-]+/.exec(plain)?.[0] ?? '')
      assert.ok(
        stderr.includes(`certferry: ${setting.replace('_', name === 'NODE_DEBUG' ? '_' : '-')} makes Node`),
        stderr,
      )
      assert.doesNotMatch(stderr, /canary/)
    })

  test('options from a file are refused, for nobody can look through them', (t) => {
    const { folder } = place(t)
    const options = join(folder, 'options.json')
    writeFileSync(options, JSON.stringify({ nodeOptions: { 'tls-keylog': join(folder, 'keys') } }))
    const args = [`--experimental-config-file=${options}`, program, 'run', '-c', join(folder, 'config.yaml')]
    const { status, stderr } = spawnSync(process.execPath, args, { env: {}, encoding: 'utf8' })
    assert.equal(status, 78)
    assert.match(stderr, /certferry: --experimental-config-file makes Node take options from a file/)
  })
})

interface Core {
  readonly size: number
  holds(text: string): boolean
}

/** By grep, since a core has hundreds of megabytes. */
const holds = (path: string, text: string) => spawnSync('grep', ['-qaF', '-e', text, path]).status === 0

const bodyLines = (pem: string) => pem.split('\n').filter((line) => line.length === 64)

/** Also one that nobody has waited for yet. */
function hasEnded(pid: number): boolean {
  try {
    return /^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return true
  }
}

test('a command gets no descriptor, no environment and no folder of ours', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-hard-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  /** Tells what it was started with. */
  const spy = (name: string) => [
    'sh',
    '-c',
    `exec > ${folder}/${name}.new; readlink /proc/$$/cwd; readlink /proc/$$/fd/0; ls /proc/$$/fd | xargs; ps -o pgid= -p $$ | xargs; echo $$
     tr '\\0' '\\n' < /proc/$$/environ | sort; mv ${folder}/${name}.new ${folder}/${name}`,
  ]
  const { certferry: start } = place(t, [
    { kind: 'exec', command: spy('command'), test: spy('test'), env: { GIVEN: 'x' } },
  ])
  // Libuv keeps from children what it finds open, up to the first gap above 15. What lies beyond, and these tests were started with, is passed on.
  const leftByUs = readdirSync('/proc/self/fd').filter((fd) => Number(fd) > 15 && isPassedOn(fd))
  // What whoever starts it left open and set.
  const before = ['sh', '-c', 'exec 7< /etc/passwd 9> /dev/null; exec "$@"', 'sh']
  await using certferry = start({
    before,
    env: { VAULT_TOKEN: CANARY, NODE_OPTIONS: '--trace-warnings', LD_DEBUG_OUTPUT: '/x' },
  })
  await ready(certferry)
  // The test of the target runs from the second time on.
  await certferry.control.rotate({ certificates: ['web'] })
  for (const name of ['test', 'command']) {
    const told = await until(`${name} ran`, () => readFileSync(join(folder, name), 'utf8'))
    const [cwd, stdin, fds = '', group, pid, ...environment] = told.trim().split('\n')
    assert.deepEqual([cwd, stdin], ['/', '/dev/null'], name)
    assert.deepEqual(
      fds.split(' ').filter((fd) => !leftByUs.includes(fd)),
      ['0', '1', '2'],
    )
    assert.equal(group, pid, 'a process group of its own')
    const names = environment.map((line) => line.slice(0, line.indexOf('=')))
    // PWD is of the shell itself.
    const allowed = /^(?:PATH|PWD|CERTFERRY_(?:CERTIFICATES|SERIAL|FINGERPRINT|NOT_AFTER|DIRECTORIES))$/
    assert.deepEqual(
      names.filter((one) => !allowed.test(one)),
      name === 'command' ? ['GIVEN'] : [],
    )
    assert.doesNotMatch(told, /canary/)
  }
})

const O_CLOEXEC = 0o2000000

/** By proc_pid_fdinfo(5): the flags of a descriptor of this process, in octal. */
function isPassedOn(fd: string): boolean {
  try {
    const [, flags = ''] = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? []
    return (Number.parseInt(flags, 8) & O_CLOEXEC) === 0
  } catch {
    // It was that of the listing.
    return false
  }
}

describe('the control socket lets in its owner and root, by its mode', () => {
  const NOBODY = 65534
  const skip = process.getuid?.() === 0 ? false : 'only root may become another user'
  if (skip) console.error(`SKIPPED: ${skip}`)
  const as = (uid: number) => ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups']

  /** What a connection meets: `connected`, or the code of the error. */
  const connectAs = (uid: number, socket: string): string => {
    const script = `require('node:net').connect(process.argv[1]).on('error', (e) => console.log(e.code))
      .on('connect', function () { console.log('connected'); this.destroy() })`
    const [command = '', ...args] = [...as(uid), process.execPath, '-e', script, socket]
    return execFileSync(command, args, { encoding: 'utf8', env: {} }).trim()
  }

  for (const umask of ['000', '077'])
    test(`nobody else, with umask ${umask} and whatever the mode of its folder`, { skip }, async (t) => {
      const { folder, socket, certferry: start } = place(t)
      await using certferry = start({ before: ['sh', '-c', `umask ${umask}; exec "$@"`, 'sh'] })
      await ready(certferry)
      for (const mode of [0o700, 0o755, 0o777]) {
        chmodSync(folder, mode)
        assert.equal(connectAs(NOBODY, socket), 'EACCES', mode.toString(8))
      }
      assert.equal(connectAs(0, socket), 'connected')
    })

  test('its owner, root, and no third', { skip }, async (t) => {
    const { folder, socket, certferry: start } = place(t)
    for (const path of ['', ...readdirSync(folder)]) chownSync(join(folder, path), NOBODY, NOBODY)
    await using certferry = start({ before: as(NOBODY) })
    await ready(certferry)
    chmodSync(folder, 0o755)
    assert.deepEqual(
      [NOBODY, 0, NOBODY - 1].map((uid) => connectAs(uid, socket)),
      ['connected', 'connected', 'EACCES'],
    )
  })
})
