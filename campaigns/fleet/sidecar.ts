import type { Ledger } from './ledger.ts'
import type { VaultModel } from './vault-model.ts'

/** What all sidecars of a simulated fleet share. */
export interface World {
  /** Virtual, ms since the first one started. */
  readonly clock: { now(): number; elapsed(): number }
  readonly random: () => number
  /** Names the run: what is drawn by hash differs between seeds as well. */
  readonly seed: number
  readonly lifeMs: number
  readonly vault: Pick<VaultModel, 'receive'>
  readonly ledger: Ledger
}

/** One sidecar with one certificate. Both calls give when it wants to be woken next. */
export interface Sidecar {
  /** It starts, something is due, or an answer has come. */
  wake(): number | Promise<number>
  /** A person asks for a new certificate. */
  tell(): number | Promise<number>
}

/** When a program renews, and what it does after a failure. */
export interface Rule {
  readonly name: string
  /** The rule in words, for tables and plots. */
  readonly words: string
  /** Share of the lifetime after which the first certificates of a fleet become due. */
  readonly firstDue: number
  create(index: number, world: World): Sidecar
}
