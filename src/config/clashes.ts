import { dirname, isAbsolute, relative } from 'node:path'
import { type AnyOutput, isRemote, type Output, writesFiles } from '../outputs/output.ts'
import type { Path } from './problems.ts'

/** A certificate or a secret as far as clashes go. */
export interface Claim {
  readonly kind: 'certificate' | 'secret' | 'trust'
  /** Its place in the config. */
  readonly path: Path
  readonly name: string
  readonly outputs: readonly AnyOutput<never>[]
}

export interface Clash {
  readonly path: Path
  readonly message: string
}

/** What no field can know alone: names, directories and files that two want, and outputs outside `volumes`. */
export function findClashes(claims: readonly Claim[], volumes: readonly string[] | undefined): Clash[] {
  const byName = new Map<string, Claim>()
  const byDirectory = new Map<string, Claim>()
  const byPlace = new Map<string, Claim>()
  const nested = createNesting()
  return claims.flatMap((claim) => {
    const { path: place, name, outputs } = claim
    const twin = byName.get(name)
    byName.set(name, claim)
    const clashes = outputs.flatMap((output, position) => {
      if (isRemote(output)) {
        const owner = byPlace.get(output.place)
        byPlace.set(output.place, claim)
        const path = [...place, 'outputs', position, 'name']
        return owner ? [{ path, message: `${output.place} is that of ${called(owner)} already` }] : []
      }
      const owner = byDirectory.get(output.directory)
      const near = nested.nearest(output.directory)
      nested.add(output.directory)
      byDirectory.set(output.directory, claim)
      const at = (key: string, message: string): Clash => ({
        path: [...place, 'outputs', position, key],
        message,
      })
      return [
        ...(owner && owner !== claim
          ? [
              at(
                'directory',
                `is the directory of ${called(owner)} already; its files are swapped as one set, so give each ${claim.kind} a directory of its own`,
              ),
            ]
          : []),
        ...(near
          ? [
              at(
                'directory',
                `and ${near}, the directory of ${called(byDirectory.get(near))}, are one within the other; give each set a directory of its own, side by side`,
              ),
            ]
          : []),
        ...(volumes && !volumes.some((volume) => isWithin(output.directory, volume))
          ? [at('directory', `is outside volumes (${volumes.join(', ')})`)]
          : []),
        ...setTroubles(output, outputs.slice(0, position).filter(writesFiles)).map((message) =>
          at('oneSetWith', message),
        ),
        ...withinDirectory(output, outputs.slice(0, position).filter(writesFiles)).map(({ key, message }) =>
          at(key, message),
        ),
      ]
    })
    clashes.push(
      ...withoutPair(outputs).map((position) => ({
        path: [...place, 'outputs', position, 'layout'],
        message:
          'nginx-include needs the certificate and its key in PEM in this directory: add an output of pem or combined, or leave both in files',
      })),
    )
    if (claim.kind === 'certificate' && outputs.every(isRemote))
      clashes.push({
        path: [...place, 'outputs'],
        message:
          'needs an output that writes files as well, such as pem: the state of the certificate is kept beside them',
      })
    return twin === undefined
      ? clashes
      : [
          {
            path: [...place, 'name'],
            message: `is the name of ${String(twin.path[0])}[${String(twin.path[1])}] already`,
          },
          ...clashes,
        ]
  })
}

const called = (claim: Claim | undefined) => `${claim?.kind} "${claim?.name}"`

/** Positions of the first output of each directory whose tls.conf would have nothing to name. */
function withoutPair(outputs: readonly AnyOutput<never>[]): number[] {
  const byDirectory = Map.groupBy(outputs.filter(writesFiles), ({ directory }) => directory)
  return [...byDirectory.values()].flatMap((mates) => {
    const [first] = mates
    const served = mates.flatMap(({ serves = ['certificate', 'key'] }) => serves)
    const isBare = first?.layout === 'nginx-include' && !(served.includes('certificate') && served.includes('key'))
    return isBare ? [outputs.indexOf(first)] : []
  })
}

/** A set that an output is to be part of is that of a directory above it, and the same for all in its own directory. */
function setTroubles({ directory, oneSetWith }: Output<never>, earlier: readonly Output<never>[]): string[] {
  const mates = earlier.filter((mate) => mate.directory === directory)
  if (mates.some((mate) => mate.oneSetWith !== oneSetWith))
    return [`differs from that of another output in ${directory}`]
  if (oneSetWith === undefined || mates.length > 0) return []
  const homes = earlier.filter((one) => one.oneSetWith === undefined).map((one) => one.directory)
  if (homes.includes(oneSetWith)) return []
  return [
    `names ${oneSetWith}, which is no directory of an output above with a set of its own; there are: ${[...new Set(homes)].join(', ') || 'none'}`,
  ]
}

/** Outputs that share a directory are one set: one layout, and no file twice. */
function withinDirectory(output: Output<never>, earlier: readonly Output<never>[]): { key: string; message: string }[] {
  const mates = earlier.filter((mate) => mate.directory === output.directory)
  const twice = output.names.find((name) => mates.some((mate) => mate.names.includes(name)))
  const layout = mates.find((mate) => mate.layout !== output.layout)?.layout
  return [
    ...(twice === undefined
      ? []
      : [{ key: 'directory', message: `another output writes ${output.directory}/${twice} already` }]),
    ...(layout === undefined
      ? []
      : [{ key: 'layout', message: `differs from the layout "${layout}" of another output in ${output.directory}` }]),
    ...(mates.every((mate) => mate.seenAs === output.seenAs)
      ? []
      : [{ key: 'seenAs', message: `differs from that of another output in ${output.directory}` }]),
  ]
}

/** Directories one within the other: a set takes away what it finds foreign in its directory. Each is looked up by its ancestors, not compared with all. */
function createNesting() {
  const known = new Set<string>()
  /** By each directory that has known ones below: the first of these. */
  const below = new Map<string, string>()
  return {
    nearest: (directory: string): string | undefined =>
      below.get(directory) ?? ancestorsOf(directory).find((ancestor) => known.has(ancestor)),
    add: (directory: string): void => {
      if (known.has(directory)) return
      known.add(directory)
      for (const ancestor of ancestorsOf(directory)) if (!below.has(ancestor)) below.set(ancestor, directory)
    },
  }
}

/** `/a/b/c` → `/a/b`, `/a`, `/`. */
function ancestorsOf(directory: string): string[] {
  const parent = dirname(directory)
  return parent === directory ? [] : [parent, ...ancestorsOf(parent)]
}

function isWithin(path: string, directory: string): boolean {
  const way = relative(directory, path)
  return way === '' || (way !== '..' && !way.startsWith('../') && !isAbsolute(way))
}
