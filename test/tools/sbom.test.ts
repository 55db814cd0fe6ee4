import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import * as z from 'zod'
import { locked, productionPackages, ROOT } from '../../tools/packages.ts'

const Licenses = z
  .array(
    z.strictObject({ license: z.union([z.strictObject({ id: z.string() }), z.strictObject({ name: z.string() })]) }),
  )
  .min(1)
const Described = { 'bom-ref': z.string(), name: z.string(), version: z.string(), licenses: Licenses }

/** Those parts of https://cyclonedx.org/schema/bom-1.5.schema.json that are used, and no others. */
const Bom = z.strictObject({
  $schema: z.literal('http://cyclonedx.org/schema/bom-1.5.schema.json'),
  bomFormat: z.literal('CycloneDX'),
  specVersion: z.literal('1.5'),
  serialNumber: z.string().regex(/^urn:uuid:[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/),
  version: z.literal(1),
  metadata: z.strictObject({
    timestamp: z.iso.datetime(),
    lifecycles: z.tuple([z.strictObject({ phase: z.literal('pre-build') })]),
    component: z.strictObject({
      ...Described,
      type: z.literal('application'),
      description: z.string(),
      purl: z.string(),
    }),
  }),
  components: z.array(
    z.strictObject({
      ...Described,
      type: z.literal('library'),
      scope: z.literal('required'),
      purl: z.string().regex(/^pkg:npm\/(%40[a-z0-9-]+\/)?[a-z0-9.-]+@\d+\.\d+\.\d+/),
      hashes: z.tuple([z.strictObject({ alg: z.literal('SHA-512'), content: z.string().regex(/^[0-9a-f]{128}$/) })]),
    }),
  ),
  dependencies: z.array(z.strictObject({ ref: z.string(), dependsOn: z.array(z.string()) })),
})

const folder = mkdtempSync(join(tmpdir(), 'certferry-sbom-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const run = (...args: readonly string[]) =>
  spawnSync(process.execPath, [join(ROOT, 'tools/sbom.ts'), ...args], { cwd: folder, encoding: 'utf8' })
const text = run().stdout
const bom = Bom.parse(JSON.parse(text))

test('the SBOM is of this application and version', () => {
  const manifest = z.object({ name: z.string(), version: z.string() })
  const { name, version } = manifest.parse(JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')))
  const { component } = bom.metadata
  assert.deepEqual([component.name, component.version, component.purl], [name, version, `pkg:npm/${name}@${version}`])
})

test('the SBOM holds every production package exactly once, and no tool', () => {
  const ids = bom.components.map(({ name, version }) => `${name}@${version}`)
  assert.deepEqual(
    ids,
    productionPackages().map(({ id }) => id),
  )
  assert.equal(new Set(bom.components.map(({ purl }) => purl)).size, ids.length)
})

test('the hash of each component is the one that the lockfile pins', () => {
  for (const component of bom.components) {
    const { folders } = productionPackages().find(({ id }) => id === component['bom-ref']) ?? { folders: [] }
    assert.ok(folders.length > 0)
    for (const path of folders) {
      const pinned = Buffer.from(locked[path]?.integrity?.slice('sha512-'.length) ?? '', 'base64').toString('hex')
      assert.equal(component.hashes[0].content, pinned, path)
    }
  }
})

test('the SBOM tells what needs what, of every component, with every reference in it', () => {
  const refs = bom.dependencies.map(({ ref }) => ref)
  const known = new Set([bom.metadata.component['bom-ref'], ...bom.components.map((one) => one['bom-ref'])])
  assert.deepEqual(new Set(refs), known)
  assert.equal(refs.length, known.size)
  const needed = new Set(bom.dependencies.flatMap(({ dependsOn }) => dependsOn))
  assert.deepEqual(
    [...needed].filter((ref) => !known.has(ref)),
    [],
  )
  assert.deepEqual(
    [...known].filter((ref) => !needed.has(ref)),
    [bom.metadata.component['bom-ref']],
  )
})

test('the SBOM names no place of the machine it was made on', () => {
  assert.ok(!text.includes(ROOT) && !text.includes(tmpdir()) && !/file:|\/home\/|\/root\//.test(text))
})

test('the SBOM goes to a file when told so, and then to nowhere else', () => {
  const { stdout, status } = run('--output', 'bom.json')
  assert.deepEqual([stdout, status], ['', 0])
  const { components } = Bom.parse(JSON.parse(readFileSync(join(folder, 'bom.json'), 'utf8')))
  assert.deepEqual(components, bom.components)
})
