import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { bundleCli } from '../../tools/build.ts'
import { context, failure, make, never, shellNamed } from '../reloaders/support.ts'
import { nodeIn } from '../support/bundled.ts'
import { commandLine, startCertferry } from '../support/certferry.ts'
import { skipReason } from '../support/components.ts'
import { freePort, startNginx } from '../support/nginx.ts'
import { startProgram } from '../support/program.ts'
import { until } from '../support/until.ts'

const root = await mkdtemp(join(tmpdir(), 'certferry-helper-'))
after(() => rm(root, { recursive: true, force: true }))
await chmod(root, 0o755)
await bundleCli(root)
const node = await nodeIn(root)
const HELPER = [node, ...commandLine(join(root, 'cli.cjs'), 'reload-helper')]

/** A container with processes of its own. */
const CONTAINER = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child']
const skip =
  spawnSync(CONTAINER[0] ?? '', [...CONTAINER.slice(1), 'true']).status === 0 ? false : 'takes root, for PID namespaces'

const PATH = process.env.PATH ?? ''

/** Tells what it was started as, then each signal; SIGTERM ends it with 7. */
const APP = `
trap 'echo HUP' HUP; trap 'echo TERM; exit 7' TERM
echo "pid $$ with $*, $CANARY"
while :; do sleep 100 & wait; done`

interface Start {
  readonly options?: readonly string[]
  readonly command?: readonly string[]
  readonly before?: readonly string[]
  readonly folder?: string
}

let count = 0
/** A volume of its own, and the helper in a container. */
async function start({
  options = [],
  command = ['sh', '-c', APP, 'app', 'a b', '-x'],
  before = CONTAINER,
  folder,
}: Start = {}) {
  count += 1
  const volume = folder ?? join(root, `volume-${count}`)
  await mkdir(volume, { recursive: true })
  const socket = join(volume, 'app.sock')
  const argv = [...before, ...HELPER, '--socket', socket, ...options, ...(command.length > 0 ? ['--', ...command] : [])]
  const program = startProgram(argv, { PATH, CANARY: 'kept' })
  const said = (text: string) => until(`it says ${text}`, () => program.output().includes(text))
  const reloader = make({ kind: 'http', url: 'http://localhost/reload', socket })
  return { ...program, socket, volume, said, reload: () => reloader.reload(context, never) }
}

/** How often a line is in it. */
const times = (output: string, line: string) => output.split('\n').filter((one) => one === line).length

/** The process that runs below `unshare`, as this namespace numbers it. */
async function inside(pid: number | undefined): Promise<number> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
  return Number(children.trim().split(' ')[0])
}

