import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Contender } from '../contenders.ts'
import { launch } from '../launch.ts'
import { descriptorsOf, memoryOf, mostDescriptors, spent, usageOf } from '../proc.ts'
import { inRounds, valuesOf } from '../rounds.ts'
import type { Bench, Detail, Row, Values } from '../row.ts'
import { DUE, timeOfTick } from '../scheduler-tick.ts'
import { openVault } from '../stand.ts'
import { OWN } from '../table.ts'

/** In this time every file is looked at once (src/inspection.ts). */
const ROUND_SECONDS = 60
/** A contender that has not delivered the fleet by then is given up. */
const LIMIT_MS = 15 * 60_000
const LONGEST_TROUBLE = 300
const KILOBYTE = 1000
const MANY_WAITING = 100_000
const FEW_WAITING = 'few waiting'

/** In memory, as the volumes of most pods are: ten thousand directories on a disk would measure the disk. */
const VOLUME = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()

/** So many certificates of one process, delivered and left alone. */
interface Steady {
  readonly certificates: number
  readonly deliveredSeconds: number
  readonly anonymousBytes: number
  readonly descriptors: number
  /** While nothing is due but a look at every file. */
  readonly quietSeconds: number
  readonly quietCpuMs: number
}

export const fleet: Row = {
  name: 'fleet',
  title: 'ten thousand certificates of one process, and what a tick costs',
  run: async (bench) => {
    const tick = await ticks(bench)
    const total = bench.size.fleet
    if (total === 0) return { figures: [tick], notes: ['The fleet was left out.'] }
    const all = new Map<string, readonly Steady[]>()
    const troubles: string[] = []
    for (const contender of bench.contenders) {
      const counts = contender.name === OWN ? [1, Math.round(total / 10), total] : [1, total]
      const { seen, trouble } = await growth(contender, counts, bench)
      all.set(contender.name, seen)
      if (trouble !== undefined) troubles.push(`${trouble}.`)
    }
    const perCertificate = ([first, ...more]: readonly Steady[]) => {
      const last = more.at(-1)
      if (!first || last?.certificates !== total) return []
      return [(last.anonymousBytes - first.anonymousBytes) / (last.certificates - first.certificates) / KILOBYTE]
    }
    return {
      figures: [
        {
          title: `${total} certificates, steady: anonymous memory of each beyond the first`,
          unit: 'kB',
          digits: 1,
          values: figuresOf(all, perCertificate),
          targets: [{ plus: 12 }],
        },
        tick,
      ],
      details: [growthTable(all)],
      notes: [
        `The fleet is on ${VOLUME}, with a Vault of its own; memory is read after first delivery and ${ROUND_SECONDS} s of rest, in which nothing is due but one look of certferry at every file. A tick is one of the real scheduler on a fake clock, ${DUE} certificates due at each, with ${MANY_WAITING} waiting and with ${DUE}: its heap makes it grow by the logarithm. A process may have ${mostDescriptors()} files open here.`,
        ...troubles,
      ],
    }
  },
}

async function ticks({ size, progress }: Bench) {
  const results = await inRounds(
    [
      { name: OWN, measure: () => timeOfTick(MANY_WAITING) },
      { name: FEW_WAITING, measure: () => timeOfTick(DUE) },
    ],
    size.rounds,
    progress,
  )
  return {
    title: `a tick with ${DUE} due and ${MANY_WAITING} waiting`,
    unit: 'µs',
    digits: 0,
    values: valuesOf(results, (us) => us),
    targets: [{ of: FEW_WAITING, times: 3 }],
  }
}

/** One number of certificates after the other, up to the first that it does not manage. */
async function growth(contender: Contender, counts: readonly number[], bench: Bench) {
  const seen: Steady[] = []
  for (const certificates of counts) {
    bench.progress(`${contender.name} with ${certificates}`)
    try {
      seen.push(await steady(contender, certificates, bench))
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error)
      return {
        seen,
        trouble: `Given up with ${certificates} certificates, ${why.replaceAll(/\s+/g, ' ').slice(0, LONGEST_TROUBLE)}`,
      }
    }
  }
  return { seen, trouble: undefined }
}

async function steady(contender: Contender, certificates: number, bench: Bench): Promise<Steady> {
  await using vault = await openVault()
  await using running = await launch(contender, { ...bench, ...vault, volumeIn: VOLUME }, { certificates })
  const deliveredMs = await running.delivered(LIMIT_MS)
  await sleep(bench.size.settleMs)
  const before = usageOf(running.pid)
  await sleep(ROUND_SECONDS * 1000)
  const { seconds, cpuMs } = spent(before, usageOf(running.pid))
  return {
    certificates,
    deliveredSeconds: deliveredMs / 1000,
    anonymousBytes: memoryOf(running.pid).anonymousBytes,
    descriptors: descriptorsOf(running.pid),
    quietSeconds: seconds,
    quietCpuMs: cpuMs,
  }
}

const figuresOf = (
  all: ReadonlyMap<string, readonly Steady[]>,
  figure: (seen: readonly Steady[]) => readonly number[],
): Values =>
  Object.fromEntries(
    [...all].flatMap(([name, seen]) => {
      const values = figure(seen)
      return values.length > 0 ? [[name, values]] : []
    }),
  )

/** What processor time goes by: beyond that of one certificate, each look costs the same, however many there are. */
function growthTable(all: ReadonlyMap<string, readonly Steady[]>): Detail {
  const lines = [...all].flatMap(([name, seen]) =>
    seen.map(({ certificates, deliveredSeconds, anonymousBytes, descriptors, quietSeconds, quietCpuMs }) => {
      const base = seen[0]?.quietCpuMs ?? 0
      const each = (1000 * (quietCpuMs - base)) / Math.max(1, certificates - 1)
      return [
        name,
        String(certificates),
        deliveredSeconds.toFixed(2),
        (anonymousBytes / 1e6).toFixed(1),
        String(descriptors),
        (quietCpuMs / 10 / quietSeconds).toFixed(3),
        certificates === 1 ? '—' : each.toFixed(0),
      ]
    }),
  )
  const head = [
    'who',
    'certificates',
    'delivered, s',
    'anonymous, MB',
    'open files',
    'at rest, % of a core',
    'a minute for each more, µs',
  ]
  return { title: 'A growing fleet at rest', head, lines }
}
