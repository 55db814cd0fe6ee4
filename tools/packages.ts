import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'

export const ROOT = join(import.meta.dirname, '..')

/** A list of objects, any of which one may choose, is how packages of npm's first years wrote it. */
export const License = z.union([
  z.string(),
  z.array(z.object({ type: z.string() })).transform((list) => list.map(({ type }) => type).join(' OR ')),
])

const Names = z.record(z.string(), z.string()).default({})
const Entry = z.object({
  version: z.string().optional(),
  license: License.optional(),
  integrity: z.string().optional(),
  resolved: z.string().optional(),
  link: z.boolean().default(false),
  dev: z.boolean().default(false),
  hasInstallScript: z.boolean().default(false),
  dependencies: Names,
  optionalDependencies: Names,
  peerDependencies: Names,
})
const Lockfile = z.object({ packages: z.record(z.string(), Entry) })

/** What package-lock.json says, by the folder below the repository into which npm puts it; `''` is certferry itself. */
export const { packages: locked } = Lockfile.parse(JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')))

/** A package of others that certferry runs on. */
export interface Package {
  /** `name@version` */
  readonly id: string
  readonly name: string
  readonly version: string
  /** An SPDX expression, as far as its author knew of SPDX. */
  readonly license: string
  /** `sha512-` and base64, of the archive that npm downloads. */
  readonly integrity: string
  readonly hasInstallScript: boolean
  /** More than one where a package that needs it sees another version further up. */
  readonly folders: readonly string[]
  /** The ids of the packages that it needs itself. */
  readonly needs: readonly string[]
}

/**
 * All that is reached from the `dependencies` of package.json, sorted: neither tools nor the pinned Node, which is a workspace. Throws when
 * one states no licence or has no hash.
 */
export function productionPackages(): Package[] {
  const reached = new Set<string>()
  const follow = (folder: string) => {
    for (const next of needsOf(folder)) {
      if (reached.has(next)) continue
      reached.add(next)
      follow(next)
    }
  }
  follow('')
  const groups = Map.groupBy(reached, idOf)
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([id, folders]) => packageIn(id, folders))
}

/** The ids of the packages that package.json itself names. */
export const directPackages = (): string[] => needsOf('').map(idOf)

function packageIn(id: string, folders: readonly string[]): Package {
  const [folder = ''] = folders
  const { version, license, integrity, hasInstallScript = false } = locked[folder] ?? {}
  if (version === undefined || license === undefined || integrity === undefined)
    throw new Error(`package-lock.json states no version, licence or hash of ${folder}`)
  const needs = [...new Set(folders.flatMap(needsOf).map(idOf))].sort()
  return { id, name: nameOf(folder), version, license, integrity, hasInstallScript, folders, needs }
}

/** The folders of the packages that the one in `folder` needs. */
function needsOf(folder: string): string[] {
  const { dependencies = {}, optionalDependencies = {}, peerDependencies = {} } = locked[folder] ?? {}
  // npm installs peers, too, those apart that are optional.
  return Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies }).flatMap(
    (name) => resolve(name, folder) ?? [],
  )
}

/** As Node does: the nearest node_modules that has it. Optional packages may be nowhere. */
function resolve(name: string, from: string): string | undefined {
  const folder = `${from === '' ? '' : `${from}/`}node_modules/${name}`
  if (folder in locked) return folder
  return from === '' ? undefined : resolve(name, from.slice(0, Math.max(0, from.lastIndexOf('/node_modules/'))))
}

const nameOf = (folder: string) => folder.slice(folder.lastIndexOf('node_modules/') + 'node_modules/'.length)
const idOf = (folder: string) => `${nameOf(folder)}@${locked[folder]?.version}`
