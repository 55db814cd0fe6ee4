import { lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { loadedAtStart, OWN_CODE, sharesOf, timesToLoad } from '../packages.ts'
import { type Detail, MEGABYTE, type Row, type Values } from '../row.ts'
import { OWN, summaryOf } from '../table.ts'

/** Packages that take less are listed together. */
const WORTH_A_LINE = 0.01

export const ships: Row = {
  name: 'ships',
  title: 'what ships, and what each package costs at start',
  run: async (bench) => {
    const [own] = bench.contenders
    if (!own) throw new Error('certferry is absent')
    const loaded = await loadedAtStart(own, bench)
    const times = await timesToLoad(bench.size.rounds, bench.progress)
    const cache = bytesIn(bench.compileCache)
    const node = lstatSync(process.execPath).size
    const parts = { dist: bytesIn(bench.dist), 'compile cache': cache }
    const programs = bench.contenders.map(({ name, program }) => [name, lstatSync(program).size] as const)
    const megabytes = (bytes: number) => [bytes / MEGABYTE]
    return {
      figures: [
        {
          title: 'what ships beyond Node: dist/ and its compile cache',
          unit: 'MB',
          digits: 2,
          values: { [OWN]: megabytes(parts.dist + cache) },
          targets: [{ plus: 6 }],
        },
        {
          title: 'the same with Node; the programs of the others',
          unit: 'MB',
          digits: 0,
          values: {
            ...Object.fromEntries(programs.map(([name, size]) => [name, megabytes(size)])),
            [OWN]: megabytes(node + parts.dist + cache),
          },
          targets: [],
        },
      ],
      details: [packageTable(sharesOf(bench.chunks, loaded), times), partsTable(parts)],
      notes: [
        'A package counts as loaded at start by the bytes it has in files of the bundle that a certferry with one certificate has loaded when its first set is on disk. To load alone is the whole package in a bundle of its own, with a warm compile cache, beyond a bare Node in the same rounds: more than what of it is in the bundle.',
      ],
    }
  },
}

/** Of all files below a folder, or 0 where there is none. */
const bytesIn = (folder: string): number =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((all, { parentPath, name }) => all + lstatSync(join(parentPath, name)).size, 0)

function packageTable(shares: ReturnType<typeof sharesOf>, times: Values): Detail {
  const total = shares.reduce((all, { bytes }) => all + bytes, 0)
  const bare = summaryOf(times['bare node'] ?? []).median
  const isWorthIt = ({ name, bytes }: { name: string; bytes: number }) =>
    bytes > total * WORTH_A_LINE || name in times || name === OWN_CODE
  const rest = shares.filter((share) => !isWorthIt(share))
  const unused = Object.keys(times).filter(
    (name) => name !== 'bare node' && !shares.some((share) => share.name === name),
  )
  const line = (name: string, bytes: number, startBytes: number) => {
    const own = times[name]
    const ms = own ? (summaryOf(own).median - bare).toFixed(1) : ''
    return [
      name,
      kilobytes(bytes),
      startBytes === 0 ? 'no' : startBytes > 0.99 * bytes ? 'yes' : `${kilobytes(startBytes)} kB`,
      ms,
    ]
  }
  return {
    title: `Packages in the bundle; a bare Node takes ${bare.toFixed(0)} ms`,
    head: ['package', 'kB in the bundle', 'loaded at start', 'ms to load alone'],
    lines: [
      ...shares.filter(isWorthIt).map(({ name, bytes, startBytes }) => line(name, bytes, startBytes)),
      ...unused.map((name) => line(name, 0, 0)),
      line(`${rest.length} others`, sumOf(rest, 'bytes'), sumOf(rest, 'startBytes')),
      line('all', total, sumOf(shares, 'startBytes')),
    ],
  }
}

const sumOf = (shares: ReturnType<typeof sharesOf>, part: 'bytes' | 'startBytes') =>
  shares.reduce((all, share) => all + share[part], 0)

const partsTable = (parts: Readonly<Record<string, number>>): Detail => ({
  title: 'What ships',
  head: ['part', 'kB'],
  lines: Object.entries(parts).map(([name, bytes]) => [name, kilobytes(bytes)]),
})

const kilobytes = (bytes: number) => (bytes / 1000).toFixed(0)
