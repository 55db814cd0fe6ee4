import type { Layout } from '../src/outputs/output.ts'
import { readPair } from '../test/support/volume.ts'

export interface KillPlan {
  readonly kills: number
  /** Decides every moment: the same seed gives the same delays. */
  readonly seed: number
  readonly onKill?: () => void
}

/** What a row of kills came to. */
export interface KillRun {
  readonly subject: string
  readonly seed: number
  readonly kills: number
  /** What a reader found after the kill, before the next start: the set from before, the new one, or a torn file, or certificate and key of different ones. */
  readonly old: number
  readonly new: number
  readonly mixed: number
  /** How many kills left something half-done on disk for the next start to deal with; undefined where that cannot be told. */
  readonly halfDone: number | undefined
  /** Mixed still after the next start had done what it does. */
  readonly mixedLater: number
  readonly issued: number
  /** Issued although nobody asked for it; undefined for a program that cannot be asked. */
  readonly extra: number | undefined
  /** Everything that is not as promised. */
  readonly complaints: readonly string[]
}

const STEP = 1.25

/**
 * A kill in a rotation comes at a random moment of this many ms after the request for the certificate has passed on its way to Vault. It
 * adapts to the program and to the load of the machine, so that about half of the kills come before the new files are in place.
 */
export function createWindow() {
  let ms = 120
  return {
    get ms() {
      return ms
    },
    learn: (isTooEarly: boolean) => {
      ms = Math.min(Math.max(ms * (isTooEarly ? STEP : 1 / STEP), 4), 4_000)
    },
  }
}

/** Numbers in [0, 1) that depend on the seed alone (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Fingerprint of the pair that a reader of this layout finds; undefined when certificate and key do not match. */
export function pairIn(directory: string, layout: Layout): string | undefined {
  try {
    return readPair(directory, layout)
  } catch {
    return undefined
  }
}
