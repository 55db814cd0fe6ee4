import { certferry } from './certferry-rule.ts'
import { certManager, consulTemplate } from './peer-rules.ts'
import { type Rates, ratesOf } from './rates.ts'
import type { Rule } from './sidecar.ts'
import { type Plan, type Run, simulate } from './simulate.ts'
import type { OutageKind } from './vault-model.ts'

export const MINUTE_MS = 60_000
export const HOUR_MS = 60 * MINUTE_MS

/** What is the same in all scenarios. */
export type Fleet = Pick<Plan, 'sidecars' | 'lifeMs' | 'startWithinMs' | 'vault' | 'seed'>

export const RULES: readonly Rule[] = [certferry(), consulTemplate, certManager]

/** Ways to spread a fleet that starts at once. The last one is a question, not an option. */
export const SPREADS: readonly Rule[] = [
  certferry({ name: 'default: after 1/2, jitter 0.1' }),
  certferry({ name: 'jitter 0.2', jitter: 0.2 }),
  certferry({ name: 'jitter 0.3', jitter: 0.3 }),
  certferry({ name: 'after 0.6, jitter 0.3', after: 0.6, jitter: 0.3 }),
  certferry({ name: 'first one 0.45, then 0.1', firstJitter: 0.45 }),
]

/** The peak that a fleet may have in steady state, by its mean. */
export const TARGET_RATIO = 1.3

/** Rates are counted in windows of this part of a lifetime: ten minutes, where that is a day. */
const WINDOWS = 144

export interface Steady {
  readonly run: Run
  /** Each lifetime after the start, by itself. */
  readonly lifetimes: readonly Rates[]
  /** Three lifetimes from a fortieth of one after the start on, and the last three; by the mean of all. */
  readonly early: Rates
  readonly settled: Rates
  /** The last three again, in windows of a minute. */
  readonly settledByMinute: Rates
  /** The first lifetime (0 is that of the start) whose peak is within the target. */
  readonly evenFrom: number | undefined
}

/** Several lifetimes in peace. */
export async function liveInPeace(rule: Rule, fleet: Fleet, lifetimes: number): Promise<Steady> {
  const { lifeMs } = fleet
  const run = await simulate(rule, { ...fleet, lastsMs: lifetimes * lifeMs })
  const windowMs = windowOf(lifeMs)
  const afterStart = lifeMs / 40
  const all = { from: afterStart, to: lifetimes * lifeMs }
  const of = (from: number, to: number, window = windowMs) => ratesOf(run.asked, { from, to }, window, all)
  const each = Array.from({ length: lifetimes }, (_, life) =>
    of(Math.max(life * lifeMs, afterStart), (life + 1) * lifeMs),
  )
  const last = [Math.max((lifetimes - 3) * lifeMs, afterStart), lifetimes * lifeMs] as const
  const evenFrom = each.findIndex(({ ratio }) => ratio <= TARGET_RATIO)
  return {
    run,
    lifetimes: each,
    early: of(afterStart, afterStart + 3 * lifeMs),
    settled: of(...last),
    settledByMinute: of(...last, MINUTE_MS),
    evenFrom: evenFrom < 0 ? undefined : evenFrom,
  }
}

export const windowOf = (lifeMs: number) => Math.max(Math.round(lifeMs / WINDOWS / 1000), 1) * 1000

export interface Disturbed {
  readonly run: Run
  /** The outage, or the time in which everybody is told. */
  readonly from: number
  readonly to: number
  /** Tries a minute in the worst minute of it. */
  readonly triesPerMinute: number
  /** Requests in the busiest second after it, and in the busiest minute. */
  readonly busiestSecond: number
  readonly busiestMinute: number
  /** From its end to the last sidecar that had failed and is well again; 0 when none failed, infinite when one is not. */
  readonly recoveryMs: number
}

/**
 * Vault goes at the worst moment: when the first certificate of the first wave comes due, so that as many as possible find it away and those
 * that have least time left afterwards are among them.
 */
export async function sitOut(rule: Rule, fleet: Fleet, outage: { ms: number; kind: OutageKind }): Promise<Disturbed> {
  const from = Math.round(rule.firstDue * fleet.lifeMs)
  const to = from + outage.ms
  const vault = { ...fleet.vault, outage: { from, to, kind: outage.kind } }
  const run = await simulate(rule, { ...fleet, vault, lastsMs: to + fleet.lifeMs / 3 })
  return disturbed(run, from, to)
}

/** All are told to get a new certificate, as after a change of the issuer, a quarter of a lifetime after the start, when none is due. */
export async function reissueAll(rule: Rule, fleet: Fleet, withinMs: number): Promise<Disturbed> {
  const from = Math.round(fleet.lifeMs / 4)
  const run = await simulate(rule, { ...fleet, told: { from, withinMs }, lastsMs: from + fleet.lifeMs / 3 })
  return { ...disturbed(run, from, from + withinMs), ...busiest(run, from) }
}

function disturbed(run: Run, from: number, to: number): Disturbed {
  const recoveredAt = run.account.recoveredAt ?? to
  return {
    run,
    from,
    to,
    triesPerMinute: peakOf(run, from, to, MINUTE_MS),
    ...busiest(run, to),
    recoveryMs: Math.max(recoveredAt - to, 0),
  }
}

const busiest = (run: Run, from: number) => ({
  busiestSecond: peakOf(run, from, endOf(run), 1000),
  busiestMinute: peakOf(run, from, endOf(run), MINUTE_MS),
})

/** Requests in the busiest window. A window that begins before, or ends after, counts as far as it reaches in. */
function peakOf({ asked }: Run, from: number, to: number, windowMs: number): number {
  let peak = 0
  for (let at = Math.floor(from / 1000); at < to / 1000; at += windowMs / 1000)
    peak = Math.max(
      peak,
      asked.subarray(at, Math.min(at + windowMs / 1000, Math.ceil(to / 1000))).reduce((sum, count) => sum + count, 0),
    )
  return peak
}

const endOf = ({ asked }: Run) => (asked.length - 1) * 1000
