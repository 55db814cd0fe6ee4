import { phase } from '../../src/core/state.ts'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { createWorld, T0, type World } from './harness.ts'

export const MINUTE = 60_000
export const HOUR = 60 * MINUTE
export const DAY = 24 * HOUR

export interface YearOptions {
  readonly lifeMs: number
  readonly days: number
  /** Decides every disturbance. */
  readonly random: () => number
  /** Every sleep ends this much late: fewer rounds in a year. */
  readonly lateMs: number
}

/** What a year with all its disturbances came to. */
export interface Year {
  readonly issued: number
  /** As many as the rule asks for, and those that stepped clocks may cost. */
  readonly mostIssued: number
  readonly troubles: Readonly<Record<string, number>>
  /** Undisturbed times between two renewals, as a share of half a life. */
  readonly intervals: { readonly count: number; readonly least: number; readonly most: number }
  /** The most in one day. */
  readonly turns: number
  readonly sleeps: number
  /** Certificates that expired in service, none of them while it could have been helped. */
  readonly expired: number
  /** Sleeps under way at the end, and after the stop. */
  readonly sleeping: readonly [number, number]
  /** Everything that is not as promised. */
  readonly complaints: readonly string[]
}

/** The real loop through a year of stepped clocks, suspends, outages and restarts, on a fake clock. All times are those of a clock that nobody steps. */
export async function liveThrough({ lifeMs, days, random, lateMs }: YearOptions): Promise<Year> {
  const world = createWorld({ lifeMs, random, lateMs })
  const { clock } = world
  const served = watchTarget(world)
  const complaints: string[] = []
  const disturbances = createDisturbances(world, random)
  const most = { turns: 0, sleeps: 0 }
  const end = T0 + days * DAY
  world.start()
  for (let day = T0 + DAY; clock.truth() < end; day += DAY) {
    const [turns, sleeps] = [world.turns, clock.sleeps]
    await disturbances.passUntil(day, () => {
      world.events.length = 0
      complaints.push(...disturbances.lookAt(world))
    })
    const lasted = Math.max((clock.truth() - day + DAY) / DAY, 1)
    most.turns = Math.max(most.turns, (world.turns - turns) / lasted)
    most.sleeps = Math.max(most.sleeps, (clock.sleeps - sleeps) / lasted)
    day = Math.max(day, clock.truth())
  }
  const sleeping = clock.sleeping
  await world.stop()

  const bad = disturbances.bad()
  const expiries = served().filter(({ notAfter, until }) => until > notAfter)
  for (const { id, notAfter } of expiries) {
    const good = longestGap(bad, notAfter - lifeMs / 2, notAfter)
    // Ten minutes; where answers were lost, the longest that the budget then holds back; and what late sleeps of tick and backoff add.
    const isLost = bad.some(({ from, to, costs }) => costs && to > notAfter - lifeMs && from < notAfter)
    if (good >= 10 * MINUTE + (isLost ? (lifeMs * 4) / 15 : 0) + 3 * lateMs)
      complaints.push(
        `${id} expired at ${iso(notAfter)} in service, after ${Math.round(good / MINUTE)} good minutes in a row`,
      )
  }
  const issuedAt = world.issued.map(({ notBefore }) => notBefore + 30_000)
  complaints.push(...overBudget(issuedAt, lifeMs, bad))
  const intervals = issuedAt
    .slice(1)
    .map((at, index) => ({ from: issuedAt[index] ?? at, at }))
    .filter(
      ({ from, at }) =>
        !disturbances.instants.some((moment) => moment >= from && moment <= at) &&
        longestGap(bad, from, at) === at - from,
    )
    .map(({ from, at }) => (at - from) / (lifeMs / 2))
  return {
    issued: issuedAt.length,
    mostIssued: Math.ceil((days * DAY) / (lifeMs / 2)) + disturbances.mayCost(lifeMs),
    troubles: disturbances.counts,
    intervals: { count: intervals.length, least: Math.min(...intervals), most: Math.max(...intervals) },
    ...most,
    expired: expiries.length,
    sleeping: [sleeping, clock.sleeping],
    complaints,
  }
}

