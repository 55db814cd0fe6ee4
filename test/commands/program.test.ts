import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { after, describe, it } from 'node:test'
import { CommanderError } from 'commander'
import { toSidecarError } from '../../src/errors.ts'
import { createProgram } from '../../src/program.ts'
import { createTestCa } from '../support/ca.ts'

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
      /\n {2}\? reload command "no-such-program": no program .*\n {4}→ To be expected before the first set/,
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

describe('plan and doctor of trust and revocation', async () => {
  const at = (name: string) => join(folder, 'trust', name)
  mkdirSync(at('.'))
  const ca = await createTestCa()
  const { certificatePem, keyPem, bundle } = await ca.issue()
  writeFileSync(at('ca.pem'), ca.rootPem)
  writeFileSync(at('web.pem'), certificatePem + keyPem, { mode: 0o600 })
  writeFileSync(at('web-ca.pem'), ca.rootPem)
  let list = await ca.crl()
  const server = createServer((_, response) => response.end(list))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  after(() => {
    server.closeAllConnections()
    server.close()
  })
  const place = server.address()
  const crlUrl = `http://127.0.0.1:${typeof place === 'object' ? place?.port : ''}/crl`
  const file = at('config.yaml')
  const configure = (trust: object = {}, more: object = {}) =>
    writeFileSync(
      file,
      JSON.stringify({
        trust: [
          {
            name: 'peers',
            anchors: [{ kind: 'file', file: at('ca.pem') }],
            crls: [{ kind: 'http', url: crlUrl }],
            spread: '10m',
            outputs: [{ kind: 'crl', directory: at('peers') }],
            ...trust,
          },
        ],
        certificates: [
          {
            name: 'web',
            source: { kind: 'file', certFile: at('web.pem'), caFile: at('web-ca.pem'), watch: 'off' },
            outputs: [{ kind: 'pem', directory: at('web') }],
            revocation: { check: ['crl'], crlUrl, every: '1h' },
            ...more,
          },
        ],
      }),
      { mode: 0o600 },
    )
  /** Each finding of the section of this name, and what is told beneath it. */
  const examine = async (name: string) => {
    const { stdout, exit } = await run('doctor', '-c', file)
    const section = new RegExp(`^${name}\\n((?: {2}.*\\n)*)`, 'm').exec(stdout)?.[1] ?? ''
    return { exit, text: section.replaceAll(folder, '').replaceAll(crlUrl, 'URL') }
  }

  it('plan says what is looked at, and what a certificate heeds besides', async () => {
    configure({}, { trust: 'peers' })
    const { stdout } = await run('plan', '-c', file)
    const [web, peers] = stdout.replaceAll(folder, '').replaceAll(crlUrl, 'URL').split('\n\n')
    assert.ok(
      web?.endsWith(`
  heed    trust "peers": a new CA has to be in force there for 10m
          revocation: crl asked every 1h, then rotate`),
      web,
    )
    assert.deepEqual(peers?.trimEnd().split('\n'), [
      'peers  renew now: missing',
      '  on disk nothing',
      '  ask     trust peers: file /trust/ca.pem, http URL',
      '  write   /trust/peers (generation): crl.pem',
      '  tell    nobody',
      '  verify  nobody: the status will say verified: none',
    ])
    const [plan] = JSON.parse((await run('plan', '--json', '-c', file)).stdout)
    assert.equal(plan.heed.length, 2)
  })

  it('doctor finds a trust fit for use, or says what its lists lack', async () => {
    configure()
    const good = await examine('peers')
    assert.match(
      good.text,
      /^ {2}✓ file \/trust\/ca\.pem: 1 found\n {2}✓ http URL: 1 found\n {2}✓ 1 CA, 1 CRL: fit to be trusted until \d{4}-.*\n/,
    )
    assert.equal(good.exit, 0)
    const other = await createTestCa({ commonName: 'Other' })
    writeFileSync(at('both.pem'), ca.rootPem + other.rootPem)
    configure({ anchors: [{ kind: 'file', file: at('both.pem') }] })
    const lacking = await examine('peers')
    assert.match(
      lacking.text,
      / {2}\? there is no revocation list of "CN=Other", and there are others\n {4}→ nginx refuses/,
    )
    assert.equal(lacking.exit, 0)
    configure()
    list = await ca.crl({ nextUpdate: new Date(Date.now() - 1000) })
    const ended = await examine('peers')
    assert.match(
      ended.text,
      / {2}✗ the revocation list of "CN=Test Root" \(http URL\) has ended at .*\n {4}→ Check trust\.crls/,
    )
    assert.equal(ended.exit, 69)
    configure({ anchors: [{ kind: 'file', file: at('none.pem') }] })
    assert.match(
      (await examine('peers')).text,
      /^ {2}✗ \/trust\/none\.pem cannot be read \(ENOENT\)\n {4}→ Check trust\.anchors/,
    )
  })

  it('doctor finds that an output lacks its password, and that a target does not trust what is on disk', async () => {
    list = await ca.crl()
    const address = '127.0.0.1:1'
    configure({
      crls: [],
      outputs: [{ kind: 'pkcs12', directory: at('peers'), passwordFile: at('none') }],
      verify: [{ kind: 'client-ca', address, serverName: 'web.example' }],
    })
    const before = await examine('peers')
    assert.match(before.text, / {2}✗ cannot read \/trust\/none \(ENOENT\)\n/)
    assert.match(before.text, / {2}\? client CAs of 127\.0\.0\.1:1 .*\n {4}→ To be expected before the first set/)
    configure()
    assert.equal((await run('once', '-c', file)).failed, undefined)
    configure({ verify: [{ kind: 'client-ca', address, serverName: 'web.example' }] })
    const after = await examine('peers')
    assert.match(after.text, / {2}✗ client CAs of 127\.0\.0\.1:1 .*ECONNREFUSED.*\n {4}→ Start the target/)
  })

  it('doctor and once --dry-run refuse what run would refuse: a file with a certificate that has ended', async () => {
    configure()
    const held = await run('once', '--dry-run', '-c', file)
    assert.match(held.stdout, /^✓ web {2}nothing to rehearse; .*holds certificate [\s\S]*^✓ peers {2}1 CA, 1 CRL: fit/m)
    assert.equal(held.exit, 0)
    const notAfter = new Date(Date.now() - 60_000)
    const ended = await ca.issue({ notBefore: new Date(Date.now() - 120_000), notAfter })
    writeFileSync(at('ended.pem'), ended.certificatePem + ended.keyPem, { mode: 0o600 })
    configure({}, { source: { kind: 'file', certFile: at('ended.pem'), caFile: at('web-ca.pem'), watch: 'off' } })
    const told = new RegExp(`✗ .*cannot be put into service: certificate ${ended.bundle.serial} expired at`)
    const { text, exit } = await examine('web')
    assert.match(text, told)
    assert.equal(exit, 69)
    const rehearsed = await run('once', '--dry-run', '-c', file)
    assert.match(rehearsed.stdout, told)
    assert.equal(rehearsed.exit, 69)
  })

  it('doctor asks whether the certificate on disk is revoked', async () => {
    configure()
    assert.equal((await run('once', '-c', file)).failed, undefined)
    // What somebody else renews is looked at, and has no time of its own.
    assert.match((await run('plan', '-c', file)).stdout, /^web {2}look in (?:5\ds|1m), at .*\n {2}on disk/m)
    const serial = bundle.serial
    assert.ok((await examine('web')).text.includes(`  ✓ certificate ${serial} is not revoked, says crl\n`))
    list = await ca.crl({ revoked: [bundle.leaf.serialNumber] })
    const revoked = await examine('web')
    assert.ok(
      revoked.text.includes(`  ✗ certificate ${serial} is revoked, says crl (superseded)\n    → certferry run`),
      revoked.text,
    )
    assert.equal(revoked.exit, 69)
    list = Buffer.from('none')
    const unsure = await examine('web')
    assert.match(unsure.text, / {2}\? the list at URL is no CRL\n {4}→ Check revocation\.check/)
  })
})
