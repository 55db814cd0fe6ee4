import assert from 'node:assert/strict'
import { mkdir, writeFile } from 'node:fs/promises'
import { createServer as createTcpServer } from 'node:net'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { after, test } from 'node:test'
import { createServer } from 'node:tls'
import { type CheckOptions, check } from '../../src/commands/check.ts'
import { temporaryFolder } from '../reloaders/support.ts'
import { createTestCa, type Issued, type IssueRequest } from '../support/ca.ts'
import { contextOf, listening, tlsServer } from '../verifiers/support.ts'

const DAY = 86_400_000
/** A minute more, so that "30d" is what is printed. */
const inDays = (days: number) => new Date(Date.now() + days * DAY + 60_000)

const ca = await createTestCa({ commonName: 'Corp Root' })
const issue = (days: number, request: IssueRequest = {}) =>
  ca.issue({
    commonName: 'a.test',
    altNames: ['a.test', '127.0.0.1'],
    withIntermediate: true,
    notAfter: inDays(days),
    ...request,
  })
const folder = await temporaryFolder()
after(() => folder[Symbol.asyncDispose]())
const caFile = await place('ca.crt', ca.rootPem)

async function place(name: string, content: string | Buffer) {
  const path = join(folder.path, name)
  await writeFile(path, content)
  return path
}

/** Runs the command; the roots are those of the test CA unless told otherwise. */
async function run(
  targets: readonly string[],
  options: Partial<CheckOptions> = {},
  signal = new AbortController().signal,
) {
  const stdout = new PassThrough()
  const exitCode = await check(targets, { warn: 30 * DAY, critical: 7 * DAY, caFile, ...options }, { stdout, signal })
  const text = String(stdout.read())
  return { exitCode, text, first: text.split('\n')[0] }
}

/** A TLS server that needs no name to be asked for. */
const serve = ({ keyPem, certificatePem, chainPems }: Issued) =>
  listening(
    createServer({ key: keyPem, cert: certificatePem + chainPems[0] }, (socket) =>
      socket.on('error', () => {}).resume(),
    ),
  )

test('one line says that all is well, then a row per target, the soonest first', async () => {
  const [near, far] = await Promise.all([issue(41), issue(300, { altNames: ['b.test'] })])
  await using server = await serve(near)
  const file = await place('far.crt', far.certificatePem + far.chainPems[0])
  const { exitCode, text } = await run([caFile, file, `127.0.0.1:${server.port}`])
  assert.equal(exitCode, 0, text)
  assert.match(
    text,
    new RegExp(`^OK - 3 certificates, next expires in 41d: 127.0.0.1:${server.port}\n\nSTATE +TARGET +EXPIRES IN`),
  )
  const rows = text.trim().split('\n').slice(3)
  assert.deepEqual(
    rows.map((row) => row.split(/ {2,}/).slice(0, 2)),
    [
      ['OK', `127.0.0.1:${server.port}`],
      ['OK', file],
      ['OK', caFile],
    ],
  )
  assert.match(rows[0] ?? '', / {2}41d +\d{4}-\d\d-\d\d \d\d:\d\d {2}a\.test 127\.0\.0\.1$/)
})

const EXPIRIES = [
  { days: 31, exitCode: 0, first: /^OK - 1 certificate, next expires in 31d: / },
  { days: 29, exitCode: 1, first: /^WARNING - .*: expires in 29d$/ },
  { days: 6, exitCode: 2, first: /^CRITICAL - .*: expires in 6d$/ },
  { days: -3, exitCode: 2, first: /^CRITICAL - .*: expired 2d 23h ago$/ },
]
for (const { days, exitCode, first } of EXPIRIES) {
  test(`a certificate with ${days} days left gives exit code ${exitCode}`, async () => {
    const { certificatePem, chainPems } = await issue(days, { notBefore: new Date(Date.now() - 10 * DAY) })
    const result = await run([await place(`${days}.crt`, certificatePem + chainPems[0])])
    assert.match(result.first ?? '', first)
    assert.equal(result.exitCode, exitCode)
  })
}

