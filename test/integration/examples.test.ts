import assert from 'node:assert/strict'
import { once } from 'node:events'
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { connect } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { createTestCa } from '../support/ca.ts'
import { component, skipReason } from '../support/components.ts'
import { assertNothingLeft, assertRotated, processesWith } from '../support/example-run.ts'
import { startProgram, until } from '../support/program.ts'

const examples = fileURLToPath(new URL('../../examples', import.meta.url))
const skip = await skipReason('vault', 'nginx')
const skipWithoutVault = await skipReason('vault')

const root = await mkdtemp(join(tmpdir(), 'certferry-test-'))
after(() => rm(root, { recursive: true, force: true }))
const createFolder = () => mkdtemp(join(root, 'e-'))

const runScript = async (name: string, folder: string, ...args: string[]) =>
  startProgram([join(examples, name, 'run.sh'), ...args], {
    PATH: process.env.PATH ?? '',
    HOME: folder,
    TMPDIR: folder,
    ...(name === 'node-server' ? {} : { VAULT_BIN: await component('vault') }),
    ...(name === 'nginx' ? { NGINX_BIN: await component('nginx') } : {}),
  })

test('examples/nginx/run.sh rotates under proof, ends by itself, and leaves neither process nor file', {
  skip,
}, async () => {
  const folder = await createFolder()
  const script = await runScript('nginx', folder, '--seconds', '1')
  assert.equal(await script.ended, 0, script.output())
  assertRotated(script.output())
  assert.match(script.output(), /"event":"sidecar.stopped"/)
  await assertNothingLeft(folder)
})

test('examples/node-server/run.sh rotates under proof until Ctrl-C, and leaves neither process nor file', async () => {
  const folder = await createFolder()
  const script = await runScript('node-server', folder)
  await until('in service', () => script.output().includes('==> in service') || undefined, script)
  assert.ok((await processesWith(folder)).length >= 3, 'the search for leftovers finds what runs')
  // To the whole process group, as a terminal does it.
  process.kill(-(script.child.pid ?? 0), 'SIGINT')
  assert.equal(await script.ended, 130, script.output())
  assertRotated(script.output())
  await assertNothingLeft(folder)
})

test('examples/secrets/run.sh delivers a change, keeps the files when one is bad, and leaves neither process nor file', {
  skip: skipWithoutVault,
}, async () => {
  const folder = await createFolder()
  const script = await runScript('secrets', folder, '--seconds', '1')
  assert.equal(await script.ended, 0, script.output())
  const output = script.output()
  assert.match(output, /^✓ app {2}obtained, .* target not there yet/m)
  assert.match(output, /^user = "ada"\npassword = "one \\"quoted\\""\nsmtp = "hunter2"$/m)
  assert.match(output, /^app: user = "grace"$/m)
  assert.match(output, /template_failed: .*there is no db\.password[\s\S]*\nuser = "grace"\npassword = "two"$/m)
  assert.match(output, /^✓ app {2}rotated/m)
  await assertNothingLeft(folder)
})

test('examples/exec/run.sh restarts its program at a change, ends with its exit code, and leaves neither process nor file', {
  skip: skipWithoutVault,
}, async () => {
  const folder = await createFolder()
  const script = await runScript('exec', folder, '--seconds', '1')
  assert.equal(await script.ended, 0, script.output())
  const told = script
    .output()
    .split('\n')
    .filter((line) => /^(?:app:|exit code)/.test(line))
  assert.deepEqual(told, [
    'app: started as ada, with a password of 3 letters, for db.example.com; VAULT_TOKEN=not here',
    'app: asked to end',
    'app: started as grace, with a password of 6 letters, for db.example.com; VAULT_TOKEN=not here',
    'exit code 7',
  ])
  await assertNothingLeft(folder)
})

test('examples/nginx/run.sh ends cleanly when it is stopped half-way through its set-up', { skip }, async () => {
  const folder = await createFolder()
  const script = await runScript('nginx', folder)
  await until('Vault', () => script.output().includes('==> root and intermediate') || undefined, script)
  script.child.kill('SIGTERM')
  assert.equal(await script.ended, 143, script.output())
  await assertNothingLeft(folder)
})

test('a run.sh says how it is called when an argument is wrong', async () => {
  const folder = await createFolder()
  const script = await runScript('node-server', folder, '--minutes')
  assert.equal(await script.ended, 64)
  assert.match(script.output(), /^usage: run\.sh \[--seconds N\]/)
  await assertNothingLeft(folder)
})

test('examples/node-server/server.mjs keeps its certificate when the new pair does not load', async () => {
  const folder = await createFolder()
  const ca = await createTestCa()
  const [good, other, next] = await Promise.all([ca.issue(), ca.issue(), ca.issue()])
  const put = async (cert: string, key: string) => {
    await writeFile(join(folder, 'tls.crt'), cert)
    await writeFile(join(folder, 'tls.key'), key)
  }
  await put(good.certificatePem, good.keyPem)
  const server = startProgram([process.execPath, join(examples, 'node-server/server.mjs')], {
    TLS_DIR: folder,
    PORT: '0',
    PID_FILE: join(folder, 'server.pid'),
  })
  const pid = await until('pid file', () => readFile(join(folder, 'server.pid'), 'utf8').catch(() => undefined), server)
  assert.equal(Number(pid), server.child.pid)
  const port = await until('port', () => /localhost:(\d+)/.exec(server.output())?.[1], server)
  assert.equal(await servedBy(Number(port)), good.bundle.fingerprint)

  await put(next.certificatePem, other.keyPem)
  server.child.kill('SIGHUP')
  await until('refusal', () => server.output().includes('keeps the old certificate') || undefined, server)
  assert.equal(await servedBy(Number(port)), good.bundle.fingerprint)

  await put(next.certificatePem, next.keyPem)
  server.child.kill('SIGHUP')
  await until('the new one', () => server.output().includes('took the new certificate') || undefined, server)
  assert.equal(await servedBy(Number(port)), next.bundle.fingerprint)
  server.child.kill('SIGTERM')
  assert.equal(await server.ended, 0)
  await assert.rejects(access(join(folder, 'server.pid')), { code: 'ENOENT' })
})

async function servedBy(port: number): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', rejectUnauthorized: false })
  await once(socket, 'secureConnect')
  const { fingerprint256 } = socket.getPeerCertificate()
  socket.destroy()
  return fingerprint256.replaceAll(':', '').toLowerCase()
}
