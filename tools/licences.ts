// npm run licences   the packages that certferry runs on, with version, licence and size; fails when one may not be used
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Package, productionPackages, ROOT } from './packages.ts'

/** Licences that ask for no more than to be named; THIRD-PARTY-NOTICES does that. */
export const ALLOWED: readonly string[] = [
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'ISC',
  'MIT',
]

/** Whether an SPDX expression leaves a choice in which every part is allowed. What it cannot read is not. */
export const isAllowed = (license: string): boolean =>
  license
    .replace(/^\((.*)\)$/, '$1')
    .split(' OR ')
    .some((choice) => choice.split(' AND ').every((part) => ALLOWED.includes(part)))

/** Why these packages may not be used, one line each. */
export const refusals = (packages: readonly Package[]): string[] =>
  packages.flatMap(({ id, license, hasInstallScript }) => [
    ...(isAllowed(license) ? [] : [`${id}: ${license} is not among the allowed licences`]),
    ...(hasInstallScript ? [`${id}: has an install script`] : []),
  ])

function main(): void {
  const packages = productionPackages()
  const rows = packages.map(({ id, license, folders }) => ({
    cells: [id, license],
    bytes: folders.reduce((sum, folder) => sum + sizeOf(join(ROOT, folder)), 0),
  }))
  const widths = [0, 1].map((column) => Math.max(...rows.map(({ cells }) => cells[column]?.length ?? 0)))
  const print = (cells: readonly string[], bytes: number) =>
    console.log(`${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}  ${kibibytes(bytes)}`)
  for (const { cells, bytes } of rows) print(cells, bytes)
  print(
    [`${packages.length} packages`, ''],
    rows.reduce((sum, { bytes }) => sum + bytes, 0),
  )
  const refused = refusals(packages)
  for (const line of refused) console.error(line)
  if (refused.length > 0) process.exitCode = 1
}

/** Bytes of its own files, without packages nested in it. */
const sizeOf = (folder: string): number =>
  readdirSync(folder, { withFileTypes: true })
    .filter(({ name }) => name !== 'node_modules')
    .map((entry) => join(folder, entry.name))
    .reduce((sum, path) => sum + (statSync(path).isDirectory() ? sizeOf(path) : statSync(path).size), 0)

const kibibytes = (bytes: number) => `${String(Math.round(bytes / 1024)).padStart(6)} KiB`

if (import.meta.main) main()
