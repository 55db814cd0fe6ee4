import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as z from 'zod'
import { isAllowed, refusals } from '../../tools/licences.ts'
import { directPackages, License, locked, productionPackages, ROOT } from '../../tools/packages.ts'

const lockfile = readFileSync(join(ROOT, 'package-lock.json'), 'utf8')
const Manifest = z.object({
  name: z.string(),
  version: z.string(),
  license: License,
  scripts: z.record(z.string(), z.string()).default({}),
  dependencies: z.record(z.string(), z.string()).default({}),
})
const manifestIn = (folder: string) =>
  Manifest.parse(JSON.parse(readFileSync(join(ROOT, folder, 'package.json'), 'utf8')))

test('every package in the lockfile has a SHA-512 hash, but for our own', () => {
  const without = Object.entries(locked)
    .filter(([, { link, integrity }]) => !link && !/^sha512-[A-Za-z0-9+/]{86}==$/.test(integrity ?? ''))
    .map(([folder]) => folder)
  assert.deepEqual(without, ['', 'tools/node'])
  assert.ok(Object.keys(locked).length > 100)
})

test('the lockfile names no registry and no other place to download from', () => {
  const resolved = Object.values(locked).flatMap((entry) => entry.resolved ?? [])
  assert.deepEqual(resolved, ['tools/node'])
  const addresses = lockfile.split('\n').filter((line) => line.includes('://') && !/^\s+"url": "https?:\/\//.test(line))
  assert.deepEqual(addresses, [])
})

test('every dependency of package.json is pinned to one version, the one in the lockfile', () => {
  const { dependencies } = manifestIn('')
  const pinned = Object.entries(dependencies).map(([name, version]) => `${name}@${version}`)
  assert.deepEqual(directPackages(), pinned)
})

test('production packages are those that npm does not mark as tools, without the pinned Node', () => {
  const pinnedNode = Object.keys(locked['tools/node']?.optionalDependencies ?? {}).map((name) => `node_modules/${name}`)
  const unmarked = Object.keys(locked).filter((folder) => folder.includes('node_modules/') && !locked[folder]?.dev)
  const found = productionPackages().flatMap(({ folders }) => folders)
  assert.deepEqual(
    found.sort(),
    unmarked.filter((folder) => !locked[folder]?.link && !pinnedNode.includes(folder)).sort(),
  )
})

test('no package at all has an install script', () => {
  const scripted = Object.entries(locked).filter(([, { hasInstallScript }]) => hasInstallScript)
  assert.deepEqual(scripted, [])
})

test('no production package has an install script or another licence than the allowed ones', () => {
  assert.deepEqual(refusals(productionPackages()), [])
})

test('what the lockfile says of a production package is what is installed', () => {
  for (const { name, version, license, folders } of productionPackages()) {
    for (const folder of folders) {
      const installed = manifestIn(folder)
      assert.deepEqual([installed.name, installed.version, installed.license], [name, version, license])
      const run = ['preinstall', 'install', 'postinstall'].filter((script) => script in installed.scripts)
      assert.deepEqual(run, [], folder)
      // npm runs node-gyp for such a package although it names no script.
      assert.equal(existsSync(join(ROOT, folder, 'binding.gyp')), false, folder)
    }
  }
})

test('a licence is allowed when it leaves a choice in which every part is', () => {
  const verdicts = {
    MIT: true,
    'Public Domain OR MIT': true,
    '(MIT OR GPL-3.0-only)': true,
    'MIT AND Apache-2.0': true,
    'MIT AND GPL-3.0-only': false,
    'GPL-3.0-only': false,
    'LGPL-2.1-or-later OR MPL-2.0': false,
    'SEE LICENSE IN LICENSE': false,
    UNLICENSED: false,
    mit: false,
    '': false,
  }
  for (const [license, verdict] of Object.entries(verdicts)) assert.equal(isAllowed(license), verdict, license)
})

test('a package is refused for its licence and for its install script', () => {
  const [some] = productionPackages()
  assert.ok(some)
  const bad = { ...some, id: 'bad@1.0.0', license: 'GPL-3.0-only', hasInstallScript: true }
  assert.deepEqual(refusals([some, bad]), [
    'bad@1.0.0: GPL-3.0-only is not among the allowed licences',
    'bad@1.0.0: has an install script',
  ])
})
