import type { TestVault } from '../test/support/vault.ts'
import type { buildDist } from '../tools/build.ts'
import type { Contender } from './contenders.ts'

/** A line of the target table: what is measured for it, and what came of it. */
export interface Row {
  /** As `--only` takes it. */
  readonly name: string
  readonly title: string
  run(bench: Bench): Promise<Findings>
}

export interface Findings {
  readonly figures: readonly Figure[]
  /** What stands behind the figures: tables of their own, below the one table. */
  readonly details?: readonly Detail[]
  /** What a reader has to know to take the figures for what they are. */
  readonly notes?: readonly string[]
}

export interface Figure {
  readonly title: string
  readonly unit: string
  readonly digits: number
  /** All runs, by the name of who was measured: a contender, or a floor such as a bare Node. */
  readonly values: Values
  readonly targets: readonly Target[]
}

export type Values = Readonly<Record<string, readonly number[]>>

/** certferry's median is at most `times` × the median of `of`, plus `plus`. */
export interface Target {
  readonly of?: string
  readonly times?: number
  readonly plus?: number
  /** Wished for, not promised. */
  readonly isStretch?: boolean
}

export interface Detail {
  readonly title: string
  readonly head: readonly string[]
  readonly lines: readonly (readonly string[])[]
}

/** What all rows share. */
export interface Bench {
  /** Those that are here; certferry is the first. */
  readonly contenders: readonly Contender[]
  readonly server: TestVault
  /** A token that may use the role in both ways, and the role. */
  readonly vault: { readonly address: string; readonly token: string }
  readonly role: string
  /** The bundle as it is published. */
  readonly dist: string
  readonly chunks: Awaited<ReturnType<typeof buildDist>>
  readonly compileCache: string
  /** Where certificates are written. */
  readonly volumeIn: string
  readonly size: Size
  readonly progress: (text: string) => void
}

/** How much is measured. */
export interface Size {
  /** Interleaved rounds, after one that warms up. */
  readonly rounds: number
  readonly manyRounds: number
  readonly many: number
  readonly rotations: number
  /** Without work, before memory is read. */
  readonly settleMs: number
  readonly idleMinutes: number
  /** Certificates of the fleet; 0 leaves it out. */
  readonly fleet: number
}

export const MEGABYTE = 1e6
