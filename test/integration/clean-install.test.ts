import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { productionPackages, ROOT } from '../../tools/packages.ts'

const folder = mkdtempSync(join(tmpdir(), 'certferry-clean-'))
after(() => rmSync(folder, { recursive: true, force: true }))
const clone = join(folder, 'clone')

/** The files as they are now, without what Git ignores: nothing that an earlier install or build left. */
const LIST = ['ls-files', '-z', '--cached', '--others', '--exclude-standard']
for (const file of run('git', LIST, ROOT).split('\0')) {
  if (file !== '' && existsSync(join(ROOT, file))) cpSync(join(ROOT, file), join(clone, file))
}

test('npm ci --ignore-scripts --omit=dev installs exactly the packages of the SBOM, and certferry issues with them', () => {
  install('--omit=dev', '--workspaces=false')
  const expected = productionPackages().flatMap(({ folders }) => folders)
  assert.deepEqual(installed('node_modules').sort(), expected.sort())
  works(process.execPath, 'production')
})

test('npm ci --ignore-scripts installs all that certferry needs, with the Node it runs on', () => {
  install()
  works(join(clone, 'node_modules/.bin/node'), 'all')
})

function install(...more: readonly string[]) {
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', ...more], clone)
}

function works(node: string, name: string) {
  const bin = join(clone, 'bin/certferry.js')
  assert.match(run(node, [bin, '--version'], clone), /^\d+\.\d+\.\d+\n$/)
  const [config, tls] = [join(folder, `${name}.yaml`), join(folder, name)]
  const source = `{ kind: dev-ca, directory: ${folder}/ca, commonName: web.internal }`
  const certificate = `{ name: web, source: ${source}, outputs: [{ kind: pem, directory: ${tls} }] }`
  writeFileSync(config, `certificates: [${certificate}]\n`, { mode: 0o600 })
  run(node, [bin, 'once', '-c', config], clone)
  assert.match(readFileSync(join(tls, 'tls.crt'), 'utf8'), /^-----BEGIN CERTIFICATE-----/)
}

/** Folders of packages below a node_modules of the clone, those in scopes and nested ones included. */
function installed(modules: string): string[] {
  const names = readdirSync(join(clone, modules)).filter((name) => !name.startsWith('.'))
  const folders = names.flatMap((name) =>
    name.startsWith('@') ? readdirSync(join(clone, modules, name)).map((inner) => join(name, inner)) : [name],
  )
  return folders.flatMap((name) => {
    const path = join(modules, name)
    const nested = join(path, 'node_modules')
    return existsSync(join(clone, nested)) ? [path, ...installed(nested)] : [path]
  })
}

function run(program: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd, encoding: 'utf8' })
  assert.equal(status, 0, `${program} ${args.join(' ')}: ${error?.message ?? ''}\n${stdout}\n${stderr}`)
  return stdout
}
