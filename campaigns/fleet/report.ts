import type { Disturbed, Steady } from './scenarios.ts'
import { HOUR_MS, MINUTE_MS, TARGET_RATIO } from './scenarios.ts'
import type { Rule } from './sidecar.ts'

export function steadyTable(steady: readonly Steady[]): string {
  return table(
    [
      'rule',
      'requests a minute, mean',
      'peak, first three lifetimes',
      'peak / mean',
      'peak, last three',
      'peak / mean',
      'by chance alone',
      `within ${TARGET_RATIO} from lifetime`,
      'expired',
    ],
    steady.map(({ run, early, settled, evenFrom }) => [
      run.rule.name,
      digits(settled.mean),
      digits(early.peak),
      ratio(early.ratio),
      digits(settled.peak),
      ratio(settled.ratio),
      ratio(settled.ratioByChance),
      evenFrom === undefined ? 'never' : String(evenFrom + 1),
      String(run.account.expired),
    ]),
  )
}

export function spreadTable(spreads: readonly Steady[]): string {
  const shown = [1, 2, 3, 4, 6, 8, 12, 16, 20]
  const longest = Math.max(...spreads.map(({ lifetimes }) => lifetimes.length))
  const lives = shown.filter((life) => life <= longest)
  return table(
    ['peak / mean in lifetime', ...lives.map(String), 'requests a minute', 'left at the latest renewal'],
    spreads.map(({ run, lifetimes, settled }) => [
      run.rule.name,
      ...lives.map((life) => ratioOf(lifetimes[life - 1]?.ratio)),
      digits(settled.mean),
      left(run.rule),
    ]),
  )
}

const left = ({ words }: Rule) => `${100 - Number.parseFloat(words)} %`

export function outageTable(outages: readonly Disturbed[], signsPerSecond: number): string {
  return table(
    [
      'Vault away for',
      'rule',
      'sidecars that failed',
      'tries a minute, at most',
      'busiest second after it',
      'of what Vault can do',
      'given up after it',
      'expired',
      'hours out of date, all together',
      'all well again after',
    ],
    outages.map(({ run, from, to, triesPerMinute, busiestSecond, recoveryMs }) => [
      duration(to - from),
      run.rule.name,
      digits(run.account.failed),
      digits(triesPerMinute),
      digits(busiestSecond),
      percent(busiestSecond / signsPerSecond),
      digits(run.account.givenUp),
      digits(run.account.expired),
      digits(run.account.expiredSeconds / 3600),
      duration(recoveryMs),
    ]),
  )
}

export function reissueTable(reissues: readonly Disturbed[], signsPerSecond: number): string {
  return table(
    [
      'told within',
      'rule',
      'busiest second',
      'of what Vault can do',
      'given up',
      'sidecars that failed',
      'expired',
      'all done after',
    ],
    reissues.map(({ run, from, to, busiestSecond, recoveryMs }) => [
      duration(to - from),
      run.rule.name,
      digits(busiestSecond),
      percent(busiestSecond / signsPerSecond),
      digits(run.account.givenUp),
      digits(run.account.failed),
      digits(run.account.expired),
      duration(to - from + recoveryMs),
    ]),
  )
}

export interface Verdict {
  readonly target: string
  readonly result: string
}

/** What was aimed at, and what came out. */
export function judge(steady: Steady, afterAnHour: Disturbed | undefined, signsPerSecond: number): Verdict[] {
  const { settled, settledByMinute, early, evenFrom, lifetimes } = steady
  const even =
    evenFrom === undefined
      ? `never within the target in ${lifetimes.length}`
      : `within it from lifetime ${evenFrom + 1} on`
  const window = `windows of ${duration(settled.windowMs)}`
  return [
    {
      target: `steady state: peak at most ${TARGET_RATIO} × mean`,
      result: `${ratio(settled.ratio)} in the last three of ${lifetimes.length} lifetimes, ${window} (chance alone: ${ratio(settled.ratioByChance)}); ${ratio(settledByMinute.ratio)} in windows of a minute (chance alone: ${ratio(settledByMinute.ratioByChance)})`,
    },
    {
      target: `the same, after all started within a minute`,
      result: `${ratio(early.ratio)} in the first three lifetimes, ${even}`,
    },
    ...(afterAnHour ? judgeOutage(afterAnHour, signsPerSecond) : []),
  ]
}

function judgeOutage({ run, busiestSecond, recoveryMs }: Disturbed, signsPerSecond: number): Verdict[] {
  return [
    { target: 'an hour without Vault: no expiry', result: `${run.account.expired} expired` },
    {
      target: 'and no second overload',
      result: `${run.account.givenUp} requests given up, busiest second ${busiestSecond} (${percent(busiestSecond / signsPerSecond)} of what Vault can do), all well after ${duration(recoveryMs)}`,
    },
  ]
}

export const verdictTable = (found: readonly Verdict[]): string =>
  table(
    ['target', 'result'],
    found.map(({ target, result }) => [target, result]),
  )

export function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(titles), line(titles.map(() => '---')), ...rows.map(line)].join('\n')
}

export const digits = (value: number): string =>
  value.toLocaleString('en-US', { maximumFractionDigits: value < 100 && !Number.isInteger(value) ? 1 : 0 })
export const ratio = (value: number): string => (value < 100 ? value.toFixed(2) : value.toFixed(0))
const ratioOf = (value: number | undefined) => (value === undefined ? '–' : ratio(value))
const percent = (share: number) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`

export function duration(ms: number): string {
  if (!Number.isFinite(ms)) return 'not yet'
  if (ms > 0 && ms % HOUR_MS === 0) return `${ms / HOUR_MS} h`
  if (ms < 2 * MINUTE_MS) return `${Math.round(ms / 100) / 10} s`
  const [value, unit] = ms < 2 * HOUR_MS ? [ms / MINUTE_MS, 'min'] : [ms / HOUR_MS, 'h']
  return `${value.toFixed(Number.isInteger(value) ? 0 : 1)} ${unit}`
}