test('the thresholds are the ones given', async () => {
  const { certificatePem, chainPems } = await issue(6)
  const file = await place('threshold.crt', certificatePem + chainPems[0])
  assert.equal((await run([file], { warn: 5 * DAY, critical: DAY })).exitCode, 0)
  assert.equal((await run([file], { warn: 7 * DAY, critical: DAY })).exitCode, 1)
})

test('tells what is wrong with an endpoint', async () => {
  const [good, later, nameless] = await Promise.all([
    issue(90),
    issue(90, { notBefore: inDays(2) }),
    issue(90, { altNames: [] }),
  ])
  const judge = async (choose: () => ReturnType<typeof contextOf>, options: Partial<CheckOptions>) => {
    await using server = await tlsServer(choose)
    const { exitCode, text } = await run([`127.0.0.1:${server.port}`], { serverName: 'a.test', ...options })
    assert.equal(exitCode, 2, text)
    return text
  }
  assert.match(
    await judge(() => contextOf(good, { alone: true }), {}),
    /the chain is incomplete: "CN=Corp +Intermediate", which issued it, is neither included nor a trusted root/,
  )
  assert.match(
    await judge(() => contextOf(good), { caFile: undefined }),
    /the chain is incomplete: "CN=Corp Root", which issued "CN=Corp +Intermediate", is neither/,
  )
  assert.match(
    await judge(() => contextOf(good), { serverName: 'b.test' }),
    /is not for b\.test, but for a\.test, 127\.0\.0\.1/,
  )
  assert.match(await judge(() => contextOf(nameless), {}), /is not for a\.test, but for no host at all/)
  assert.match(await judge(() => contextOf(later), {}), /becomes valid only in 2d/)
})

test('an endpoint that does not answer is critical, and does not hide the others', async () => {
  const good = await issue(90)
  await using server = await serve(good)
  const gone = await listening(createTcpServer())
  await gone[Symbol.asyncDispose]()
  const { exitCode, text } = await run([`127.0.0.1:${server.port}`, `127.0.0.1:${gone.port}`], {})
  assert.equal(exitCode, 2)
  assert.match(text, new RegExp(`^CRITICAL - 127.0.0.1:${gone.port}: connection refused\n`))
  assert.match(
    text,
    new RegExp(`\nCRITICAL +127.0.0.1:${gone.port}\n +└ connection refused\nOK +127.0.0.1:${server.port} `),
  )
})

test('without a name to ask for, an IP address is asked for none and must be in the certificate', async () => {
  const good = await issue(90)
  await using server = await serve(good)
  assert.equal((await run([`127.0.0.1:${server.port}`])).exitCode, 0)
  const url = await run([`https://localhost:${server.port}/path`])
  assert.match(
    url.first ?? '',
    new RegExp(`^CRITICAL - localhost:${server.port}: is not for localhost, but for a.test, 127.0.0.1$`),
  )
})

test('tells what is wrong with a file', async () => {
  const [good, other] = await Promise.all([issue(90), issue(90)])
  const { certificatePem: leaf, keyPem, bundle } = good
  const intermediate = good.chainPems[0] ?? ''
  const files: [string, string | Buffer, number, RegExp][] = [
    ['combined.pem', leaf + intermediate + keyPem, 0, /^OK/],
    [
      'wrong-key.pem',
      leaf + intermediate + other.keyPem,
      2,
      /: the private key in the file belongs to another certificate$/,
    ],
    [
      'bad-key.pem',
      `${leaf}${intermediate}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n`,
      2,
      /: the private key in the file does not parse$/,
    ],
    ['order.pem', intermediate + leaf, 2, /: the leaf is not the first certificate in the file/],
    ['leaf.der', bundle.leaf.raw, 2, /: the chain is incomplete: /],
    ['key.pem', keyPem, 2, /: holds no certificate$/],
    ['empty.crt', '', 2, /: holds no certificate that parses$/],
    ['torn.crt', leaf.slice(0, 300), 2, /: holds no certificate$/],
    [
      'garbage.crt',
      '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
      2,
      /: holds no certificate that parses$/,
    ],
  ]
  for (const [name, content, exitCode, first] of files) {
    const result = await run([await place(name, content)])
    assert.match(result.first ?? '', first, name)
    assert.equal(result.exitCode, exitCode, name)
    assert.doesNotMatch(result.text, /PRIVATE KEY-----|AAAA/)
  }
})

