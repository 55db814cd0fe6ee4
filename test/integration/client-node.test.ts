import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { buildDist } from '../../tools/build.ts'
import { createTestCa } from '../support/ca.ts'
import { readWhileSwapping, rotateUnderChurn } from '../support/node-client.ts'
import { mountSecret } from '../support/secret-mount.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'certferry-client-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const dist = join(folder, 'package/dist')
await buildDist(dist)

for (const layout of ['generation', 'flat'] as const) {
  test(`no reader ever meets a mixed set while the store swaps, layout ${layout}`, async (t) => {
    const run = await readWhileSwapping(t, { layout, readers: 2, swaps: 300 })
    t.diagnostic(JSON.stringify(run))
    assert.deepEqual(run.errors, [])
    assert.equal(run.mixed, 0)
    assert.ok(
      run.sets.every((sets) => sets === 4),
      'each reader saw every set',
    )
    assert.ok(run.naive.mixed > 0, 'who opens one file after another does meet mixed sets')
  })
}

test('server and clients follow their certificates through rotations, and no handshake fails', async (t) => {
  const run = await rotateUnderChurn(t, join(dist, 'cli.cjs'), 2)
  t.diagnostic(JSON.stringify(run))
  assert.equal(run.failed, 0, run.failures.join('\n'))
  assert.equal(run.neverSeen, 0)
  assert.equal(run.rotations, 4)
  assert.ok(run.handshakes > 50)
})

const CONSUMER = `import { createServer, type Server } from 'node:https'
import { type TlsContext, TlsContextError, readSet, tlsContext } from 'certferry/client'

const directory = process.argv[2] ?? ''
await using context: TlsContext = await tlsContext({ directory, tls: { minVersion: 'TLSv1.3' }, pollMs: 1000 })
const server: Server = context.attach(createServer({ ...context.serverOptions(), requestCert: true }))
context.on('change', ({ certificate }) => console.log(certificate.validTo)).on('error', ({ code }) => console.error(code))
const { cert } = await readSet({ directory })
const refused: unknown = await tlsContext({ directory: 'nowhere' }).catch((error: unknown) => error)
if (!(refused instanceof TlsContextError)) throw refused
// @ts-expect-error there is no such option
await tlsContext({ folder: directory }).catch(() => {})
console.log(JSON.stringify([context.current.certificate.subject, cert.length > 0, refused.code, server.listening]))
`

test('the packed tarball, installed in an empty folder, is typed and works, by import and by require', async () => {
  const directory = join(folder, 'tls')
  mkdirSync(directory)
  const ca = await createTestCa()
  const { certificatePem, keyPem } = await ca.issue({ commonName: 'web.example' })
  mountSecret(directory, { 'tls.crt': certificatePem, 'tls.key': keyPem, 'ca.crt': ca.rootPem })

  for (const name of ['package.json', 'bin', 'README.md', 'LICENSE'])
    cpSync(join(ROOT, name), join(folder, 'package', name), { recursive: true })
  const packed = npm(join(folder, 'package'), 'pack', '--ignore-scripts', '--json', '--pack-destination', folder)
  const [{ filename, files }] = JSON.parse(packed)
  const paths: string[] = files.map(({ path }: { path: string }) => path)
  assert.ok(paths.includes('dist/client/index.js') && paths.includes('dist/client/index.d.ts'), paths.join('\n'))
  assert.deepEqual(
    paths.filter((path) => !/^(?:bin|dist)\/|^(?:package\.json|README\.md|LICENSE)$/.test(path)),
    [],
  )

  // As npm lays it out; what the command line needs besides is not installed, and the client does without.
  const app = join(folder, 'app')
  mkdirSync(join(app, 'node_modules/certferry'), { recursive: true })
  execFileSync('tar', [
    '-xzf',
    join(folder, filename),
    '--strip-components=1',
    '-C',
    join(app, 'node_modules/certferry'),
  ])
  for (const name of ['@types', 'undici-types'])
    symlinkSync(join(ROOT, 'node_modules', name), join(app, 'node_modules', name))
  writeFileSync(join(app, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(app, 'app.ts'), CONSUMER)
  const strict = ['--strict', '--exactOptionalPropertyTypes', '--noEmit', '--skipLibCheck', 'false']
  const nodeLike = ['--target', 'es2024', '--lib', 'esnext', '--module', 'nodenext', '--types', 'node']
  execFileSync(join(ROOT, 'node_modules/.bin/tsc'), [...strict, ...nodeLike, 'app.ts'], { cwd: app, stdio: 'pipe' })
  const said = execFileSync(process.execPath, ['app.ts', directory], { cwd: app, encoding: 'utf8' })
  assert.deepEqual(JSON.parse(said), ['CN=web.example', true, 'TLS_SET_MISSING', false])

  const required =
    "require('certferry/client').readSet({ directory: process.argv[1] }).then(({ cert }) => console.log(cert.length > 0))"
  const args = ['--input-type=commonjs', '-e', required, directory]
  assert.equal(execFileSync(process.execPath, args, { cwd: app, encoding: 'utf8' }), 'true\n')
})

const npm = (cwd: string, ...args: string[]) => execFileSync('npm', args, { cwd, encoding: 'utf8', stdio: 'pipe' })
