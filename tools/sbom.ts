// npm run sbom [-- --output FILE]   a bill of materials in CycloneDX: certferry and the packages it runs on
import { randomUUID } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as z from 'zod'
import { ALLOWED } from './licences.ts'
import { directPackages, type Package, productionPackages, ROOT } from './packages.ts'

const Manifest = z.object({ name: z.string(), version: z.string(), description: z.string(), license: z.string() })

/**
 * Made from package-lock.json alone. `npm sbom` calls the project by the name of its folder, knows no licence of tv4, and with
 * `--package-lock-only --omit dev` it leaves out packages that a tool needs as well (npm 11.19, tslib).
 * https://cyclonedx.org/docs/1.5/json/
 */
export function sbom(): object {
  const { name, version, description, license } = Manifest.parse(
    JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')),
  )
  const packages = productionPackages()
  const self = `${name}@${version}`
  return {
    $schema: 'http://cyclonedx.org/schema/bom-1.5.schema.json',
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    serialNumber: `urn:uuid:${randomUUID()}`,
    version: 1,
    metadata: {
      timestamp: new Date().toISOString(),
      lifecycles: [{ phase: 'pre-build' }],
      component: {
        type: 'application',
        'bom-ref': self,
        name,
        version,
        description,
        licenses: licensesOf(license),
        purl: purlOf(name, version),
      },
    },
    components: packages.map(componentOf),
    dependencies: [
      { ref: self, dependsOn: directPackages() },
      ...packages.map(({ id, needs }) => ({ ref: id, dependsOn: needs })),
    ],
  }
}

const componentOf = ({ id, name, version, license, integrity }: Package) => ({
  type: 'library',
  'bom-ref': id,
  name,
  version,
  scope: 'required',
  hashes: [{ alg: 'SHA-512', content: Buffer.from(integrity.replace(/^sha512-/, ''), 'base64').toString('hex') }],
  licenses: licensesOf(license),
  purl: purlOf(name, version),
})

/** An expression would have to be of SPDX throughout, and one author wrote "Public Domain". */
const licensesOf = (license: string) =>
  license.split(' OR ').map((one) => ({ license: ALLOWED.includes(one) ? { id: one } : { name: one } }))

/** https://github.com/package-url/purl-spec/blob/main/types/npm-definition.json: the scope's @ is encoded. */
const purlOf = (name: string, version: string) => `pkg:npm/${name.replace('@', '%40')}@${version}`

function main(): void {
  const { output } = parseArgs({ options: { output: { type: 'string' } } }).values
  const text = JSON.stringify(sbom(), undefined, 2)
  if (output === undefined) console.log(text)
  else writeFileSync(output, `${text}\n`)
}

if (import.meta.main) main()
