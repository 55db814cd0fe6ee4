import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { after, describe, it } from 'node:test'
import { CommanderError } from 'commander'
import { toSidecarError } from '../../src/errors.ts'
import { createProgram } from '../../src/program.ts'

const folder = mkdtempSync(join(tmpdir(), 'certferry-program-'))
after(() => rmSync(folder, { recursive: true, force: true }))

function sink() {
  let text = ''
  const stream = new Writable({
    write(chunk, _encoding, done) {
      text += chunk
      done()
    },
  })
  return { stream, text: () => text }
}

/** Runs a command line in this process. `failed` is the code of the error that it ended with. */
async function run(...args: string[]) {
  const [stdout, stderr] = [sink(), sink()]
  const io = {
    stdout: stdout.stream,
    stderr: stderr.stream,
    env: {},
    self: [],
    signal: new AbortController().signal,
    onHangup: () => {},
    process,
    releaseSignals: () => process,
  }
  let exit = 0
  const program = createProgram(io, (code) => {
    exit = code
  })
  for (const command of [program, ...program.commands, ...program.commands.flatMap(({ commands }) => commands)])
    command.configureOutput({
      writeOut: (text) => stdout.stream.write(text),
      writeErr: (text) => stderr.stream.write(text),
    })
  const failed = await program.parseAsync(['node', 'certferry', ...args]).then(
    () => undefined,
    (error: unknown) => (error instanceof CommanderError ? error.code : toSidecarError(error).code),
  )
  return { exit, failed, stdout: stdout.text(), stderr: stderr.text() }
}

const certificate = (name: string, rest = '') => `  - name: ${name}
    source: { kind: dev-ca, directory: ${folder}/ca, commonName: ${name}.example, ttl: 1h }
    outputs: [{ kind: pem, directory: ${folder}/${name} }]
${rest}`

function config(name: string, ...certificates: string[]): string {
  const file = join(folder, name)
  writeFileSync(file, `certificates:\n${certificates.join('')}`, { mode: 0o600 })
  return file
}

describe('the help of', () => {
  const verbs = [
    'run',
    'once',
    'validate',
    'plan',
    'doctor',
    'status',
    'rotate',
    'wait',
    'check',
    'inject',
    'injector',
    'reload-helper',
    'exec',
    'migrate',
    'audit verify',
    'demo',
  ]
  for (const verb of verbs) {
    it(`${verb} says what it does, and gives an example that begins with it`, async () => {
      const { failed, stdout } = await run(...verb.split(' '), '--help')
      assert.equal(failed, 'commander.helpDisplayed')
      assert.match(
        stdout,
        new RegExp(`^Usage: certferry ${verb}.*\\n\\n\\w[\\s\\S]*\\nExamples?:\\n  certferry ${verb}\\b`),
      )
      for (const line of stdout.split('\n')) assert.ok(line.length <= 100, line)
    })
  }
  it('certferry lists exactly these verbs, and the exit codes', async () => {
    const { stdout } = await run('--help')
    const listed = [...(stdout.split('\nCommands:\n')[1]?.split('\n\n')[0] ?? '').matchAll(/^ {2}([\w-]+)/gm)]
    assert.deepEqual(listed.map(([, verb]) => verb).sort(), verbs.map((verb) => verb.split(' ')[0]).sort())
    assert.match(stdout, /Exit codes: 0 done · 64 usage · 69 .* · 70 defect · 78 config\n/)
  })
})

describe('validate', () => {
  it('names the certificates of a valid config', async () => {
    const file = config('valid.yaml', certificate('web'), certificate('api'))
    const { failed, stdout } = await run('validate', '-c', file)
    assert.equal(failed, undefined)
    assert.equal(stdout, `✓ ${file} is valid: 2 certificates (web, api)\n`)
  })
  it('also refuses what only shows when everything is put together', async () => {
    for (const rest of [
      `    check: { trustFile: ${folder}/none.pem }\n`,
      "    source: { kind: dev-ca, directory: /ca, altNames: [10.0.0.1] }\n    verify: [{ kind: tls, address: '127.0.0.1:1' }]\n",
    ]) {
      const text = certificate('web', rest)
      const file = config('parts.yaml', rest.includes('source') ? text.replace(/ {4}source.*\n/, '') : text)
      assert.equal((await run('validate', '-c', file)).failed, 'CONFIG_INVALID')
    }
  })
  it('refuses a form that the key which will be made has not', async () => {
    const text = certificate('web').replace('kind: pem,', 'kind: pem, keyFormat: pkcs1,')
    const { failed, stderr } = await run('validate', '-c', config('form.yaml', text))
    assert.equal(failed, 'CONFIG_INVALID', stderr)
    const rsa = `${text}    key: { algorithm: rsa-2048 }\n`
    assert.equal((await run('validate', '-c', config('form.yaml', rsa))).failed, undefined)
  })
  it('refuses defaults of the injector that are no annotation', async () => {
    const text = `${certificate('web')}injector: { certificate: web, image: c, defaults: { vault-rule: web } }\n`
    assert.equal((await run('validate', '-c', config('defaults.yaml', text))).failed, 'CONFIG_INVALID')
  })
  it('prints a JSON Schema', async () => {
    const { stdout } = await run('validate', '--print-schema')
    const { $schema, anyOf } = JSON.parse(stdout)
    assert.equal($schema, 'https://json-schema.org/draft/2020-12/schema')
    assert.deepEqual(anyOf, [{ required: ['certificates'] }, { required: ['secrets'] }, { required: ['trust'] }])
  })
})

describe('injector', () => {
  it('refuses a config without its section', async () => {
    assert.equal((await run('injector', '-c', config('none.yaml', certificate('web')))).failed, 'CONFIG_INVALID')
  })
})

describe('plan and doctor', () => {
  const file = config('idle.yaml', certificate('idle', `    reload: [{ kind: exec, command: [no-such-program] }]\n`))
  it('plan says what would be done, and does nothing', async () => {
    const { stdout } = await run('plan', '-c', file)
    assert.deepEqual(stdout.split('\n'), [
      'idle  renew now: missing',
      '  on disk nothing',
      `  ask     dev-ca ${folder}/ca`,
      `  write   ${folder}/idle (generation): ca.crt tls.key tls.crt`,
      '  tell    command "no-such-program": not now, reload command "no-such-program": no program no-such-program to execute',
      '  verify  nobody: the status will say verified: none',
      '',
    ])
    const [plan] = JSON.parse((await run('plan', '--json', '-c', file)).stdout)
    assert.partialDeepStrictEqual(plan, { name: 'idle', action: 'renew now', onDisk: null })
    assert.deepEqual([existsSync(join(folder, 'idle')), existsSync(join(folder, 'ca'))], [false, false])
  })
  it('doctor doubts a target before the first certificate, and fails it afterwards', async () => {
    const before = await run('doctor', '-c', file)
    assert.match(
      before.stdout,
      /\n {2}\? reload command "no-such-program": no program .*\n {4}→ To be expected before the first certificate/,
    )
    assert.deepEqual([before.failed, before.exit], [undefined, 0])
    await run('once', '-c', config('first.yaml', certificate('idle')))
    const after = await run('doctor', '-c', file)
    assert.match(
      after.stdout,
      /\n {2}✗ reload command "no-such-program": no program .*\n {4}→ Start the target[\s\S]*\n1 problem found\n$/,
    )
    assert.equal(after.exit, 69)
  })
})
