import type { Subject } from './subject.ts'

/** What is disturbed. Within one group the faults of a sidecar come one after another, those of different groups overlap. */
export const GROUPS = ['vault', 'disk', 'clock', 'target', 'certferry'] as const
export type Group = (typeof GROUPS)[number]

/** Numbers in [0, 1) that depend on the seed alone. */
export type Dice = () => number

/** Takes the fault away again; what certferry is to mend by itself is left to it. */
export type Undo = () => void | Promise<void>

/** One way to disturb a sidecar. */
export interface ChaosFault {
  readonly kind: string
  readonly group: Group
  /** Least and most time from its beginning to its end. */
  readonly seconds: readonly [number, number]
  begin(subject: Subject, dice: Dice): Promise<Undo>
}

export const NOTHING_TO_UNDO: Undo = () => {}

export const between = (dice: Dice, least: number, most: number): number => least + dice() * (most - least)

export function oneOf<T>(dice: Dice, items: readonly [T, ...T[]]): T {
  return items[Math.floor(dice() * items.length)] ?? items[0]
}
