import type { Clock } from '../clock.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import { definer } from '../registry.ts'

/** What a reload command may know about the set: names for its environment (`CERTFERRY_*`). No secret is among them. */
export interface ReloadContext {
  /** Names of the certificates of this batch. */
  readonly certificates: readonly string[]
  readonly serial: string
  readonly fingerprint: string
  readonly notAfter: number
  readonly lifetimeMs: number
  /** No other set than this one was in place, told or proven before: a target that starts, starts with it. */
  readonly isFirst: boolean
  /** The directories written to. */
  readonly directories: readonly string[]
}

/** How the target is told. */
export interface Reloader {
  readonly kind: string
  /** For people: `SIGHUP to nginx (pid file /run/nginx.pid)`. */
  readonly description: string
  /** True where the target may read a copy that an output makes elsewhere: it is told once that is there. */
  readonly readsCopies?: boolean
  /** What would be told right now, for `plan` and `doctor`: resolves with a sentence, throws what `reload` would. Tells nothing. */
  inspect(): Promise<string>
  /** For people: the target's own configuration test, where one is configured. */
  readonly testCommand: string | undefined
  /** The target's own configuration test, where one is configured: throws TARGET_CONFIG_BROKEN. Runs before files become visible. */
  test(context: ReloadContext, signal: AbortSignal): Promise<void>
  /**
   * Tells the target once. Safe to repeat. Throws RELOAD_TARGET_MISSING (not there: tried again later), RELOAD_WRONG_PROCESS, RELOAD_EPERM,
   * RELOAD_TIMEOUT, RELOAD_DEFERRED, RELOAD_BLOCKED, KUBERNETES_*, or RELOAD_FAILED when the target itself refused.
   */
  reload(context: ReloadContext, signal: AbortSignal): Promise<void>
}

export interface ReloaderDeps {
  readonly clock: Clock
  /** Variables of this process; commands inherit only PATH, LANG, LC_ALL and TZ of them. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Throws CONFIG_INVALID outside a cluster. */
  readonly kubernetes: () => Kubernetes
}

export const defineReloader = definer<ReloaderDeps, Reloader>()
