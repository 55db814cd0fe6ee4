import assert from 'node:assert/strict'
import { PassThrough, Writable } from 'node:stream'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { Secret } from '../../src/core/secret.ts'
import { SidecarError } from '../../src/errors.ts'
import type { EventMap } from '../../src/observe/events.ts'
import { createLog, type LogOptions } from '../../src/observe/log.ts'

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5, 6)
const CANARY = 'hvs.CAESIcanarycanarycanary'

const failed: EventMap['rotation.failed'] = {
  certificate: 'web',
  stage: 'fetch',
  code: 'VAULT_UNREACHABLE',
  message: 'cannot connect to https://vault:8200 (ECONNREFUSED)',
  attempt: 3,
  nextAt: NOW + 5000,
  hint: 'Check vault.address.',
}

test('a failed rotation is one JSON line with constant text, the reason, the attempt and the time of the next', () => {
  const { log, lines } = capture({ format: 'json' })
  log.observe('rotation.failed', failed)
  assert.deepEqual(lines().map(parse), [
    {
      level: 'warn',
      time: '2026-01-02T03:04:05.006Z',
      event: 'rotation.failed',
      certificate: 'web',
      stage: 'fetch',
      reason: 'vault_unreachable',
      detail: 'cannot connect to https://vault:8200 (ECONNREFUSED)',
      attempt: 3,
      next: '2026-01-02T03:04:10.006Z',
      hint: 'Check vault.address.',
      msg: 'rotation failed',
    },
  ])
})

test('instants are ISO times, durations are rounded, undefined fields are left out', () => {
  const { log, lines } = capture({ level: 'debug' })
  log.observe('rotation.finished', {
    certificate: 'web',
    serial: '3f',
    notAfter: NOW,
    renewAt: 1e17,
    verified: true,
    issued: true,
    durationMs: 812.123456,
  })
  log.observe('vault.token', { expiresAt: undefined, renewable: false, how: 'login' })
  log.observe('certificate.staple-ended', { certificate: 'web', serial: '3f', endedAt: NOW })
  const [finished, token, ended] = lines().map(parse)
  assert.equal(ended?.endedAt, '2026-01-02T03:04:05.006Z')
  assert.equal(finished?.notAfter, '2026-01-02T03:04:05.006Z')
  assert.equal(finished?.renewAt, '100000000000000000')
  assert.equal(finished?.durationMs, 812.1)
  assert.equal(token && 'expiresAt' in token, false)
})

test('a level keeps the lesser events out', () => {
  const { log, lines } = capture({ level: 'warn' })
  log.observe('certificate.removed', { certificate: 'web' })
  log.observe('clock.stepped', { byMs: 7_200_000 })
  assert.deepEqual(
    lines().map((line) => parse(line).event),
    ['clock.stepped'],
  )
})

test('an expired certificate is an error, any other change of phase is news', () => {
  const { log, lines } = capture({})
  log.observe('certificate.phase', { certificate: 'web', from: 'ACTIVE', to: 'DEGRADED', reason: 'vault_sealed' })
  log.observe('certificate.phase', { certificate: 'web', from: 'DEGRADED', to: 'EXPIRED', reason: 'vault_sealed' })
  assert.deepEqual(
    lines().map((line) => parse(line).level),
    ['info', 'error'],
  )
})

for (const format of ['json', 'pretty'] as const) {
  test(`no secret is printed as ${format}, wherever it hides in an event`, () => {
    const { log, lines } = capture({ format })
    const cause = Object.assign(new Error(`POST with ${CANARY}`), { config: { headers: { 'x-vault-token': CANARY } } })
    const pem = `-----BEGIN PRIVATE KEY-----\n${CANARY}\n-----END PRIVATE KEY-----`
    log.observe('internal.error', {
      code: 'BUG',
      message: `token ${CANARY}`,
      error: new SidecarError('BUG', pem, { cause }),
    })
    log.observe('internal.error', {
      code: 'BUG',
      message: 'nested',
      error: {
        secret: new Secret('canary-plain'),
        deep: { list: [new Secret('canary-plain')], secret_id: 'canary-plain', key: Buffer.from('canary-plain') },
      },
    })
    const text = lines().join('')
    assert.match(text, /\[secret\]/)
    assert.doesNotMatch(text, /canary/)
    assert.doesNotMatch(text, /PRIVATE KEY/)
  })
}

test('an error is logged by name, message, code, stack and cause, and nothing else it carries', () => {
  const { log, lines } = capture({})
  const cause = Object.assign(new Error('refused'), { code: 'ECONNREFUSED', request: { body: 'x' } })
  log.observe('internal.error', { code: 'BUG', message: 'm', error: new SidecarError('VAULT_TLS', 'outer', { cause }) })
  const { error } = parse(lines()[0])
  assert.ok(error && typeof error === 'object' && 'cause' in error && error.cause && typeof error.cause === 'object')
  assert.deepEqual(Object.keys(error), ['name', 'message', 'code', 'stack', 'cause'])
  assert.deepEqual(Object.keys(error.cause), ['name', 'message', 'code', 'stack'])
})

