/** A measurement, and when it was taken, ms on any clock that never steps. */
export interface Point {
  readonly at: number
  readonly value: number
}

/** How fast a series grows. */
export interface Slope {
  readonly perHour: number
  /** Bounds of the 95 % confidence interval of `perHour`. */
  readonly low: number
  readonly high: number
  readonly points: number
}

const HOUR_MS = 3_600_000
/** The 97.5 % quantile of the normal distribution. */
const Z = 1.96

/**
 * The slope by Theil and Sen: the median of the slopes between all pairs of points, which a single outlier does not move. The interval is
 * that of Sen (1968): the ranks that lie as far from the middle as Kendall's S may by chance.
 */
export function slopeOf(points: readonly Point[]): Slope {
  const slopes = pairSlopes(points)
  const { length: n } = points
  const spread = Z * Math.sqrt((n * (n - 1) * (2 * n + 5)) / 18)
  const at = (rank: number) => slopes[Math.min(Math.max(Math.round(rank), 0), slopes.length - 1)] ?? 0
  const middle = (slopes.length - 1) / 2
  return {
    perHour: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    low: at(middle - spread / 2),
    high: at(middle + spread / 2),
    points: n,
  }
}

/** Per hour, ascending. */
function pairSlopes(points: readonly Point[]): Float64Array {
  const slopes: number[] = []
  for (const [index, a] of points.entries())
    for (const b of points.slice(index + 1))
      if (b.at !== a.at) slopes.push(((b.value - a.value) / (b.at - a.at)) * HOUR_MS)
  return Float64Array.from(slopes).sort()
}

/** The lowest point of each stretch of time: between two collections memory only grows, so what counts is what is left after one. */
export function troughs(points: readonly Point[], everyMs: number): Point[] {
  const start = points[0]?.at ?? 0
  const groups = Map.groupBy(points, ({ at }) => Math.floor((at - start) / everyMs))
  return [...groups.values()].map((group) =>
    group.reduce((least, point) => (point.value < least.value ? point : least)),
  )
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return ((sorted[(sorted.length - 1) >> 1] ?? 0) + (sorted[sorted.length >> 1] ?? 0)) / 2
}