/** What clients are shown, and until when. */
function watchTarget(world: World) {
  const shown: { id: string; from: number }[] = []
  let current: string | undefined
  world.target = {
    up: true,
    refuses: () => false,
    get serves() {
      return current
    },
    set serves(id) {
      if (id !== undefined && id !== current) shown.push({ id, from: world.clock.truth() })
      current = id
    },
  }
  return () =>
    shown.map(({ id }, index) => ({
      id,
      notAfter: world.issued.find(({ fingerprint }) => fingerprint === id)?.notAfter ?? 0,
      until: shown[index + 1]?.from ?? world.clock.truth(),
    }))
}

/** A trouble that comes again and again: how long between two, how long it lasts, both drawn evenly on a logarithmic scale. */
interface Kind {
  readonly name: string
  readonly every: readonly [least: number, most: number]
  readonly lasts: readonly [least: number, most: number]
  /** Gives what ends it. */
  begin(world: World, draw: Draw): () => void | Promise<void>
}

interface Draw {
  between(least: number, most: number): number
  pick<T>(items: readonly T[]): T | undefined
  readonly lasts: number
}

const OUTAGES: readonly ErrorCode[] = [
  'VAULT_UNREACHABLE',
  'VAULT_SEALED',
  'VAULT_5XX',
  'VAULT_TIMEOUT',
  'BAD_RESPONSE',
]

const LOST: ReadonlySet<ErrorCode> = new Set(['VAULT_TIMEOUT', 'BAD_RESPONSE'])

const KINDS: readonly Kind[] = [
  {
    name: 'outages of Vault',
    every: [6 * HOUR, 3 * DAY],
    lasts: [5 * MINUTE, 6 * HOUR],
    begin: ({ fail }, { pick }) => {
      const code = pick(OUTAGES) ?? 'VAULT_5XX'
      fail.fetch = new SidecarError(code, 'the year', { mayHaveIssued: LOST.has(code) })
      return () => {
        fail.fetch = undefined
      }
    },
  },
  {
    name: 'full disks',
    every: [DAY, 10 * DAY],
    lasts: [5 * MINUTE, 3 * HOUR],
    begin: ({ fail }) => {
      fail.write = new SidecarError('DISK_FULL', 'the year')
      return () => {
        fail.write = undefined
      }
    },
  },
  {
    name: 'targets down',
    every: [DAY, 10 * DAY],
    lasts: [MINUTE, 2 * HOUR],
    begin: ({ target, disk }) => {
      target.up = false
      return () => {
        target.up = true
        target.serves = disk.current?.fingerprint
      }
    },
  },
  {
    name: 'refusals',
    every: [2 * DAY, 20 * DAY],
    lasts: [5 * MINUTE, HOUR],
    begin: ({ target }) => {
      const { serves } = target
      target.refuses = (id) => id !== serves
      return () => {
        target.refuses = () => false
      }
    },
  },
  {
    name: 'stepped clocks',
    every: [DAY, 10 * DAY],
    lasts: [MINUTE, 12 * HOUR],
    begin: ({ clock }, { between, pick }) => {
      const offset = between(MINUTE, 3 * DAY) * (pick([1, -1]) ?? 1)
      clock.step(offset)
      return () => clock.step(-offset)
    },
  },
  {
    name: 'suspends',
    every: [DAY, 7 * DAY],
    lasts: [0, 0],
    begin: ({ clock }, { between }) => {
      clock.suspend(between(MINUTE, 20 * HOUR))
      return () => {}
    },
  },
  {
    name: 'restarts',
    every: [6 * HOUR, 5 * DAY],
    lasts: [0, 0],
    begin: (world) => async () => {
      await world.stop()
      world.start()
    },
  },
]

interface Span {
  readonly from: number
  readonly to: number
  /** Requests count as issued while it lasts, since no answer says otherwise. */
  readonly costs: boolean
}

