import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:http2'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Agent } from 'undici'
import * as z from 'zod'
import { LAYOUTS } from '../../src/outputs/output.ts'
import { bundleCli, bundleClient } from '../../tools/build.ts'
import { createTestCa } from '../support/ca.ts'
import { readWhileSwapping, rotateUnderChurn } from '../support/node-client.ts'
import { startProgram, until as waitFor } from '../support/program.ts'
import { mountSecret } from '../support/secret-mount.ts'
import { until } from '../support/until.ts'

const Manifest = z.object({ dependencies: z.object({ fastify: z.string() }) })
const dist = mkdtempSync(join(tmpdir(), 'certferry-client-'))
after(() => rmSync(dist, { recursive: true, force: true }))
await bundleCli(dist)

for (const layout of LAYOUTS) {
  test(`4000 swaps under four readers, layout ${layout}: 0 mixed sets`, async (t) => {
    const run = await readWhileSwapping(t, { layout, readers: 4, swaps: 4000 })
    t.diagnostic(JSON.stringify({ consumer: 'certferry/client readers', ...run }))
    assert.deepEqual(run.errors, [])
    assert.equal(run.mixed, 0)
    assert.ok(
      run.sets.every((sets) => sets === 4),
      'each reader saw every set',
    )
    assert.ok(run.naive.mixed > 0, 'who opens one file after another does meet mixed sets')
  })
}

test('20 rotations of both sides of mutual TLS under connection churn: 0 failed handshakes', async (t) => {
  const run = await rotateUnderChurn(t, join(dist, 'cli.cjs'), 20)
  t.diagnostic(JSON.stringify({ consumer: 'node (certferry/client)', ...run }))
  assert.equal(run.failed, 0, run.failures.join('\n'))
  assert.equal(run.neverSeen, 0)
  assert.equal(run.rotations, 40)
})

test('examples/fastify follows its directory under both versions of HTTP, with fastify from the registry', async () => {
  const app = join(dist, 'fastify')
  const directory = join(dist, 'tls')
  cpSync(fileURLToPath(new URL('../../examples/fastify', import.meta.url)), app, { recursive: true })
  const { dependencies } = Manifest.parse(JSON.parse(readFileSync(join(app, 'package.json'), 'utf8')))
  writeFileSync(join(app, 'package.json'), '{ "type": "module" }')
  const npm = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline']
  execFileSync('npm', [...npm, `fastify@${dependencies.fastify}`], { cwd: app, stdio: 'pipe' })
  const client = join(app, 'node_modules/certferry')
  await bundleClient(join(client, 'dist/client'))
  cpSync(fileURLToPath(new URL('../../package.json', import.meta.url)), join(client, 'package.json'))

  const ca = await createTestCa()
  const put = async () => {
    const { certificatePem, keyPem, bundle } = await ca.issue({ commonName: 'localhost' })
    mkdirSync(directory, { recursive: true })
    mountSecret(directory, { 'tls.crt': certificatePem, 'tls.key': keyPem, 'ca.crt': ca.rootPem })
    return bundle.fingerprint
  }
  // The first set comes when the application has begun to wait for it.
  const env = { PATH: process.env.PATH ?? '', TLS_DIR: directory, PORT: '0' }
  const server = startProgram([process.execPath, join(app, 'server.mjs')], env)
  let fingerprint = await put()
  const origin = await waitFor('its address', () => /https:\S+/.exec(server.output())?.[0], server)
  for (let rotations = 0; rotations < 3; rotations += 1) {
    await until('the certificate is served', async () => {
      const session = connect(origin.replace('127.0.0.1', 'localhost'), { ca: ca.rootPem })
      try {
        const [, socket] = await once(session, 'connect')
        const request = session.request({ ':path': '/' })
        assert.equal((await request.setEncoding('utf8').toArray()).join(''), '{"hello":"from fastify"}')
        return socket.getPeerCertificate().fingerprint256.replaceAll(':', '').toLowerCase() === fingerprint
      } finally {
        session.destroy()
      }
    })
    const one = new Agent({ connect: { ca: ca.rootPem, servername: 'localhost' } })
    const { statusCode, body } = await one.request({ origin, path: '/', method: 'GET' })
    assert.deepEqual([statusCode, await body.json()], [200, { hello: 'from fastify' }])
    await one.destroy()
    fingerprint = await put()
  }
  server.child.kill('SIGTERM')
  assert.equal(await server.ended, 0, server.output())
})