describe('certferry reload-helper in a container of its own', { skip }, () => {
  test('runs the command as the first process, with its arguments and environment, and signals it when asked', async () => {
    const app = await start()
    await app.said('pid 1 with a b -x, kept')
    await app.reload()
    await until('the command was signalled', () => times(app.output(), 'HUP') === 1)
    await app.reload()
    await until('the command was signalled again', () => times(app.output(), 'HUP') === 2)
    assert.match(app.output(), /^certferry: SIGHUP to (?:sh|dash|bash), pid 1$/m)
  })

  test('a signal to the container is one to the command, whose exit code stays, and nothing of it is left', async () => {
    const app = await start()
    await app.said('pid 1 with')
    process.kill(await inside(app.child.pid), 'SIGTERM')
    assert.equal(await app.ended, 7)
    assert.equal(times(app.output(), 'TERM'), 1)
    await assert.rejects(app.reload(), failure('RELOAD_TARGET_MISSING', /failed: /))
  })

  test('orphans of the command do not stay as zombies', async () => {
    const script = `(sh -c 'exit 0' &) ; while :; do sleep 0.1; grep -ls '^State:.Z' /proc/[0-9]*/status || break; done; echo clean`
    const app = await start({ command: ['sh', '-c', script] })
    assert.equal(await app.ended, 0)
    assert.ok(app.output().includes('clean'), app.output())
  })

  test('leaves the command its core dumps', async () => {
    const app = await start({ command: ['cat', '/proc/self/coredump_filter'] })
    assert.equal(await app.ended, 0)
    assert.equal(app.output().trim(), (await readFile('/proc/self/coredump_filter', 'utf8')).trim())
  })

  test('does not signal a command that does not take the signal, and says so', async () => {
    const app = await start({ command: ['sleep', '100'], options: ['--signal', 'SIGUSR1'] })
    await until(
      'the command runs',
      async () => (await readFile(`/proc/${await inside(app.child.pid)}/comm`, 'utf8')) === 'sleep\n',
    )
    await assert.rejects(
      app.reload(),
      failure('RELOAD_TARGET_MISSING', /status 503: sleep, pid 1, does not take SIGUSR1, or not yet$/),
    )
    assert.equal(app.child.exitCode, null)
  })

  test('signals by name what is not its command', async () => {
    const named = await shellNamed('reloadee', root)
    const command = ['sh', '-c', `"$0" -c "$1" & wait`, named, APP]
    const app = await start({ command, options: ['--process', 'reloadee'] })
    await app.said('pid ')
    await app.reload()
    await until('the target was signalled', () => times(app.output(), 'HUP') === 1)
    assert.match(app.output(), /^certferry: SIGHUP to reloadee, pid (?!1$)\d+$/m)
  })

  test('signals by pid file, without a command, until it is told to stop', async () => {
    const volume = join(root, 'pid-file')
    const pidFile = join(volume, 'app.pid')
    const script = `sh -c "$0" & echo $! > ${pidFile}; shift; "$@" & wait $!`
    await mkdir(volume)
    const before = [...CONTAINER, 'sh', '-c', script, APP, 'app']
    const app = await start({
      before,
      command: [],
      options: ['--pid-file', pidFile, '--signal', 'SIGHUP'],
      folder: volume,
    })
    await app.said(`listening on ${app.socket}`)
    await app.said('pid ')
    await app.reload()
    await until('the target was signalled', () => times(app.output(), 'HUP') === 1)
    await rm(pidFile)
    await assert.rejects(app.reload(), failure('RELOAD_TARGET_MISSING', /status 503: pid file .* does not exist/))
  })

  test('works as an ordinary user without capabilities, on a root that is read-only', async () => {
    const volume = join(root, 'restricted')
    await mkdir(volume)
    await chown(volume, 4711, 4711)
    const sets = ['inh-caps', 'ambient-caps', 'bounding-set'].map((set) => `--${set}=-all`)
    const user = ['setpriv', '--reuid=4711', '--regid=4711', '--clear-groups', '--no-new-privs', ...sets]
    const readOnly = `mount --bind ${volume} ${volume}; mount -o remount,ro,bind /; exec "$@"`
    const before = [...CONTAINER, '--mount', 'sh', '-ec', readOnly, 'sh', ...user]
    const app = await start({ before, folder: volume })
    await app.said('pid 1 with')
    await app.reload()
    await until('the command was signalled', () => times(app.output(), 'HUP') === 1)
  })
})

