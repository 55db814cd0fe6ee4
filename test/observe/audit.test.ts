import assert from 'node:assert/strict'
import { appendFileSync, mkdirSync, readFileSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, test } from 'node:test'
import type { ErrorCode } from '../../src/errors.ts'
import { openAudit, verifyAudit } from '../../src/observe/audit.ts'
import type { EventName } from '../../src/observe/events.ts'

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5)
let directory = ''
let file = ''

describe('audit log', () => {
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'certferry-audit-'))
    file = join(directory, 'audit.log')
  })
  afterEach(() => rm(directory, { recursive: true }))

  test('issue, write, reload, verify, rollback and deny leave a line each; other events do not', () => {
    using audit = open()
    audit.observe('certificate.issued', { certificate: 'web', serial: '01', notAfter: NOW, forced: false })
    audit.observe('certificate.written', { certificate: 'web', serial: '01', directories: ['/tls'] })
    audit.observe('vault.request', { operation: 'sign', status: '200', durationMs: 3 })
    audit.observe('reload.finished', {
      kind: 'signal',
      target: 'nginx',
      certificates: ['web'],
      ok: true,
      durationMs: 3,
    })
    audit.observe('certificate.served', { certificate: 'web', serial: '01', notAfter: NOW })
    audit.observe('rotation.rolled-back', { certificate: 'web', serial: '01', refused: '02' })
    audit.observe('control.request', { command: 'rotate', certificates: ['web'], reason: 'test', allowed: false })
    const lines = parsed()
    assert.deepEqual(
      lines.map(({ seq, event }) => [seq, event]),
      [
        [1, 'certificate.issued'],
        [2, 'certificate.written'],
        [3, 'reload.finished'],
        [4, 'certificate.served'],
        [5, 'rotation.rolled-back'],
        [6, 'control.request'],
      ],
    )
    assert.equal(lines[0]?.time, '2026-01-02T03:04:05.000Z')
    assert.equal(lines[1]?.prev, lines[0]?.hash)
  })

  test('the file is 0600 whatever the umask, and an existing one is made so', () => {
    const before = process.umask(0)
    open()[Symbol.dispose]()
    process.umask(before)
    assert.equal(statSync(file).mode & 0o777, 0o600)
    writeFileSync(join(directory, 'wide.log'), '', { mode: 0o644 })
    openAudit(join(directory, 'wide.log'), { now: () => NOW, emit: () => {} })[Symbol.dispose]()
    assert.equal(statSync(join(directory, 'wide.log')).mode & 0o777, 0o600)
  })

  test('the chain goes on over restarts and verifies', async () => {
    for (let run = 0; run < 3; run += 1) {
      using audit = open()
      write(audit, 3)
    }
    const summary = await verifyAudit(file)
    assert.deepEqual({ lines: summary.lines, torn: summary.torn }, { lines: 9, torn: false })
    assert.equal(summary.head, parsed().at(-1)?.hash)
  })

  test('no secret reaches the file', () => {
    using audit = open()
    const canary = 'hvs.CAESIcanarycanarycanary'
    const pem = `-----BEGIN EC PRIVATE KEY-----\n${canary}`
    audit.observe('config.rejected', { code: 'CONFIG_INVALID', message: `token ${canary}`, errors: [canary, pem] })
    const content = readFileSync(file, 'utf8')
    assert.match(content, /\[secret\]/)
    assert.doesNotMatch(content, /canary|PRIVATE KEY/)
  })

  test('an empty log verifies', async () => {
    open()[Symbol.dispose]()
    assert.equal((await verifyAudit(file)).lines, 0)
  })

  test('text beyond ASCII keeps its chain', async () => {
    using audit = open()
    audit.observe('rotation.recovered', { certificate: 'größe-\u2028-証明書', failures: 1 })
    write(audit, 1)
    assert.equal((await verifyAudit(file)).lines, 2)
  })

  const tamperings: readonly [claim: string, edit: (lines: string[]) => string[], brokenLine: number][] = [
    ['a changed field', (lines) => lines.with(2, (lines[2] ?? '').replace('cert-2', 'cert-X')), 3],
    ['a changed hash', (lines) => lines.with(2, (lines[2] ?? '').replace(/"hash":"./, '"hash":"x')), 3],
    ['a removed line', (lines) => lines.toSpliced(2, 1), 3],
    ['a removed first line', (lines) => lines.slice(1), 1],
    ['two lines swapped', (lines) => lines.with(2, lines[3] ?? '').with(3, lines[2] ?? ''), 3],
    ['a line written twice', (lines) => lines.toSpliced(3, 0, lines[2] ?? ''), 4],
    ['an inserted line', (lines) => lines.toSpliced(2, 0, '{"seq":3,"event":"forged"}'), 3],
    ['an empty line', (lines) => lines.toSpliced(2, 0, ''), 3],
    ['a changed last line', (lines) => lines.with(4, (lines[4] ?? '').replace('cert-4', 'cert-X')), 5],
    ['half a line in the middle', (lines) => lines.with(2, (lines[2] ?? '').slice(0, 40)), 3],
  ]
  for (const [claim, edit, brokenLine] of tamperings) {
    test(`verification names the line of ${claim}`, async () => {
      {
        using audit = open()
        write(audit, 5)
      }
      const lines = readFileSync(file, 'utf8').trimEnd().split('\n')
      writeFileSync(file, `${edit(lines).join('\n')}\n`)
      await assert.rejects(verifyAudit(file), (error) => isError(error, 'AUDIT_BROKEN', `${file}:${brokenLine}: `))
    })
  }

  test('a change is not papered over by the next start', async () => {
    {
      using audit = open()
      write(audit, 5)
    }
    writeFileSync(file, readFileSync(file, 'utf8').replace('cert-4', 'cert-X'))
    using audit = open()
    write(audit, 2)
    await assert.rejects(verifyAudit(file), (error) => isError(error, 'AUDIT_BROKEN', `${file}:5: `))
  })

  test('lines cut from the end while it is open are missed', async () => {
    using audit = open()
    write(audit, 5)
    const lines = readFileSync(file, 'utf8').split('\n')
    truncateSync(file, Buffer.byteLength(`${lines.slice(0, 3).join('\n')}\n`))
    write(audit, 1)
    await assert.rejects(verifyAudit(file), (error) => isError(error, 'AUDIT_BROKEN', `${file}:4: `))
  })

  test('wherever a crash cuts the last line, the next start owns up to it and the chain holds', async () => {
    {
      using audit = open()
      write(audit, 2)
    }
    const whole = readFileSync(file)
    const first = whole.indexOf('\n') + 1
    for (let size = 1; size < whole.length; size += size < 12 ? 1 : 17) {
      writeFileSync(file, whole.subarray(0, size))
      {
        using audit = open()
        write(audit, 1)
      }
      const summary = await verifyAudit(file)
      const events = readFileSync(file, 'utf8').match(/"event":"audit\.resumed"/g)?.length ?? 0
      const isWhole = size === first || size === first - 1
      assert.equal(events, isWhole ? 0 : 1, `cut after ${size} bytes`)
      assert.equal(summary.torn, false)
      assert.equal(summary.lines, (size < first - 1 ? 0 : 1) + events + 1)
    }
  })

  test('a last line without its newline is whole', async () => {
    {
      using audit = open()
      write(audit, 2)
    }
    truncateSync(file, statSync(file).size - 1)
    using audit = open()
    write(audit, 1)
    assert.equal((await verifyAudit(file)).lines, 3)
  })

  test('a crash in the line that owns up to a crash is owned up to as well', async () => {
    {
      using audit = open()
      write(audit, 2)
    }
    appendFileSync(file, '{"seq":3,"eve\n{"seq":3,"event":"audit.res')
    using audit = open()
    write(audit, 1)
    assert.equal((await verifyAudit(file)).lines, 4)
  })

  test('a torn end is no damage when nothing was written since', async () => {
    {
      using audit = open()
      write(audit, 2)
    }
    appendFileSync(file, '{"seq":3,"eve')
    const { lines, torn } = await verifyAudit(file)
    assert.deepEqual({ lines, torn }, { lines: 2, torn: true })
  })

  test('two that write in turn share one chain', async () => {
    using one = open()
    using two = open()
    for (let turn = 0; turn < 3; turn += 1) {
      write(one, 1)
      write(two, 2)
    }
    assert.equal((await verifyAudit(file)).lines, 9)
  })

  test('the end is found in a file far longer than the first look at it', async () => {
    const errors = Array.from({ length: 100 }, () => 'x'.repeat(1990))
    {
      using audit = open()
      audit.observe('config.rejected', { code: 'CONFIG_INVALID', message: 'm', errors })
    }
    assert.ok(statSync(file).size > 128 * 1024)
    using audit = open()
    write(audit, 1)
    assert.equal((await verifyAudit(file)).lines, 2)
  })

  test('a path that is no audit log is refused and left as it is', () => {
    const refusals: readonly [name: string, make: (path: string) => void, code: ErrorCode][] = [
      ['text', (path) => writeFileSync(path, 'root:x:0:0\n'), 'FOREIGN_OBJECT'],
      ['link', (path) => symlinkSync(file, path), 'FOREIGN_OBJECT'],
      ['directory', (path) => mkdirSync(path), 'VOLUME_UNAVAILABLE'],
      ['missing/audit.log', () => {}, 'VOLUME_UNAVAILABLE'],
    ]
    for (const [name, make, code] of refusals) {
      const path = join(directory, name)
      make(path)
      assert.throws(
        () => openAudit(path, { now: () => NOW, emit: () => {} }),
        (error) => isError(error, code, path),
      )
    }
    assert.equal(readFileSync(join(directory, 'text'), 'utf8'), 'root:x:0:0\n')
  })

  test('after closing nothing is written, and nothing thrown', () => {
    const audit = open()
    audit[Symbol.dispose]()
    audit[Symbol.dispose]()
    write(audit, 1)
    assert.equal(statSync(file).size, 0)
  })

  test('verifying a file that is not there says so', async () => {
    await assert.rejects(verifyAudit(file), (error) => isError(error, 'CONFIG_UNREADABLE', file))
  })
})

const open = (emit: (name: EventName) => void = () => assert.fail('no event expected')) =>
  openAudit(file, { now: () => NOW, emit })

let written = 0
function write(audit: ReturnType<typeof open>, count: number) {
  if (statSync(file).size === 0) written = 0
  for (let index = 0; index < count; index += 1) {
    audit.observe('certificate.removed', { certificate: `cert-${written}` })
    written += 1
  }
}

const parsed = (): Record<string, unknown>[] =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

function isError(error: unknown, code: ErrorCode, text: string): boolean {
  assert.ok(error instanceof Error && 'code' in error)
  assert.equal(error.code, code)
  assert.ok(error.message.includes(text), error.message)
  return true
}
