import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '../src/clock.ts'
import { loadConfig } from '../src/config/config.ts'
import { namesOf } from '../src/core/names.ts'
import type { Emit } from '../src/observe/events.ts'
import type { Sidecar } from '../src/sidecar.ts'
import { counter, isDone, never, place, run, serialOf, told } from './support/sidecar.ts'
import { until } from './support/until.ts'

test('another config: untouched certificates run on, changed ones renew, removed ones stop and leave their files', async () => {
  const { folder, config } = place()
  await using running = run(config({ stays: '', changes: '', goes: '' }))
  const { sidecar, once, events } = running
  const [stays, changes, goes] = await Promise.all(
    ['stays', 'changes', 'goes'].map((name) => once(name, 'is done', isDone)),
  )
  assert.ok(stays && changes && goes)
  const [before, old] = [serialOf(stays), serialOf(changes)]

  const next = config({ stays: '', changes: 'key: { algorithm: ecdsa-p384 }', comes: '' })
  assert.deepEqual(await sidecar.configure(next), { added: ['comes'], changed: ['changes'], removed: ['goes'] })
  assert.equal(sidecar.config, next)
  assert.deepEqual(
    sidecar.certificates.map((loop) => loop.cert.name),
    ['stays', 'changes', 'comes'],
  )
  assert.equal(running.loop('stays'), stays, 'the same loop')
  assert.notEqual(running.loop('changes'), changes)
  await goes.ended

  await once('comes', 'is done', isDone)
  const renewed = await once('changes', 'has a new key', (loop) => isDone(loop) && serialOf(loop) !== old)
  assert.equal(renewed.report?.state.serving?.leaf.publicKey.asymmetricKeyDetails?.namedCurve, 'secp384r1')
  assert.equal(serialOf(stays), before)
  assert.ok(existsSync(join(folder, 'goes', 'tls.key')))
  assert.deepEqual(
    events.filter(({ name }) => name === 'certificate.removed').map(({ event }) => event),
    [{ certificate: 'goes' }],
  )
  assert.equal(
    events.filter(
      ({ name, event }) => name === 'certificate.issued' && 'certificate' in event && event.certificate === 'stays',
    ).length,
    1,
  )
})

test('a name added to a certificate is a reason to renew it, and nothing else is told to', async () => {
  const { folder, config } = place()
  await using running = run(config({ web: counter(folder) }))
  const { sidecar, once } = running
  const old = serialOf(await once('web', 'is done', isDone))
  const next = config({ web: counter(folder) })
  const file = readFileSync(next.file, 'utf8').replace(
    'commonName: web.example',
    'commonName: web.example, altNames: [www.example]',
  )
  writeFileSync(next.file, file)
  await sidecar.configure(loadConfig(next.file, {}))
  const renewed = await once('web', 'has the name', (loop) => isDone(loop) && serialOf(loop) !== old)
  const leaf = renewed.report?.state.serving?.leaf
  assert.deepEqual(leaf && namesOf(leaf).dns.toSorted(), ['web.example', 'www.example'])
  assert.deepEqual(told(folder), ['web', 'web'])
})

test('a config that comes with the stop, or just before it, starts nothing', async () => {
  const { folder, config } = place()
  const running = run(config({ web: '' }))
  const { sidecar, once, events } = running
  await once('web', 'is done', isDone)
  const next = config({ web: 'startupGrace: 1s', late: '' })
  const underWay = sidecar.configure(next)
  await sidecar[Symbol.asyncDispose]()
  const nothing = { added: [], changed: [], removed: [] }
  assert.deepEqual([await underWay, await sidecar.configure(next)], [nothing, nothing])
  await new Promise((resolve) => setImmediate(resolve))
  assert.ok(!existsSync(join(folder, 'late', 'tls.key')))
  assert.ok(!events.some(({ name }) => name === 'config.loaded'))
})

