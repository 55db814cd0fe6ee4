import type { Bundle, Instant } from '../core/bundle.ts'
import type { FileSet } from './output.ts'

/** What must survive a restart; kept 0600 beside the files of the first directory. */
export interface Memory {
  /** Random, made once: the jitter of renewals is drawn from it. */
  readonly seed: string
  /** When certificates were asked for, newest last: the issue budget. */
  readonly issuedAt: readonly Instant[]
  /** Fingerprint that the target was last told about (reload succeeded). */
  readonly told: string | undefined
  /** Last set proven to be served. */
  readonly verified: { readonly fingerprint: string; readonly at: Instant } | undefined
  /** Fingerprints that the target refused; never rolled forward on their own. */
  readonly rejected: readonly string[]
}

/** What a store holds after recovery. */
export interface Held {
  /** The bundle whose files are in place. */
  readonly current: Bundle | undefined
  /** Complete and newer, fetched earlier but refused by the target: tried again before anything is issued. */
  readonly pending: Bundle | undefined
}

/** What `apply` did. */
export interface Change {
  /** False when the same set was in place already, and nothing was touched. */
  readonly changed: boolean
  /** The last verified bundle, to which `undo` can go back; undefined where there is none, or it is this one. */
  readonly previous: Bundle | undefined
}

/** A file that was not as we left it, and was put right. */
export interface Repair {
  readonly path: string
  /** `missing`, `content`, `mode`, `owner`, `type` or `links`. */
  readonly what: string
}

/**
 * The files of one certificate in all its directories: all or none, unchanged is a no-op, undo restores.
 * Not for concurrent use: one loop owns a store. Errors: LOCK_HELD, VOLUME_*, DISK_FULL, WRITE_FAILED, FOREIGN_OBJECT.
 */
export interface Store extends AsyncDisposable {
  /** Takes the locks, pins the directories, finishes or clears what a crash left. First call; after an error it may be called again. */
  open(): Promise<Held>
  /** The bundle whose files are in place now. */
  readonly current: Bundle | undefined
  readonly memory: Memory
  remember(change: Partial<Memory>): Promise<void>
  /** Would `apply` work now? Space, inodes, a probe file. Called before Vault is asked. */
  preflight(): Promise<void>
  /** Writes the set. `beforeCommit` sees the complete, not yet visible generation directories, and may veto by throwing; it is skipped on an unchanged set. */
  apply(set: FileSet, beforeCommit?: (directories: readonly string[]) => Promise<void>): Promise<Change>
  /** The set now in place is proven: it becomes the one to go back to. */
  settle(now: Instant): Promise<void>
  /** Puts the last verified set back in place and remembers the present one as rejected. Deletes nothing that it could not restore. */
  undo(): Promise<void>
  /** Compares what is on disk with what was written and restores what differs. */
  repair(): Promise<readonly Repair[]>
}