test('an issuer that expires before the leaf counts', async () => {
  const { certificatePem, chainPems, bundle } = await issue(4_000)
  const file = await place('outlives.crt', certificatePem + chainPems[0])
  const { exitCode, text } = await run([file], { warn: 3_700 * DAY })
  assert.equal(exitCode, 1, text)
  const end = bundle.intermediates[0]?.validToDate.toISOString().slice(0, 10)
  assert.match(
    text,
    new RegExp(`^WARNING - .*: its issuer "CN=Corp +Intermediate" expires in 36\\d\\dd.*\n[^]* ${end} `),
  )
})

test('a file of CA certificates is judged by the one that ends first', async () => {
  const other = await createTestCa({ commonName: 'Other Root' })
  const file = await place('bundle.crt', ca.rootPem + other.rootPem)
  const { exitCode, text } = await run([file], { critical: 3_700 * DAY })
  assert.equal(exitCode, 2)
  assert.match(text, /└ CA "CN=Corp Root" expires in 36\d\dd[\s\S]*└ CA "CN=Other Root" expires in 36\d\dd/)
  assert.match(text, / Corp Root\n/)
  assert.equal((await run([file])).exitCode, 0)
})

test('what cannot be judged is unknown, unless something else is critical', async () => {
  await mkdir(join(folder.path, 'dir'))
  const missing = join(folder.path, 'missing.crt')
  const unknown = await run([join(folder.path, 'dir'), 'host:0'])
  assert.equal(unknown.exitCode, 3)
  assert.match(unknown.text, /^UNKNOWN - .*\/dir: is no file \(and 1 more of 2 certificates\)\n/)
  assert.match(unknown.text, /UNKNOWN +host:0\n +└ is neither a file nor host:port/)
  const both = await run([join(folder.path, 'dir'), missing])
  assert.equal(both.exitCode, 2)
  assert.match(both.first ?? '', /^CRITICAL - .*missing\.crt: does not exist \(and 1 more/)
  const noRoots = await run([caFile], { caFile: missing })
  assert.equal(noRoots.exitCode, 3)
  assert.match(noRoots.text, /^UNKNOWN - --ca-file .*missing\.crt cannot be used: ENOENT\n$/)
})

test('prints the same for machines', async () => {
  const good = await issue(20)
  const file = await place('json.crt', good.certificatePem + good.chainPems[0])
  const { exitCode, text } = await run([file], { json: true })
  assert.equal(exitCode, 1)
  const { leaf, fingerprint, serial } = good.bundle
  assert.deepEqual(JSON.parse(text), {
    state: 'WARNING',
    exitCode: 1,
    summary: `${file}: expires in 20d`,
    targets: [
      {
        target: file,
        kind: 'file',
        state: 'WARNING',
        problems: ['expires in 20d'],
        names: ['a.test', '127.0.0.1'],
        issuer: leaf.issuer,
        serial,
        fingerprint,
        notBefore: leaf.validFromDate.toISOString(),
        notAfter: leaf.validToDate.toISOString(),
        certificates: 2,
      },
    ],
  })
})

test('stops when told to', async () => {
  await using mute = await listening(createTcpServer((socket) => socket.on('error', () => {}).resume()))
  const stop = new AbortController()
  const checking = run([`127.0.0.1:${mute.port}`], {}, stop.signal)
  setImmediate(() => stop.abort(new Error('stopping')))
  await assert.rejects(checking, /stopping/)
})