/** Each kind on its own, so that all of them may meet. */
function createDisturbances(world: World, random: () => number) {
  const { clock } = world
  const between = (least: number, most: number) => (least <= 0 ? 0 : Math.round(least * (most / least) ** random()))
  const pick = <T>(items: readonly T[]) => items[Math.floor(random() * items.length)]
  const spans: (Span & { readonly name: string })[] = []
  const counts: Record<string, number> = {}
  const actions = KINDS.map((kind) => ({
    kind,
    at: T0 + between(...kind.every),
    from: 0,
    finish: undefined as Finish | undefined,
  }))

  const hasCost = () => world.fail.fetch?.mayHaveIssued ?? false

  async function passUntil(moment: number, look: () => void): Promise<void> {
    for (;;) {
      const next = actions.reduce((first, one) => (one.at < first.at ? one : first))
      const pause = Math.min(next.at, moment) - clock.truth()
      if (pause > 0) await clock.advance(pause)
      look()
      if (next.at > moment) return
      const { kind, finish } = next
      if (finish) {
        const costs = hasCost()
        await finish()
        spans.push({ name: kind.name, from: next.from, to: clock.truth(), costs })
        Object.assign(next, { finish: undefined, at: clock.truth() + between(...kind.every) })
      } else {
        const lasts = between(...kind.lasts)
        next.from = clock.truth()
        counts[kind.name] = (counts[kind.name] ?? 0) + 1
        next.finish = kind.begin(world, { between, pick, lasts })
        next.at = clock.truth() + lasts
      }
    }
  }

  return {
    passUntil,
    counts,
    /** When something happened that takes no time. */
    get instants() {
      return spans.filter(({ name }) => name === 'restarts').map(({ from }) => from)
    },
    /** Those under way included. */
    bad: (): Span[] => [
      ...spans.filter(({ name }) => name !== 'restarts'),
      ...actions.filter(({ finish }) => finish).map(({ from }) => ({ from, to: clock.truth(), costs: hasCost() })),
    ],
    /** What must hold at any moment. */
    lookAt: ({ report }: World): string[] => {
      const { state } = report()
      const isRight = clock.now() === clock.truth()
      const found = phase(state, clock.now())
      const left = (state.serving?.notAfter ?? 0) - clock.truth()
      if (isRight && (found === 'EXPIRED') !== (left <= 0 && state.serving !== undefined))
        return [`${found} at ${iso(clock.truth())}, with ${left} ms to live`]
      return []
    },
    /** A wrong clock makes a certificate look old, or a new one be taken for an old one: as many as the budget lets through, twice, since it cannot know either. */
    mayCost: (lifeMs: number) =>
      spans
        .filter(({ name }) => name === 'stepped clocks')
        .reduce((sum, { from, to }) => sum + 10 * Math.ceil((to - from) / (lifeMs / 3)), 0),
  }
}

type Finish = () => void | Promise<void>

/** More than five in a third of a life, where no clock was stepped: the budget is counted by the wall clock. */
function overBudget(issuedAt: readonly number[], lifeMs: number, bad: readonly Span[]): string[] {
  return issuedAt.flatMap((at, index) => {
    const sixth = issuedAt[index + 5]
    if (sixth === undefined || sixth - at >= lifeMs / 3) return []
    const isStepped = bad.some(({ from, to }) => from <= sixth && to >= at)
    return isStepped ? [] : [`six certificates within ${Math.round((sixth - at) / MINUTE)} minutes at ${iso(at)}`]
  })
}

/** The longest time between `from` and `to` that no span touches. */
function longestGap(spans: readonly Span[], from: number, to: number): number {
  let longest = 0
  let clear = from
  for (const span of spans.filter((one) => one.to > from && one.from < to).toSorted((a, b) => a.from - b.from)) {
    longest = Math.max(longest, span.from - clear)
    clear = Math.max(clear, span.to)
  }
  return Math.max(longest, to - clear)
}

const iso = (moment: number) => new Date(moment).toISOString()
