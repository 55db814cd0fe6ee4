import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'

/** A list of objects is how packages of npm's first years wrote it. */
const License = z.union([
  z.string(),
  z.array(z.object({ type: z.string() })).transform((list) => list.map(({ type }) => type).join(' or ')),
])
const Manifest = z.object({ name: z.string(), version: z.string(), license: License })

/** The names, versions and licence texts of the packages that these module paths belong to. Throws when a package states no licence. */
export function noticesOf(modulePaths: readonly string[]): string {
  const folders = modulePaths.flatMap((path) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path) ?? [])
  const notices = [...new Set(folders)].map(noticeOf).sort()
  return `certferry contains the following packages.\n\n${notices.join('\n')}`
}

function noticeOf(folder: string): string {
  const { name, version, license } = Manifest.parse(JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')))
  const file = readdirSync(folder).find((entry) => /^(licen[cs]e|copying)/i.test(entry))
  const text = file ? readFileSync(join(folder, file), 'utf8').trim() : 'The package comes without a licence text.'
  return `${name} ${version} (${license})\n\n${text.replaceAll(/^/gm, '    ')}\n\n`
}
