/** Requests a minute, counted in windows of one length that begin at multiples of it. */
export interface Rates {
  readonly windowMs: number
  readonly peak: number
  readonly mean: number
  /** Peak by mean. */
  readonly ratio: number
  /** What the ratio would be by chance alone, with every request at a random moment: the median of that. */
  readonly ratioByChance: number
}

export interface Span {
  readonly from: number
  readonly to: number
}

/** Of the whole windows in `span`; the mean is that of the whole windows in `all`, where rules with few waves have them all. */
export function ratesOf(asked: Uint32Array, span: Span, windowMs: number, all = span): Rates {
  const counts = countsOf(asked, span, windowMs)
  const mean = meanOf(all === span ? counts : countsOf(asked, all, windowMs))
  const peak = Math.max(...counts)
  const perMinute = 60_000 / windowMs
  return {
    windowMs,
    peak: peak * perMinute,
    mean: mean * perMinute,
    ratio: peak / mean,
    ratioByChance: busiestByChance(mean, counts.length) / mean,
  }
}

const meanOf = (counts: readonly number[]) => counts.reduce((sum, count) => sum + count, 0) / counts.length

/** How many requests fell into each whole window between two moments. */
export function countsOf(asked: Uint32Array, { from, to }: Span, windowMs: number): number[] {
  const seconds = windowMs / 1000
  const first = Math.ceil(from / windowMs)
  const windows = Math.max(Math.floor(to / windowMs) - first, 0)
  return Array.from({ length: windows }, (_, index) =>
    asked.subarray((first + index) * seconds, (first + index + 1) * seconds).reduce((sum, count) => sum + count, 0),
  )
}

/** The least number that the busiest of so many windows does not exceed in half of all cases, where the counts are Poisson's. */
export function busiestByChance(mean: number, windows: number): number {
  const wanted = 0.5 ** (1 / windows)
  let chance = 0
  for (let count = 0; ; count++) {
    chance += Math.exp(count * Math.log(mean) - mean - logFactorial(count))
    if (chance >= wanted || count > mean * 10 + 100) return count
  }
}

const factorials = [0]

function logFactorial(count: number): number {
  for (let next = factorials.length; next <= count; next++)
    factorials.push((factorials[next - 1] ?? 0) + Math.log(next))
  return factorials[count] ?? 0
}
