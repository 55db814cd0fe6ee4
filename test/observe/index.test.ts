import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { test } from 'node:test'
import type { EventName } from '../../src/observe/events.ts'
import { combine, createObservers } from '../../src/observe/index.ts'
import { active, NOW, sidecar } from './samples.ts'

test('every observer hears every event, in order', () => {
  const heard: string[] = []
  const emit = combine(
    (name) => void heard.push(`a ${name}`),
    (name) => void heard.push(`b ${name}`),
  )
  emit('certificate.removed', { certificate: 'web' })
  assert.deepEqual(heard, ['a certificate.removed', 'b certificate.removed'])
})

test('an observer that fails is reported to the others, and emit never throws', () => {
  const heard: EventName[] = []
  const fails = () => {
    throw new TypeError('broken')
  }
  const emit = combine(fails, (name) => void heard.push(name), fails)
  emit('certificate.removed', { certificate: 'web' })
  assert.deepEqual(heard, ['internal.error', 'certificate.removed', 'internal.error'])
})

test('log, metrics and audit log hear the same event', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-observers-'))
  const file = join(folder, 'audit.log')
  const lines: string[] = []
  const destination = new Writable({
    decodeStrings: false,
    write(chunk, _encoding, done) {
      lines.push(String(chunk))
      done()
    },
  })
  {
    await using observers = createObservers(
      { version: '0.1.0', log: { level: 'info', format: 'json' }, audit: { file } },
      { now: () => NOW, destination, snapshot: () => sidecar([active('web')]) },
    )
    observers.emit('certificate.issued', { certificate: 'web', serial: '01', notAfter: NOW, forced: false })
    assert.match(await (await observers.loadMetrics()).text(), /^certferry_issued_total\{certificate="web"\} 1$/m)
  }
  const written = await readFile(file, 'utf8')
  for (const line of [lines.join(''), written]) assert.match(line, /"event":"certificate\.issued","certificate":"web"/)
  await rm(folder, { recursive: true })
})

test('an audit log that cannot be opened is an error at the start', () => {
  assert.throws(
    () =>
      createObservers(
        { version: '0', log: { level: 'info', format: 'json' }, audit: { file: '/nonexistent/audit.log' } },
        { now: () => NOW, destination: new Writable(), snapshot: () => sidecar([]) },
      ),
    { code: 'VOLUME_UNAVAILABLE' },
  )
})
