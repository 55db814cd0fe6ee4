import type { Instant } from '../core/bundle.ts'
import { nextRun } from '../core/renewal.ts'

/** When the command may be told of a change. */
export interface ChangeWindow {
  /** It opens at each run, and stays open for `durationMs`. */
  readonly cron: string
  readonly timezone?: string | undefined
  readonly durationMs: number
}

export interface PauseOptions {
  /** At most this long beyond what the window asks, so that a fleet does not restart at once. */
  readonly splayMs: number
  readonly window?: ChangeWindow | undefined
  readonly now: Instant
  /** In [0, 1), drawn once for a change: asked again later with the same number, the moment stays the same as long as the window is shut. */
  readonly random: number
}

/** How long to wait, in ms, before the command is told of a change that is there now; undefined when its window never opens again. Throws as `nextRun`. */
export function pauseFor({ splayMs, window, now, random }: PauseOptions): number | undefined {
  if (!window) return Math.floor(random * splayMs)
  const opensAt = nextRun(window.cron, window.timezone, now - window.durationMs)
  if (opensAt === undefined) return undefined
  const from = Math.max(opensAt, now)
  const room = Math.min(splayMs, shutsAt(window, opensAt, from + splayMs) - from)
  return from - now + Math.floor(random * room)
}

/** The end of a window, as far as `enough`: a run while it is open keeps it open. */
function shutsAt({ cron, timezone, durationMs }: ChangeWindow, opensAt: Instant, enough: Instant): Instant {
  for (let run = opensAt; ; ) {
    const end = run + durationMs
    const next = end < enough ? nextRun(cron, timezone, run) : undefined
    if (next === undefined || next > end) return end
    run = next
  }
}
