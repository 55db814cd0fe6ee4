import type { LogLine } from '../test/support/certferry.ts'
import { median } from './soak-slope.ts'
import type { Sighting } from './watchers.ts'

/** Renewals within one part of the run. */
export interface Part {
  readonly renewals: number
  /** From one certificate to the next, as a share of the lifetime: mean and its standard error. By what clients were shown. */
  readonly ratio: number
  readonly error: number
  /** From the time that was due to the start of the rotation, by the log, ms. */
  readonly lateMs: { readonly median: number; readonly worst: number }
}

export interface Renewals {
  readonly first: Part
  readonly last: Part
  /** All of the run: the least and the greatest ratio. */
  readonly least: number
  readonly greatest: number
  /** Renewals left out, because a try for them failed: Vault was away. */
  readonly disturbed: number
}

export interface Observations {
  readonly sightings: readonly Sighting[]
  readonly log: readonly LogLine[]
  readonly lifetimeMs: number
  /** Ms since 1970. */
  readonly from: number
  readonly to: number
}

/** Whether the times between renewals stay what they were: the first third of the run beside the last. */
export function renewalsIn({ sightings, log, lifetimeMs, from, to }: Observations): Renewals {
  const inTime = ({ at }: { at: number }) => at >= from && at <= to
  const { calm, disturbed } = intervals(sightings, failures(log), lifetimeMs)
  const kept = calm.filter(inTime)
  const late = lateness(log).filter(inTime)
  const third = (to - from) / 3
  const part = (isIn: (at: number) => boolean) =>
    partOf(
      kept.filter(({ at }) => isIn(at)),
      late.filter(({ at }) => isIn(at)),
    )
  const ratios = kept.map(({ ratio }) => ratio)
  return {
    first: part((at) => at < from + third),
    last: part((at) => at >= to - third),
    least: Math.min(...ratios),
    greatest: Math.max(...ratios),
    disturbed: disturbed.filter(inTime).length,
  }
}

interface Interval {
  readonly at: number
  readonly ratio: number
}

/** Vault backdates by this much. */
const BACKDATED_MS = 30_000

/** Times of issue come from the certificates themselves, as clients were shown them, to a second. */
function intervals(
  sightings: readonly Sighting[],
  failed: ReadonlyMap<string, readonly number[]>,
  lifetimeMs: number,
): { calm: Interval[]; disturbed: Interval[] } {
  const all = [...Map.groupBy(sightings, ({ serverName }) => serverName)].flatMap(([serverName, seen]) => {
    const issued = seen.map(({ notBefore }) => notBefore + BACKDATED_MS).sort((a, b) => a - b)
    const troubles = failed.get(serverName.split('.')[0] ?? '') ?? []
    return issued.slice(1).map((at, index) => {
      const before = issued[index] ?? at
      const isCalm = !troubles.some((trouble) => trouble > before && trouble < at + 1_000)
      return { at, ratio: (at - before) / lifetimeMs, isCalm }
    })
  })
  return { calm: all.filter(({ isCalm }) => isCalm), disturbed: all.filter(({ isCalm }) => !isCalm) }
}

function failures(log: readonly LogLine[]): ReadonlyMap<string, readonly number[]> {
  const lines = log.filter(({ event }) => event === 'rotation.failed')
  const groups = Map.groupBy(lines, ({ certificate }) => String(certificate))
  return new Map([...groups].map(([name, group]) => [name, group.map(({ time }) => Date.parse(time))]))
}

/** Of rotations that were due, how long after the announced time they began. */
function lateness(log: readonly LogLine[]): { at: number; lateMs: number }[] {
  const due = new Map<string, number>()
  return log.flatMap(({ event, certificate, why, renewAt, time }) => {
    const name = String(certificate)
    const announced = due.get(name)
    if (event === 'rotation.finished') due.set(name, Date.parse(String(renewAt)))
    if (event !== 'rotation.started' || why !== 'due' || announced === undefined) return []
    // Only the first try was due at that time.
    due.delete(name)
    return [{ at: Date.parse(time), lateMs: Date.parse(time) - announced }]
  })
}

function partOf(kept: readonly Interval[], late: readonly { lateMs: number }[]): Part {
  const ratios = kept.map(({ ratio }) => ratio)
  const ratio = mean(ratios)
  const variance = mean(ratios.map((one) => (one - ratio) ** 2))
  const lateMs = late.map(({ lateMs: ms }) => ms)
  return {
    renewals: ratios.length,
    ratio,
    error: Math.sqrt(variance / Math.max(ratios.length - 1, 1)),
    lateMs: { median: median(lateMs), worst: Math.max(0, ...lateMs) },
  }
}

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1)