test('since when a CA is in force outlives the process, and what is renewed of the same CA does not wait for it', async () => {
  const { folder, config } = place()
  const trusting = () => {
    const { file } = config({ web: 'startupGrace: 1s' })
    const trust = `trust:
  - name: peers
    anchors: [{ kind: file, file: ${folder}/ca/ca.crt }]
    spread: 24h
    outputs: [{ kind: pem, directory: ${folder}/trust }]
`
    writeFileSync(file, `${readFileSync(file, 'utf8').replace('startupGrace: 1s', 'trust: peers')}${trust}`)
    return loadConfig(file, {})
  }
  const anchorOf = ({ trust: [loop] }: Sidecar) => loop?.report?.state.serving?.anchors[0]
  // Makes the CA.
  {
    await using first = run(config({ web: '' }))
    await first.once('web', 'is done', isDone)
  }
  let since: number | undefined
  {
    await using running = run(trusting())
    since = await until('the CA is in force', () => anchorOf(running.sidecar)?.inForceSince)
    const old = serialOf(await running.once('web', 'is done', isDone))
    await running.sidecar.rotate(['web'], 'test', never)
    assert.notEqual(serialOf(running.loop('web')), old)
  }
  await using again = run(trusting())
  assert.equal(await until('it is known again', () => anchorOf(again.sidecar)?.inForceSince), since)
})

test('what is read at the start only is told when it changes', async () => {
  const { config } = place()
  const first = config({ web: '' })
  await using running = run(first)
  await running.sidecar.configure(config({ web: '' }))
  await running.sidecar.configure({ ...config({ web: '' }), log: { level: 'debug', format: 'auto' } })
  const loaded = running.events.filter(({ name }) => name === 'config.loaded').map(({ event }) => event)
  const nothing = { added: [], changed: [], removed: [] }
  assert.deepEqual(loaded, [nothing, { ...nothing, needRestart: ['log'] }])
})

test('a config that cannot be made is refused before anything is stopped', async () => {
  const { folder, config } = place()
  const first = config({ web: '', api: '' })
  await using running = run(first)
  const { sidecar, once, loop } = running
  const web = await once('web', 'is done', isDone)
  await once('api', 'is done', isDone)
  writeFileSync(join(folder, 'empty.pem'), 'no certificate in here\n')
  for (const trustFile of [join(folder, 'none.pem'), join(folder, 'empty.pem')]) {
    const next = config({ web: 'startupGrace: 1s', api: `check: { trustFile: ${trustFile} }` })
    await assert.rejects(sidecar.configure(next), {
      code: 'CONFIG_INVALID',
      message: new RegExp(`^certificate "api": check.trustFile ${trustFile} `),
    })
  }
  assert.equal(sidecar.config, first)
  assert.equal(loop('web'), web)
  const [{ outcome } = assert.fail()] = await sidecar.rotate(['web'], 'still alive', never)
  assert.equal(outcome.kind, 'served')
})

test('a rotation of an unknown name asks nobody', async () => {
  const { config } = place()
  await using running = run(config({ web: '' }))
  const old = serialOf(await running.once('web', 'is done', isDone))
  assert.throws(() => running.sidecar.rotate(['web', 'wbe'], '', never), {
    code: 'USAGE',
    message: 'no certificate, secret or trust named wbe; there are: web',
  })
  assert.equal(serialOf(running.loop('web')), old)
})

test('R1 a command that fails because the target is not there has been refused by nobody: the new files stay', async () => {
  const { config } = place()
  // Nobody listens on port 1.
  const target = 'verify: [{ kind: tls, address: "127.0.0.1:1" }]'
  await using running = run(
    config({ web: `${target}\n    reload: [{ kind: exec, command: [sh, -c, 'echo nobody there; exit 1'] }]` }),
  )
  const { report } = await running.once('web', 'waits', (loop) => loop.report?.state.awaited !== undefined)
  assert.equal(report?.state.failures, 0)
  const [{ outcome } = assert.fail()] = await running.sidecar.rotate(['web'], 'a test', never)
  assert.ok(outcome.kind === 'failed' && outcome.error.code === 'TARGET_DOWN', JSON.stringify(outcome))
  assert.match(
    outcome.error.message,
    /^TLS 127\.0\.0\.1:1 \(web\.example\) does not answer: connection refused; reload command .* nobody there$/,
  )
  assert.equal(outcome.onDisk, outcome.inHand)
  assert.deepEqual(
    running.events.filter(({ name }) => name === 'rotation.rolled-back' || name === 'rotation.failed'),
    [],
  )
})