test('huge payloads are cut to a line of bounded length', () => {
  const { log, lines } = capture({})
  log.observe('vault.warning', { message: 'x'.repeat(100_000) })
  log.observe('config.loaded', { changed: Array.from({ length: 5000 }, (_, n) => `cert-${n}`), added: [], removed: [] })
  for (const line of lines()) assert.ok(line.length < 5000, `${line.length} characters`)
})

test('pretty lines read as a sentence, with the hint beneath', () => {
  const { log, lines } = capture({ format: 'pretty' })
  log.observe('rotation.failed', failed)
  assert.equal(
    stripped({ lines }),
    [
      '03:04:05.006 WARN  rotation failed: cannot connect to https://vault:8200 (ECONNREFUSED) certificate=web stage=fetch reason=vault_unreachable attempt=3 next=2026-01-02T03:04:10.006Z',
      '             Check vault.address.',
      '',
    ].join('\n'),
  )
})

test('a pretty line cannot be forged, nor the terminal moved, by text from outside', () => {
  const { log, lines } = capture({ format: 'pretty' })
  log.observe('vault.warning', { message: 'a\n00:00:00.000 INFO  certferry started\u001b[2J\u009b' })
  const text = stripped({ lines })
  assert.equal(text.split('\n').length, 2)
  assert.match(text, /a\\x0a00:00:00\.000 INFO {2}certferry started\\x1b\[2J\\x9b/)
})

test('auto is pretty on a terminal and JSON elsewhere', () => {
  const onTerminal = capture({ format: 'auto' }, { isTTY: true })
  const elsewhere = capture({ format: 'auto' })
  for (const { log } of [onTerminal, elsewhere]) log.observe('certificate.removed', { certificate: 'web' })
  assert.match(
    stripped(onTerminal),
    /^03:04:05\.006 INFO {2}certificate no longer managed, its files stay certificate=web\n$/,
  )
  assert.equal(parse(elsewhere.lines()[0]).certificate, 'web')
})

test('a reader that stops reading costs lines, which are counted and told once it reads again', async () => {
  const held: (() => void)[] = []
  const written: string[] = []
  const destination = new Writable({
    decodeStrings: false,
    write(chunk, _encoding, done) {
      written.push(String(chunk))
      held.push(done)
    },
  })
  const log = createLog({ level: 'info', format: 'json' }, { now: () => NOW, destination })
  const line = { message: 'x'.repeat(1900) }
  for (let count = 0; count < 2000; count += 1) log.observe('vault.warning', line)
  assert.ok(destination.writableLength <= 1024 * 1024)
  assert.ok(log.dropped > 1000, `${log.dropped} dropped`)
  while (destination.writableLength > 0) {
    held.shift()?.()
    await new Promise(setImmediate)
  }
  const lost = log.dropped
  log.observe('certificate.removed', { certificate: 'web' })
  while (held.length > 0) {
    held.shift()?.()
    await new Promise(setImmediate)
  }
  assert.deepEqual(
    written.slice(-2).map((text) => [parse(text).event, parse(text).lines]),
    [
      ['certificate.removed', undefined],
      ['log.dropped', lost],
    ],
  )
  await log[Symbol.asyncDispose]()
})

test('a reader that has gone is no failure', async () => {
  const destination = new PassThrough()
  const log = createLog({ level: 'info', format: 'json' }, { now: () => NOW, destination })
  destination.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }))
  await new Promise(setImmediate)
  log.observe('certificate.removed', { certificate: 'web' })
  assert.equal(log.dropped, 2)
  await log[Symbol.asyncDispose]()
})

function capture(options: Partial<LogOptions>, stream: { isTTY?: boolean } = {}) {
  const written: string[] = []
  const destination = Object.assign(
    new Writable({
      decodeStrings: false,
      write(chunk, _encoding, done) {
        written.push(String(chunk))
        done()
      },
    }),
    stream,
  )
  const log = createLog({ level: 'info', format: 'json', ...options }, { now: () => NOW, destination })
  return { log, lines: () => written }
}

/** Without colours, which FORCE_COLOR may ask for. */
const stripped = ({ lines }: { lines: () => string[] }) => stripVTControlCharacters(lines().join(''))

function parse(line: string | undefined): Record<string, unknown> {
  assert.ok(line, 'a line was written')
  assert.match(line, /\}\n$/)
  return JSON.parse(line)
}
