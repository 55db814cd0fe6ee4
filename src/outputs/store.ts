import type { Bundle } from '../core/bundle.ts'
import type { Content, Instant } from '../core/content.ts'
import type { Outdated } from '../core/outdated.ts'
import type { FileSet, Output } from './output.ts'

/** What must survive a restart; kept 0600 beside the files of the first directory. */
export interface Memory {
  /** Random, made once: the jitter of renewals is drawn from it. */
  readonly seed: string
  /** When certificates were asked for, newest last: the issue budget. */
  readonly issuedAt: readonly Instant[]
  /** Fingerprint that the target was last told about (reload succeeded). */
  readonly told: string | undefined
  /** Last set proven to be served, and since when. */
  readonly verified: { readonly fingerprint: string; readonly at: Instant } | undefined
  /** Fingerprints that the target refused; never rolled forward on their own. */
  readonly rejected: readonly string[]
  /** Fingerprints that must not come back into service (compromise); no rollback goes to them. */
  readonly condemned: readonly string[]
  /** Replaced, and to be revoked yet. */
  readonly toRevoke?: readonly Outdated[]
}

/** What a store holds after recovery. */
export interface Held<C extends Content = Bundle> {
  /** The bundle whose files are in place. */
  readonly current: C | undefined
  /** Complete and newer, fetched earlier but refused by the target: tried again before anything is issued. */
  readonly pending: C | undefined
}

/** The form in which a generation keeps its content, from which a restart goes on whatever the outputs are. */
export interface Codec<C extends Content> {
  /** Name of the file. */
  readonly file: string
  /** The caller overwrites it after use. */
  encode(content: C): Buffer
  /** Throws anything on what it does not understand. The caller overwrites `bytes`. */
  decode(bytes: Buffer, facts: Omit<Content, 'fingerprint' | 'serial'> & { readonly fingerprint: string }): C
}

/** What `apply` did. */
export interface Change<C extends Content = Bundle> {
  /** False when the same set was in place already, and nothing was touched. */
  readonly changed: boolean
  /** The last verified bundle, to which `undo` can go back; undefined where there is none, or it is this one. */
  readonly previous: C | undefined
}

/** A file that was not as we left it, and was put right. */
export interface Repair {
  readonly path: string
  /** `missing`, `content`, `mode`, `owner`, `acl`, `type` or `links`; `stale` for a name of an earlier set that was removed. */
  readonly what: string
}

/**
 * The files of one certificate in all its directories: in each all or none, unchanged is a no-op, undo restores.
 * Not for concurrent use: one loop owns a store. Errors: LOCK_HELD, VOLUME_*, DISK_FULL, WRITE_FAILED, FOREIGN_OBJECT.
 */
export interface Store<C extends Content = Bundle> extends AsyncDisposable {
  /** Takes the locks, pins the directories, finishes or clears what a crash left. First call; after an error it may be called again. */
  open(): Promise<Held<C>>
  /** The bundle whose files are in place now. */
  readonly current: C | undefined
  readonly memory: Memory
  remember(change: Partial<Memory>): Promise<void>
  /** Would `apply` work now? Space, inodes, a probe file. Called before Vault is asked. */
  preflight(): Promise<void>
  /**
   * Writes the set, and overwrites its buffers that hold a key with zeros, however it ends. `beforeCommit` sees the complete, not yet visible generation directories, and may veto by throwing; it is skipped on an unchanged set.
   * A vetoed set stays on disk, remembered as rejected, for another try. After an error `apply` may be called again with the same bundle.
   */
  apply(set: FileSet<C>, beforeCommit?: (directories: readonly string[]) => Promise<void>): Promise<Change<C>>
  /** The set now in place is proven: it becomes the one to go back to. When that was proven before, it is so since then. */
  settle(now: Instant): Promise<void>
  /** Puts the last verified set back in place and remembers the present one as rejected. Deletes nothing that it could not restore. Does nothing where `previous` is undefined. */
  undo(): Promise<void>
  /** Compares what is on disk with what was written and restores what differs. */
  repair(): Promise<readonly Repair[]>
}

export interface StoreOptions<C extends Content = Bundle> {
  /** Name of the certificate, for the manifest and messages. */
  readonly certificate: string
  /** At least one. The directory of the first one is primary: it keeps the state. */
  readonly outputs: readonly Output<C>[]
  readonly now: () => Instant
  /** How long a generation that nothing names any more is kept for slow readers, ms: ten minutes unless given, but no longer than its certificate lives. */
  readonly keepMs?: number
}
