import type { Sample } from './soak-sample.ts'
import { median, type Slope, slopeOf, troughs } from './soak-slope.ts'

/** How one series went, and whether that is flat. */
export interface Growth {
  readonly name: string
  readonly unit: 'MiB' | ''
  /** Medians of the first and the last tenth, in `unit`. */
  readonly first: number
  readonly last: number
  /** In `unit`. */
  readonly slope: Slope
  /** The upper bound of the slope, for each rotation: bytes, or pieces. */
  readonly mostPerRotation: number
  readonly isFlat: boolean
}

const MINUTE_MS = 60_000
const MIB = 2 ** 20

/**
 * Flat is a series of which growth is not proven, as its interval reaches down to zero or its slope stays below `perHour`; and which,
 * by the upper end of its interval, grows by less than `perRotation`, so that a wide interval does not pass for flat.
 */
const LIMITS = {
  memory: { perHour: 1, perRotation: 4_096 / MIB },
  pieces: { perHour: 1, perRotation: 0.01 },
  /** A generation has nine, and comes and goes as a whole. */
  entries: { perHour: 9, perRotation: 0.1 },
}

/** The slopes of all series, of memory by the troughs of each minute. */
export function growthOf(samples: readonly Sample[], rotationsPerHour: number): Growth[] {
  const names = Object.keys(samples[0]?.series ?? {})
  return names.map((name) => {
    const isMemory = /memory|heap/.test(name)
    const unit = isMemory ? MIB : 1
    const points = samples.map(({ at, series }) => ({ at, value: (series[name] ?? Number.NaN) / unit }))
    const slope = slopeOf(isMemory ? troughs(points, MINUTE_MS) : points)
    const { perHour, perRotation } = LIMITS[isMemory ? 'memory' : name.startsWith('entries') ? 'entries' : 'pieces']
    const mostPerRotation = slope.high / rotationsPerHour
    const tenth = Math.ceil(points.length / 10)
    const medianOf = (part: typeof points) => median(part.map(({ value }) => value))
    return {
      name,
      unit: isMemory ? 'MiB' : '',
      first: medianOf(points.slice(0, tenth)),
      last: medianOf(points.slice(-tenth)),
      slope,
      mostPerRotation: mostPerRotation * unit,
      isFlat: (slope.low <= 0 || slope.perHour <= perHour) && mostPerRotation <= perRotation,
    }
  })
}
