import { randomFrom } from '../kill-run.ts'
import { between, type ChaosFault, type Dice, GROUPS, type Group } from './fault.ts'

/** A fault with its time, drawn beforehand. */
export interface PlannedFault {
  readonly kind: string
  readonly group: Group
  /** Which sidecar it hits; undefined for the Vault of all. */
  readonly subject: number | undefined
  /** Since the beginning of the storm. */
  readonly startMs: number
  readonly endMs: number
  /** Decides everything else about it. */
  readonly seed: number
}

/** A storm of faults that overlap; then all of them are over, everything has to come back by itself, and stays calm for a while. */
export interface Round {
  readonly stormMs: number
  readonly calmMs: number
  readonly faults: readonly PlannedFault[]
}

/** The kinds to draw from. */
export type Kinds = readonly Pick<ChaosFault, 'kind' | 'group' | 'seconds'>[]

export interface PlanOptions {
  readonly seed: number
  readonly sidecars: number
  readonly stormSeconds: number
  /** What may happen to one sidecar. */
  readonly kinds: Kinds
  /** What may happen to the Vault of all. */
  readonly wholeVault: Kinds
}

/** The n-th round: it depends on the options alone, not on what happened before. */
export function drawRound(options: PlanOptions, round: number): Round {
  const dice = randomFrom(options.seed + round * 7919)
  const stormMs = between(dice, 0.6, 1) * options.stormSeconds * 1000
  const subjects = Array.from({ length: options.sidecars }, (_, subject) => subject)
  const faults = subjects.flatMap((subject) =>
    someGroups(dice).flatMap((group) =>
      row(
        dice,
        options.kinds.filter((kind) => kind.group === group),
        { stormMs, subject },
      ),
    ),
  )
  const hitsAll = dice() < 0.5 ? row(dice, options.wholeVault, { stormMs, subject: undefined }).slice(0, 1) : []
  return {
    stormMs,
    calmMs: between(dice, 0.2, 0.8) * options.stormSeconds * 1000,
    faults: [...faults, ...hitsAll].toSorted((a, b) => a.startMs - b.startMs),
  }
}

/** Three to five of the five; the clock seldom, since little can be told of what is issued while it is wrong. */
function someGroups(dice: Dice): Group[] {
  const shuffled = GROUPS.map((group) => ({ group, rank: dice() })).toSorted((a, b) => a.rank - b.rank)
  const isClockSpared = dice() < 0.6
  return shuffled
    .slice(0, Math.floor(between(dice, 3, 6)))
    .map(({ group }) => group)
    .filter((group) => group !== 'clock' || !isClockSpared)
}

/** At most four faults of one group, one after another. */
function row(
  dice: Dice,
  kinds: Kinds,
  { stormMs, subject }: { stormMs: number; subject: number | undefined },
): PlannedFault[] {
  const faults: PlannedFault[] = []
  let startMs = dice() * stormMs * 0.3
  while (faults.length < 4 && startMs < stormMs) {
    const kind = kinds[Math.floor(dice() * kinds.length)]
    if (!kind) return faults
    const [least, most] = kind.seconds
    const endMs = Math.min(startMs + between(dice, least, most) * 1000, stormMs)
    const seed = Math.floor(dice() * 2 ** 31)
    faults.push({ kind: kind.kind, group: kind.group, subject, startMs, endMs, seed })
    startMs = endMs + between(dice, 0.5, 6) * 1000
  }
  return faults
}
