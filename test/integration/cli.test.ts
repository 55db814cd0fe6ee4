import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it, test } from 'node:test'
import { bundleCli } from '../../tools/build.ts'
import { startCertferry } from '../support/certferry.ts'
import { until } from '../support/until.ts'

const root = mkdtempSync(join(tmpdir(), 'certferry-cli-'))
after(() => rmSync(root, { recursive: true, force: true }))
/** What is published; it also starts sooner. */
const CLI = join(root, 'dist', 'cli.cjs')
await bundleCli(join(root, 'dist'))

interface Result {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs one command to its end, in an environment that knows no Vault. */
async function certferry(
  args: readonly string[],
  { env = {}, node = [] }: { env?: object; node?: string[] } = {},
): Promise<Result> {
  const child = spawn(process.execPath, [...node, CLI, ...args], {
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const texts = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => (texts.stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (texts.stderr += text))
  const [code] = await once(child, 'close')
  return { code, ...texts }
}

const certificate = (folder: string, name: string, rest = '') => `  - name: ${name}
    source: { kind: dev-ca, directory: ${folder}/ca, commonName: ${name}.example, ttl: 1h }
    outputs: [{ kind: pem, directory: ${folder}/${name} }]
${rest}`

/** A folder of its own with a config: an admin server, an audit log, and these certificates. */
function project(name: string, certificates: (folder: string) => readonly string[]) {
  const folder = join(root, name)
  mkdirSync(folder, { mode: 0o700 })
  const [file, socket, audit] = [join(folder, 'c.yaml'), join(folder, 'control.sock'), join(folder, 'audit.log')]
  const write = (text: string) => writeFileSync(file, text, { mode: 0o600 })
  const text = `admin: { listen: '127.0.0.1:0', socket: ${socket} }
audit: { file: ${audit} }
certificates:
${certificates(folder).join('')}`
  write(text)
  return {
    folder,
    file,
    socket,
    audit,
    text,
    write,
    start: () => startCertferry({ configFile: file, socket, program: CLI }),
  }
}

describe('what cannot be done ends with its exit code:', () => {
  const { file, folder } = project('usage', (folder) => [certificate(folder, 'web')])
  const broken = join(folder, 'broken.yaml')
  writeFileSync(
    broken,
    'admin: { sokcet: /x }\ncertificates:\n  - name: web\n    outputs: [{ kind: pem, directory: tls, mode: 0600 }]\n',
    { mode: 0o600 },
  )
  const cases: readonly (readonly [claim: string, args: readonly string[], code: number, says: RegExp])[] = [
    [
      'a misspelt verb, with the one that was meant',
      ['stauts'],
      64,
      /^certferry: unknown command 'stauts'\n\(Did you mean status\?\)/,
    ],
    ['a misspelt option', ['run', '--confg', 'x'], 64, /unknown option '--confg'\n\(Did you mean --config\?\)/],
    ['no verb', [], 64, /^Usage: certferry/],
    ['a duration in no unit', ['once', '--timeout', '5'], 64, /"5" is not a duration; write for example 90s/],
    [
      'a rotation of nothing',
      ['rotate', '-c', file],
      64,
      /^certferry: give names of certificates, secrets or trusts, or --all\n/,
    ],
    ['a rotation of some and all', ['rotate', 'web', '--all', '-c', file], 64, /give names or --all, not both/],
    ['a config that is not there', ['run', '-c', join(folder, 'none.yaml')], 78, /none\.yaml {2}no such file/],
    [
      'nobody at the socket',
      ['status', '-c', file],
      69,
      /no answer from certferry at .*control\.sock.*\n {2}Is "certferry run" running/,
    ],
    [
      'an audit log that is not there',
      ['audit', 'verify', join(folder, 'none.log')],
      78,
      /none\.log cannot be read: ENOENT/,
    ],
  ]
  for (const [claim, args, code, says] of cases) {
    it(claim, async () => {
      const result = await certferry(args)
      assert.match(result.stderr, says)
      assert.deepEqual([result.code, result.stdout], [code, ''])
    })
  }

  it('G1 a config with several mistakes: all of them, each at its place', async () => {
    const { code, stderr } = await certferry(['validate', '-c', broken])
    assert.equal(code, 78)
    assert.deepEqual(stderr.replaceAll(`${folder}/`, '').split('\n').slice(0, 5), [
      'certferry: broken.yaml: 4 problems',
      '  broken.yaml:1:10  admin.sokcet: unknown key; did you mean "socket"?',
      '  broken.yaml:3:5   certificates[0].source: is required',
      '  broken.yaml:4:39  certificates[0].outputs[0].directory: must be an absolute path (found "tls")',
      "  broken.yaml:4:50  certificates[0].outputs[0].mode: must be a quoted octal string such as '0600', not the number 600 (YAML reads an unquoted 0600 as the decimal 600)",
    ])
  })

  it('a defect, with its stack', async () => {
    const node = ['--import', 'data:text/javascript,JSON.stringify=()=>{throw new TypeError("planted")}']
    const { code, stderr } = await certferry(['validate', '-c', file], { node })
    assert.equal(code, 70, stderr)
    assert.match(
      stderr,
      /^certferry: unexpected error: planted\n {2}This is a defect of certferry; please report it with the stack\.\nTypeError: planted\n {4}at /,
    )
  })
})

describe('once', () => {
  const good = project('once', (folder) => [certificate(folder, 'web'), certificate(folder, 'api')])

  it('obtains what is missing, a line for each, and issues nothing the second time', async () => {
    const first = await certferry(['once', '-c', good.file])
    assert.equal(first.code, 0, first.stderr)
    assert.deepEqual(
      first.stdout
        .split('\n')
        .sort()
        .map((line) => line.replace(/in \S+(?: \S+)?,/, 'in …,')),
      [
        '',
        ...['api', 'web'].map(
          (name) => `✓ ${name}  obtained, expires in …, not verified: no verifier  ${good.folder}/${name}`,
        ),
      ],
    )
    const key = join(good.folder, 'web', 'tls.key')
    const before = readFileSync(key, 'utf8')
    assert.equal(statSync(key).mode & 0o777, 0o600)
    const second = await certferry(['once', '-c', good.file])
    assert.match(second.stdout, /✓ web {2}still good, expires in/)
    assert.equal(readFileSync(key, 'utf8'), before)
  })

  it('names what is missing when the time is up', async () => {
    const { file, folder } = project('late', (folder) => [
      certificate(folder, 'fine'),
      certificate(folder, 'deaf', "    reload: [{ kind: exec, command: [sh, -c, 'echo not today >&2; exit 3'] }]\n"),
    ])
    const { code, stdout, stderr } = await certferry(['once', '-c', file, '--timeout', '6s'])
    assert.equal(code, 69)
    assert.match(stdout, /^✓ fine {2}obtained/)
    assert.match(
      stderr,
      /certferry: 1 certificate not done after 6s:\n {2}deaf: a valid set is on disk, but reload command .* exited with code 3; it printed: not today\. /,
    )
    assert.ok(existsSync(join(folder, 'deaf', 'tls.crt')), 'what is valid is on disk')
  })
})

test('a running sidecar answers, rotates, loads its config again and ends cleanly', async (t) => {
  const { folder, file, socket, audit, text, write, start } = project('run', (folder) => [
    certificate(
      folder,
      'web',
      `    reload: [{ kind: exec, command: [sh, -c, 'echo "$CERTFERRY_SERIAL" >> ${folder}/told'] }]\n`,
    ),
    certificate(folder, 'api'),
  ])
  const ask = (...args: string[]) => certferry([...args, '-c', file])
  const early = ask('wait', '--timeout', '20s')
  await using sidecar = start()

  await t.test('wait returns when all sets are on disk, also when it was asked before the start', async () => {
    assert.deepEqual(await early, { code: 0, stdout: 'ready: 2 certificates\n', stderr: '' })
    const [named, unknown, late] = await Promise.all([
      ask('wait', 'api'),
      ask('wait', 'apt'),
      certferry(['wait', '--socket', join(folder, 'other.sock'), '--timeout', '300ms']),
    ])
    assert.deepEqual([named.code, named.stdout], [0, 'ready: 1 certificate\n'])
    assert.deepEqual(
      [unknown.code, unknown.stderr.split('\n')[0]],
      [64, 'certferry: no certificate, secret or trust named apt; there are: web, api'],
    )
    assert.equal(late.code, 69)
    assert.match(late.stderr, /^certferry: not ready within 300ms: no answer from certferry at .*other\.sock/)
  })

  await t.test('the control socket is for this user alone', () => assert.equal(statSync(socket).mode & 0o777, 0o600))

  await t.test('status is a table, and JSON for machines', async () => {
    await sidecar.certificate('web', 'was told', ({ verified }) => verified === 'none')
    const [table, json] = await Promise.all([ask('status'), ask('status', '--json')])
    assert.match(
      table.stdout,
      /^certferry \S+ · up \S+ · 2 active\n\nNAME +PHASE +SERIAL +EXPIRES IN +RENEWS IN +ROTATED +SERVED\nweb +ACTIVE +\w{4}…\w{4} +59m \d+s /,
    )
    const status = JSON.parse(json.stdout)
    assert.deepEqual(
      status.certificates.map(({ name, phase }: { name: string; phase: string }) => [name, phase]),
      [
        ['web', 'ACTIVE'],
        ['api', 'ACTIVE'],
      ],
    )
    assert.doesNotMatch(json.stdout, /PRIVATE KEY/)
  })

  await t.test('plan says when and who, doctor finds nothing', async () => {
    const [plan, doctor] = await Promise.all([ask('plan'), ask('doctor')])
    assert.deepEqual([plan.code, doctor.code], [0, 0], doctor.stdout)
    assert.match(plan.stdout, /^web {2}renew in \d+m/)
    assert.match(plan.stdout, /\n {2}tell {4}run "sh -c .* \(\/.*\/sh\)\n/)
    assert.match(doctor.stdout, /\nnothing found that would fail\n$/)
  })

  await t.test('rotate --wait ends when the target was told of the new certificate', async () => {
    const { code, stdout, stderr } = await ask('rotate', 'web', '--wait', '--reason', 'a test')
    assert.equal(code, 0, stderr)
    const serial = /^✓ web {2}rotated, serial (\w+)\n$/.exec(stdout)?.[1] ?? assert.fail(stdout)
    assert.equal(readFileSync(join(folder, 'told'), 'utf8').trim().split('\n').at(-1), serial)
    const unknown = await ask('rotate', 'wbe', '--wait')
    assert.deepEqual(
      [unknown.code, unknown.stderr.split('\n')[0]],
      [64, 'certferry: no certificate, secret or trust named wbe; there are: web, api'],
    )
  })

  await t.test('P3 SIGUSR1 does not open the inspector', async () => {
    sidecar.send('SIGUSR1')
    await sidecar.status()
    assert.doesNotMatch(sidecar.stderr(), /Debugger listening/)
  })

  await t.test('G4 SIGHUP applies a changed config; the other certificate stays', async () => {
    const before = await sidecar.status()
    write(text.replace('commonName: web.example', 'commonName: web.example, altNames: [www.example]'))
    sidecar.send('SIGHUP')
    const web = await sidecar.certificate('web', 'has the new name', ({ names }) => names.includes('www.example'))
    assert.notEqual(web.serial, before.certificates[0]?.serial)
    assert.equal((await sidecar.status()).certificates[1]?.serial, before.certificates[1]?.serial)
  })

  await t.test('G4 a broken config is told and changes nothing, and status still works with it', async () => {
    write(`${text}x: 1\n`)
    sidecar.send('SIGHUP')
    await until('the config was rejected', async () => !(await sidecar.status()).config.lastReloadOk)
    const { code, stdout } = await ask('status')
    assert.equal(code, 0)
    assert.match(stdout, /config \S+c\.yaml was rejected, the one loaded .* ago stays:.*x: unknown key/s)
    assert.match(stdout, /\nweb +ACTIVE /)
    write(text)
  })

  await t.test('SIGTERM ends it with 0 in less than 5 s, and nothing is left', async () => {
    const { code, tookMs } = await sidecar.stop()
    assert.equal(code, 0, sidecar.stderr())
    assert.ok(tookMs < 5_000, `${tookMs} ms`)
    assert.deepEqual(readdirSync(folder).sort(), ['api', 'audit.log', 'c.yaml', 'ca', 'told', 'web'])
  })

  await t.test('audit verify follows the chain, and names the line that was changed', async () => {
    const whole = await certferry(['audit', 'verify', audit])
    assert.deepEqual([whole.code, whole.stderr], [0, ''])
    assert.match(whole.stdout, /lines, the chain is whole\n {2}head [0-9a-f]{64}\n$/)
    const lines = readFileSync(audit, 'utf8').split('\n')
    writeFileSync(audit, lines.with(2, lines[2]?.replace('"web"', '"wep"').replace('"api"', '"apj"') ?? '').join('\n'))
    const changed = await certferry(['audit', 'verify', audit])
    assert.equal(changed.code, 69)
    assert.match(changed.stderr, /^certferry: .*audit\.log:3: this line was changed\n/)
  })
})

test('after a kill -9 the stale socket is replaced, and nothing is issued', async () => {
  const { socket, start } = project('killed', (folder) => [certificate(folder, 'web')])
  const serials: (string | null)[] = []
  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    await using sidecar = start()
    serials.push((await sidecar.certificate('web', 'is ready', ({ phase }) => phase === 'ACTIVE')).serial)
    await sidecar.stop(signal)
    assert.equal(existsSync(socket), signal === 'SIGKILL')
  }
  assert.ok(serials[0])
  assert.equal(serials[1], serials[0])
})

test('a second SIGTERM ends it at once', async () => {
  const { folder, start } = project('stubborn', (folder) => [
    certificate(
      folder,
      'web',
      `    reload: [{ kind: exec, command: [sh, -c, "trap '' TERM; echo $$ > ${folder}/told; sleep 20"] }]\n`,
    ),
  ])
  await using sidecar = start()
  const told = await until('the target is being told', () => readIfThere(join(folder, 'told')))
  sidecar.send('SIGTERM')
  // Two signals at once are one: a pending signal is not queued (signal(7)).
  await until('it stops', () => sidecar.log('sidecar.stopped').length > 0)
  const { code, tookMs } = await sidecar.stop('SIGTERM')
  assert.equal(code, 143)
  assert.ok(tookMs < 1_000, `${tookMs} ms`)
  process.kill(-Number(told), 'SIGKILL')
})

test('N3 an admin address in use ends the start with what to do', async () => {
  await using taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  const address = taken.address()
  const port = typeof address === 'object' && address ? address.port : 0
  const { file, text, write } = project('taken', (folder) => [certificate(folder, 'web')])
  write(text.replace('127.0.0.1:0', `127.0.0.1:${port}`))
  const { code, stderr } = await certferry(['run', '-c', file])
  assert.equal(code, 78)
  assert.match(
    stderr,
    new RegExp(`^certferry: .*127\\.0\\.0\\.1:${port}.*\\n {2}If it is another certferry .* change admin\\.listen`),
  )
})

test('R2, R3 pid files that name no target signal nobody, and status says why', async () => {
  const bystander = spawn('sleep', ['60'], { stdio: 'ignore' })
  const gone = once(bystander, 'exit')
  const pids = { zero: '0', all: '-1', itself: 'later', other: String(bystander.pid), text: 'nginx' }
  const { folder, file, start } = project('pids', (folder) =>
    Object.keys(pids).map((name) =>
      certificate(
        folder,
        name,
        `    reload: [{ kind: signal, pidFile: ${folder}/${name}.pid, process: nginx, signal: SIGTERM }]\n    startupGrace: 1s\n`,
      ),
    ),
  )
  for (const [name, pid] of Object.entries(pids)) writeFileSync(join(folder, `${name}.pid`), pid)
  await using sidecar = start()
  writeFileSync(join(folder, 'itself.pid'), String(sidecar.pid))
  const reasons = {
    zero: /holds "0", which is no process id; nothing was signalled/,
    all: /holds "-1", which is no process id; nothing was signalled/,
    itself: /which is certferry itself/,
    other: /which is "sleep", not "nginx"; nothing was signalled/,
    text: /holds "nginx", which is no process id/,
  }
  for (const [name, reason] of Object.entries(reasons))
    await sidecar.certificate(name, 'says why', ({ lastError }) => reason.test(lastError?.message ?? ''))
  const [status, doctor] = await Promise.all([certferry(['status', '-c', file]), certferry(['doctor', '-c', file])])
  for (const [name, reason] of Object.entries(reasons)) {
    assert.match(status.stdout.replace(/\n +/g, ' '), reason)
    if (name !== 'itself') assert.match(doctor.stdout, reason)
  }
  assert.equal(doctor.code, 69)
  assert.equal(bystander.exitCode ?? bystander.signalCode, null, 'the bystander lives')
  assert.equal((await sidecar.stop()).code, 0)
  bystander.kill('SIGKILL')
  await gone
})

test('the demo rotates under load without a failed handshake, and leaves nothing behind', async () => {
  const folder = join(root, 'tmp')
  mkdirSync(folder)
  const { code, stdout, stderr } = await certferry(['demo', '--seconds', '12', '--ttl', '15s'], {
    env: { TMPDIR: folder },
  })
  assert.equal(code, 0, stderr)
  const [, rotations, made] =
    /\nrotations (\d+), handshakes (\d+), failed 0, in 12s\n$/.exec(stdout) ?? assert.fail(stdout)
  assert.ok(Number(rotations) >= 1 && Number(made) > 10, stdout)
  assert.deepEqual(readdirSync(folder), [])
})

function readIfThere(path: string): string | undefined {
  const text = existsSync(path) ? readFileSync(path, 'utf8').trim() : ''
  return text === '' ? undefined : text
}
