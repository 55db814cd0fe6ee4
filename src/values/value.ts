import type { Clock } from '../clock.ts'
import type { Finding } from '../core/finding.ts'
import type { Reading } from '../core/snapshot.ts'
import { definer } from '../registry.ts'
import type { Vault } from '../vault/client.ts'

/** Where one value of a secret comes from. */
export interface ValueSource {
  /** What is read where, such as `vault-kv https://vault:8200 secret team/api`; a change of it makes what is on disk due. */
  readonly origin: string
  /** True where a read may make something new (credentials, a signed certificate): it counts against the issue budget. */
  readonly issues: boolean
  /** Fails fast with a SidecarError that names the path: the loop retries, a source does not. */
  read(signal: AbortSignal): Promise<Reading>
  /** How long after a read, or a look that found nothing new, the next look is due, ms. */
  afterMs(reading: Reading): number
  /**
   * Looks whether `reading` is still good. Resolves with it, or with the same prolonged; with a new one where somebody else made one; with
   * undefined where `read` has to make a new one. Throws as `read` does.
   */
  look(reading: Reading, signal: AbortSignal): Promise<Reading | undefined>
  /** What would keep `read` from working, found out without making anything. */
  examine(signal: AbortSignal): Promise<Finding>
  /** Where what was replaced is given back: how long after its successor is in service, ms. */
  readonly overlapMs?: number | undefined
  /** Gives it back. */
  discard?(reading: Reading, signal: AbortSignal): Promise<void>
}

export interface ValueDeps {
  /** The connection of that name, or the one that has none. Throws CONFIG_INVALID when the config has no such. */
  readonly vault: (name: string | undefined) => Vault
  readonly clock: Pick<Clock, 'now' | 'elapsed' | 'random'>
}

export const defineValue = definer<ValueDeps, ValueSource>()
