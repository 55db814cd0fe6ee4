import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import * as z from 'zod'
import { bundleCli } from '../../tools/build.ts'
import { noticesOf } from '../../tools/notices.ts'

const manifestFile = new URL('../../package.json', import.meta.url)
const folder = mkdtempSync(join(tmpdir(), 'certferry-build-'))
const dist = join(folder, 'dist')
after(() => rmSync(folder, { recursive: true, force: true }))

const chunks = await bundleCli(dist)

test('the bundle obtains a certificate, with nothing of node_modules in reach', () => {
  const config = join(folder, 'config.yaml')
  const source = `{ kind: dev-ca, directory: ${folder}/ca, commonName: web.internal }`
  const outputs = `[{ kind: pem, directory: ${folder}/tls }]`
  writeFileSync(config, `certificates: [{ name: web, source: ${source}, outputs: ${outputs} }]\n`, { mode: 0o600 })
  const args = [join(dist, 'cli.cjs'), 'once', '-c', config]
  const { status, stderr } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  assert.match(readFileSync(join(folder, 'tls/tls.crt'), 'utf8'), /^-----BEGIN CERTIFICATE-----/)
})

test('axios stays out of the bundle', () => {
  const holding = chunks.filter(({ code }) => code.includes('AxiosError')).map(({ fileName }) => fileName)
  assert.deepEqual(holding, [])
})

test('the notices name every package the project depends on', () => {
  const manifest = z.object({ dependencies: z.record(z.string(), z.string()) })
  const { dependencies } = manifest.parse(JSON.parse(readFileSync(manifestFile, 'utf8')))
  const notices = noticesOf(chunks.flatMap(({ moduleIds }) => moduleIds))
  const missing = Object.entries(dependencies).filter(([name, version]) => !notices.includes(`\n${name} ${version} (`))
  assert.deepEqual(missing, [])
})