test('a target that is not there and that nobody tells of anything is not waited for', async () => {
  const { config } = place()
  await using running = run(config({ web: 'verify: [{ kind: tls, address: "127.0.0.1:1" }]' }))
  await running.once('web', 'waits', (loop) => loop.report?.state.awaited !== undefined)
  const [{ outcome } = assert.fail()] = await running.sidecar.rotate(['web'], 'a test', never)
  assert.ok(outcome.kind === 'failed' && outcome.error.code === 'TARGET_DOWN', JSON.stringify(outcome))
  assert.equal(outcome.error.message, 'TLS 127.0.0.1:1 (web.example) does not answer: connection refused')
  assert.equal(outcome.onDisk, outcome.inHand)
  assert.deepEqual(
    running.events.filter(({ event }) => 'stage' in event && event.stage === 'verify'),
    [],
  )
})

/** The system clock, with no wait longer than a moment. */
const hasty = {
  ...systemClock,
  sleep: (ms: number, signal?: AbortSignal) => systemClock.sleep(Math.min(ms, 5), signal),
}

test('P6 a defect in one certificate degrades that one alone; where it stays, the sidecar ends', async () => {
  const { config } = place()
  let defects = 0
  const emit: Emit = (name, event) => {
    const isEnd = name === 'rotation.finished' || name === 'certificate.resumed'
    if (!isEnd || !('certificate' in event) || event.certificate !== 'bad') return
    defects += 1
    throw new TypeError('planted')
  }
  await using running = run(config({ good: '', bad: '' }), { clock: hasty, emit })
  await assert.rejects(running.sidecar.failed, { code: 'BUG', message: /planted/ })
  assert.equal(defects, 5)
  const good = await running.once('good', 'is done', isDone)
  const [{ outcome } = assert.fail()] = await running.sidecar.rotate(['good'], 'a test', never)
  assert.equal(outcome.kind, 'served')
  assert.equal(running.loop('good'), good)
})

test('P6 a defect inside a rotation is a failure with its stage; the certificate on disk stays in service', async () => {
  const { folder, config } = place()
  const emit: Emit = (name, event) => {
    if (name === 'certificate.written' && 'certificate' in event && event.certificate === 'bad')
      throw new TypeError('planted')
  }
  await using running = run(config({ good: '', bad: '' }), { emit })
  await running.once('good', 'is done', isDone)
  const { report } = await running.once('bad', 'failed', (loop) => loop.report?.state.failure !== undefined)
  assert.equal(report?.state.failure?.code, 'BUG')
  assert.match(report?.state.failure?.message ?? '', /planted/)
  assert.ok(existsSync(join(folder, 'bad', 'tls.crt')))
})

test('a certificate that cannot be made ends the start, with those before it and all that ticks', async () => {
  const { folder, config } = place()
  const more = {
    'check: { trustFile: /nowhere/ca.pem }': /certificate "api": check\.trustFile \/nowhere\/ca\.pem cannot be used/,
    'reload: [{ kind: rollout-restart }]': /certificate "api": kubernetes\.apiServer is not given/,
  }
  for (const [bad, message] of Object.entries(more))
    assert.throws(() => run(config({ web: '', api: bad })), { message })
  // That the process can end now, the harness sees; and what the first one held is free.
  await using running = run(config({ web: '' }))
  await running.once('web', 'is done', isDone)
  assert.ok(existsSync(join(folder, 'web', 'tls.key')))
})