describe('the socket of certferry reload-helper', { skip }, () => {
  /** Whether this user may connect; the code of the error where not. */
  async function connecting(socket: string, uid: number, gid: number): Promise<string> {
    const script = `require('net').connect(process.argv[1]).on('connect', function () { console.log('open'); this.end() }).on('error', (error) => console.log(error.code))`
    const child = spawn(node, ['-e', script, socket], { uid, gid, stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    child.stdout.on('data', (chunk) => (text += chunk))
    await once(child, 'close')
    return text.trim()
  }
  const as = (uid: number, gid: number) => ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups']

  test('lets its own user in, and nobody else', async () => {
    const folder = join(root, 'own')
    await mkdir(folder)
    await chmod(folder, 0o777)
    const app = await start({ folder, before: [...CONTAINER, ...as(4711, 4711)] })
    await app.said('pid 1 with')
    assert.equal((await stat(app.socket)).mode & 0o777, 0o600)
    assert.equal(await connecting(app.socket, 4711, 4711), 'open')
    assert.equal(await connecting(app.socket, 4712, 4711), 'EACCES')
  })

  test('with mode 0660 lets the group of the volume in as well, and nobody else', async () => {
    const folder = join(root, 'group')
    await mkdir(folder)
    await chown(folder, 0, 4800)
    // As Kubernetes prepares a volume for an fsGroup.
    await chmod(folder, 0o2777)
    const app = await start({ folder, before: [...CONTAINER, ...as(4711, 4711)], options: ['--socket-mode', '0660'] })
    await app.said('pid 1 with')
    const { mode, gid } = await stat(app.socket)
    assert.deepEqual([mode & 0o777, gid], [0o660, 4800])
    assert.equal(await connecting(app.socket, 4712, 4800), 'open')
    assert.equal(await connecting(app.socket, 4712, 4711), 'EACCES')
  })

  test('is made anew after the container was killed, and not taken from a helper that lives', async () => {
    const folder = join(root, 'again')
    const first = await start({ folder })
    await first.said('pid 1 with')
    const second = await start({ folder })
    assert.equal(await second.ended, 78)
    assert.match(second.output(), /another process serves the socket/)
    assert.doesNotMatch(second.output(), /pid 1 with/)
    process.kill(await inside(first.child.pid), 'SIGKILL')
    await first.ended
    const third = await start({ folder })
    await third.said('pid 1 with')
    await third.reload()
    await until('the command was signalled', () => times(third.output(), 'HUP') === 1)
  })

  test('answers to nothing but POST /reload', async () => {
    const app = await start()
    await app.said('pid 1 with')
    const others = [{ url: 'http://localhost/' }, { url: 'http://localhost/reload', method: 'GET' }]
    for (const other of others)
      await assert.rejects(
        make({ kind: 'http', socket: app.socket, ...other }).reload(context, never),
        failure('RELOAD_FAILED', /status 40[45]/),
      )
    assert.equal(times(app.output(), 'HUP'), 0)
  })
})

describe('certferry reload-helper', () => {
  test('ends with its command where that is not the first process', async () => {
    const app = await start({ before: [] })
    await app.said('with a b -x, kept')
    await app.reload()
    await until('the command was signalled', () => times(app.output(), 'HUP') === 1)
    // The helper is in a session of its own.
    process.kill(-(app.child.pid ?? 0), 'SIGKILL')
    await until('the socket is gone', () =>
      stat(app.socket).then(
        () => false,
        () => true,
      ),
    )
    assert.equal(await app.ended, 'SIGKILL')
  })

  const wrong: [title: string, start: Start, code: number, says: RegExp][] = [
    ['a program that is not there', { command: ['no-such-program'] }, 64, /there is no program no-such-program/],
    ['nothing to signal', { command: [] }, 64, /needs a command after --, or --pid-file, or --process/],
    ['a signal that asks for nothing', { options: ['--signal', 'SIGKILL'] }, 64, /signal: /],
    ['a pid file at a relative path', { options: ['--pid-file', 'app.pid'] }, 64, /pidFile: must be an absolute path/],
    ['a socket for everybody', { options: ['--socket-mode', '0666'] }, 64, /--socket-mode 0666 must be 0600/],
    ['a socket that cannot be made', { folder: '/proc/self' }, 69, /the socket \/proc\/self\/app\.sock cannot be made/],
  ]
  for (const [title, options, code, says] of wrong)
    test(`refuses ${title}, and starts nothing`, async () => {
      const app = await start({ before: [], ...options })
      assert.equal(await app.ended, code, app.output())
      assert.match(app.output(), says)
      assert.doesNotMatch(app.output(), /kept/)
    })
})

test('a sidecar in one PID namespace rotates an nginx in another, proven to be served', {
  skip: skip || (await skipReason('nginx')),
}, async () => {
  const volume = join(root, 'pod')
  await mkdir(volume)
  const tls = join(volume, 'tls')
  const app = join(volume, 'app.sock')
  const control = join(volume, 'control.sock')
  const config = join(volume, 'config.yaml')
  const port = await freePort()
  const text = `admin: { socket: ${control} }
certificates:
  - name: web
    source: { kind: dev-ca, directory: ${volume}/ca, commonName: web.internal, ttl: 1h }
    outputs: [{ kind: pem, directory: ${tls}, layout: nginx-include }]
    reload: [{ kind: http, url: 'http://localhost/reload', socket: ${app} }]
    verify: [{ kind: tls, address: '127.0.0.1:${port}' }]
`
  await writeFile(config, text, { mode: 0o600 })
  await using certferry = startCertferry({
    configFile: config,
    socket: control,
    program: join(root, 'cli.cjs'),
    before: CONTAINER,
  })
  const { serial } = await certferry.certificate('web', 'is delivered', (now) => now.serial !== null)
  await using nginx = await startNginx({
    port,
    server: `include ${tls}/tls.conf;`,
    before: [...CONTAINER, ...HELPER, '--socket', app, '--'],
  })
  assert.equal((await readFile(nginx.pidFile, 'utf8')).trim(), '1')
  await certferry.certificate('web', 'is served', ({ verified }) => verified === 'verified')
  await certferry.control.rotate({ certificates: ['web'], wait: true })
  await certferry.certificate(
    'web',
    'is served anew',
    (now) => now.verified === 'verified' && now.serial !== serial && now.phase === 'ACTIVE',
  )
})
