import assert from 'node:assert/strict'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { connect } from 'node:tls'
import { createTestCa } from '../support/ca.ts'
import { component, skipReason } from '../support/components.ts'
import {
  assertNothingLeft,
  assertRotated,
  examples,
  outputOf,
  processesWith,
  runScript,
  temporaryFolders,
} from '../support/example-run.ts'
import { startProgram, until } from '../support/program.ts'
import { mountSecret } from '../support/secret-mount.ts'

const skip = await skipReason('vault', 'nginx')
const skipWithoutVault = await skipReason('vault')
const skipWithoutOpenssl = await skipReason('openssl')
const createFolder = await temporaryFolders()
const vault = async () => ({ VAULT_BIN: await component('vault') })
const vaultAndNginx = async () => ({ ...(await vault()), NGINX_BIN: await component('nginx') })

test('examples/nginx/run.sh rotates under proof, ends by itself, and leaves neither process nor file', {
  skip,
}, async () => {
  const output = await outputOf('nginx', await createFolder(), await vaultAndNginx())
  assertRotated(output)
  assert.match(output, /"event":"sidecar.stopped"/)
})

test('examples/node-server/run.sh rotates under proof until Ctrl-C, and leaves neither process nor file', async () => {
  const folder = await createFolder()
  const script = runScript('node-server', folder, { args: [] })
  await until('in service', () => script.output().includes('==> in service') || undefined, script)
  assert.ok((await processesWith(folder)).length >= 3, 'the search for leftovers finds what runs')
  // To the whole process group, as a terminal does it.
  process.kill(-(script.child.pid ?? 0), 'SIGINT')
  assert.equal(await script.ended, 130, script.output())
  assertRotated(script.output())
  await assertNothingLeft(folder)
})

test('examples/cert-manager/run.sh serves what is renewed, not what does not fit, and leaves neither process nor file', {
  skip: skipWithoutOpenssl,
}, async () => {
  const output = await outputOf('cert-manager', await createFolder(), {})
  assert.match(output, /^✓ web {2}obtained, .* target not there yet/m)
  const served = [...output.matchAll(/^web +(?:ACTIVE|DEGRADED) +(\S+) .* ✓$/gm)].map(([, serial]) => serial)
  assert.equal(served.length, 3, output)
  assert.equal(served[0], served[1], 'the pair that does not fit changed nothing')
  assert.notEqual(served[1], served[2])
  assert.match(output, /"input_incomplete","detail":"the private key in \S+tls\.key belongs to no certificate/)
  assert.equal(output.match(/^OK - 1 certificate/gm)?.length, 2, output)
})

test('examples/secrets/run.sh delivers a change, keeps the files when one is bad, and leaves neither process nor file', {
  skip: skipWithoutVault,
}, async () => {
  const output = await outputOf('secrets', await createFolder(), await vault())
  assert.match(output, /^✓ app {2}obtained, .* target not there yet/m)
  assert.match(output, /^user = "ada"\npassword = "one \\"quoted\\""\nsmtp = "hunter2"$/m)
  assert.match(output, /^app: user = "grace"$/m)
  assert.match(output, /template_failed: .*there is no db\.password[\s\S]*\nuser = "grace"\npassword = "two"$/m)
  assert.match(output, /^✓ app {2}rotated/m)
})

test('examples/exec/run.sh restarts its program at a change, ends with its exit code, and leaves neither process nor file', {
  skip: skipWithoutVault,
}, async () => {
  const output = await outputOf('exec', await createFolder(), await vault())
  const told = output.split('\n').filter((line) => /^(?:app:|exit code)/.test(line))
  assert.deepEqual(told, [
    'app: started as ada, with a password of 3 letters, for db.example.com; VAULT_TOKEN=not here',
    'app: asked to end',
    'app: started as grace, with a password of 6 letters, for db.example.com; VAULT_TOKEN=not here',
    'exit code 7',
  ])
})

test('examples/nginx/run.sh ends cleanly when it is stopped half-way through its set-up', { skip }, async () => {
  const folder = await createFolder()
  const script = runScript('nginx', folder, { args: [], programs: await vaultAndNginx() })
  await until('Vault', () => script.output().includes('==> root and intermediate') || undefined, script)
  script.child.kill('SIGTERM')
  assert.equal(await script.ended, 143, script.output())
  await assertNothingLeft(folder)
})

test('a run.sh says how it is called when an argument is wrong', async () => {
  const folder = await createFolder()
  const script = runScript('node-server', folder, { args: ['--minutes'] })
  assert.equal(await script.ended, 64)
  assert.match(script.output(), /^usage: run\.sh \[--seconds N\]/)
  await assertNothingLeft(folder)
})

test('examples/node-server/server.mjs keeps its certificate when the new pair does not load', async () => {
  const folder = await createFolder()
  const ca = await createTestCa()
  const [good, other, next] = await Promise.all([ca.issue(), ca.issue(), ca.issue()])
  const put = async (cert: string, key: string) => mountSecret(folder, { 'tls.crt': cert, 'tls.key': key })
  await put(good.certificatePem, good.keyPem)
  const program = join(examples, 'node-server/server.mjs')
  const server = startProgram([process.execPath, '--conditions=certferry-source', program], {
    TLS_DIR: folder,
    PORT: '0',
  })
  const port = await until('port', () => /localhost:(\d+)/.exec(server.output())?.[1], server)
  assert.equal(await servedBy(Number(port)), good.bundle.fingerprint)

  await put(next.certificatePem, other.keyPem)
  await until('refusal', () => server.output().includes('keeps the old certificate') || undefined, server)
  assert.equal(await servedBy(Number(port)), good.bundle.fingerprint)

  await put(next.certificatePem, next.keyPem)
  await until('the new one', () => server.output().includes('took certificate') || undefined, server)
  assert.equal(await servedBy(Number(port)), next.bundle.fingerprint)
  server.child.kill('SIGTERM')
  assert.equal(await server.ended, 0)
})

async function servedBy(port: number): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', servername: 'localhost', rejectUnauthorized: false })
  await once(socket, 'secureConnect')
  const { fingerprint256 } = socket.getPeerCertificate()
  socket.destroy()
  return fingerprint256.replaceAll(':', '').toLowerCase()
}
