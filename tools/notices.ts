import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { type Package, productionPackages, ROOT } from './packages.ts'

/** The names, versions and licence texts of the packages that these module paths belong to. */
export function noticesOf(modulePaths: readonly string[]): string {
  return `certferry contains the following packages.\n\n${packagesOf(modulePaths).map(noticeOf).join('\n')}`
}

/** Throws when a module belongs to no production package: it would be shipped without being checked, listed, or in the SBOM. */
export function packagesOf(modulePaths: readonly string[]): Package[] {
  const folders = new Set(
    modulePaths
      .flatMap((path) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path) ?? [])
      .map((path) => relative(ROOT, path)),
  )
  const packages = productionPackages()
  const known = new Set(packages.flatMap((one) => one.folders))
  const unknown = [...folders].filter((folder) => !known.has(folder))
  if (unknown.length > 0) throw new Error(`in the bundle, but no production package: ${unknown.join(', ')}`)
  return packages.filter((one) => one.folders.some((folder) => folders.has(folder)))
}

function noticeOf({ name, version, license, folders: [folder = ''] }: Package): string {
  const path = join(ROOT, folder)
  const file = readdirSync(path).find((entry) => /^(licen[cs]e|copying)/i.test(entry))
  const text = file ? readFileSync(join(path, file), 'utf8').trim() : 'The package comes without a licence text.'
  return `${name} ${version} (${license})\n\n${text.replaceAll(/^/gm, '    ')}\n\n`
}
