import type { Bundle, Instant } from '../core/bundle.ts'
import { SidecarError } from '../errors.ts'
import { type DirectoryOptions, type DirectoryStore, openDirectory, type Prepared } from './directory-store.ts'
import { freshMemory, readMemory, writeMemory } from './memory.ts'
import { type FileSet, type Output, render, visibleNames, wipeKeys } from './output.ts'

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
  /** Fingerprints that must not come back into service (compromise); no rollback goes to them. */
  readonly condemned: readonly string[]
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
  /** `missing`, `content`, `mode`, `owner`, `type` or `links`; `stale` for a name of an earlier set that was removed. */
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
  /**
   * Writes the set, and overwrites its buffers that hold a key with zeros, however it ends. `beforeCommit` sees the complete, not yet visible generation directories, and may veto by throwing; it is skipped on an unchanged set.
   * A vetoed set stays on disk, remembered as rejected, for another try. After an error `apply` may be called again with the same bundle.
   */
  apply(set: FileSet, beforeCommit?: (directories: readonly string[]) => Promise<void>): Promise<Change>
  /** The set now in place is proven: it becomes the one to go back to. */
  settle(now: Instant): Promise<void>
  /** Puts the last verified set back in place and remembers the present one as rejected. Deletes nothing that it could not restore. Does nothing where `previous` is undefined. */
  undo(): Promise<void>
  /** Compares what is on disk with what was written and restores what differs. */
  repair(): Promise<readonly Repair[]>
}

export interface StoreOptions {
  /** Name of the certificate, for the manifest and messages. */
  readonly certificate: string
  /** At least one. The directory of the first one is primary: it keeps the state. */
  readonly outputs: readonly Output[]
  readonly now: () => Instant
  /** How long a generation that nothing names any more is kept for slow readers, ms; ten minutes unless given. */
  readonly keepMs?: number
}

const KEEP_MS = 600_000

export function createStore({ certificate, outputs, now, keepMs = KEEP_MS }: StoreOptions): Store {
  let directories: readonly DirectoryStore[] = []
  let memory = freshMemory()

  const primary = () => {
    const [first] = directories
    if (!first) throw new SidecarError('BUG', `the store of ${certificate} is not open`)
    return first
  }
  const current = () => directories.find((directory) => directory.current)?.current?.bundle
  const previous = () => {
    const bundle = directories[0]?.previous?.bundle
    const present = current()?.fingerprint
    return present === memory.verified?.fingerprint || present === bundle?.fingerprint ? undefined : bundle
  }
  const remember = async (change: Partial<Memory>) => {
    memory = { ...memory, ...change }
    await writeMemory(primary().root, memory)
  }
  const reject = (fingerprint: string) =>
    remember({ rejected: [...memory.rejected.filter((one) => one !== fingerprint), fingerprint] })
  const close = async () => {
    const closing = directories.toReversed()
    directories = []
    for (const directory of closing) await directory[Symbol.asyncDispose]()
  }

  const open = async () => {
    await close()
    try {
      for (const options of directoriesOf({ certificate, outputs, now, keepMs }))
        directories = [...directories, await openDirectory(options)]
      memory = (await firstMemory(directories)) ?? memory
      for (const directory of directories) await directory.recover(memory)
    } catch (error) {
      await close()
      throw error
    }
    const pending = directories.map((directory) => directory.pending(memory)).find((generation) => generation)
    return { current: current(), pending: pending?.bundle }
  }

  const apply = async (set: FileSet, beforeCommit?: (directories: readonly string[]) => Promise<void>) => {
    const prepared = await prepareAll(directories, set)
    if (prepared.length === 0) return { changed: false, previous: previous() }
    try {
      await beforeCommit?.(prepared.map(({ path }) => path))
    } catch (veto) {
      await discardAll(prepared)
      await reject(set.bundle.fingerprint).catch(() => {})
      throw veto
    }
    for (const { commit } of prepared) await commit(memory)
    return { changed: true, previous: previous() }
  }

  return {
    open,
    get current() {
      return current()
    },
    get memory() {
      return memory
    },
    remember,
    preflight: async () => {
      primary()
      for (const directory of directories) await directory.preflight(memory)
    },
    apply: (set, beforeCommit) =>
      apply(set, beforeCommit).finally(() => wipeKeys(set.directories.flatMap(({ files }) => files))),
    settle: async (at) => {
      const fingerprint = current()?.fingerprint
      if (fingerprint === undefined) return
      await remember({
        verified: { fingerprint, at },
        rejected: memory.rejected.filter((one) => one !== fingerprint),
      })
    },
    undo: async () => {
      const back = previous()
      const refused = current()
      if (!back || !refused) return
      // On record before the swap: a stop in between must not roll forward to it again. A full disk must not keep us from going back.
      await reject(refused.fingerprint).catch(() => {})
      for (const directory of directories) await directory.goBack(back, memory)
    },
    repair: async () => {
      const repairs: Repair[] = []
      for (const directory of directories) repairs.push(...(await directory.repair(memory)))
      return repairs
    },
    [Symbol.asyncDispose]: close,
  }
}

/** One store per directory, in the order of the config. */
function directoriesOf({ certificate, outputs, now, keepMs = KEEP_MS }: StoreOptions): DirectoryOptions[] {
  return [...Map.groupBy(outputs, ({ directory }) => directory)].map(([path, group]) => ({
    path,
    certificate,
    mode: group.some(({ isShared }) => isShared) ? 0o711 : 0o700,
    names: visibleNames(
      group[0]?.layout ?? 'generation',
      group.flatMap(({ names }) => names),
    ),
    render: (bundle) => {
      const [set] = render(group, bundle).directories
      if (!set) throw new SidecarError('BUG', `no output renders to ${path}`)
      return set
    },
    now,
    keepMs,
  }))
}

/** Usually that of the first directory; where the config put another one first, it is found where it was. */
async function firstMemory(directories: readonly DirectoryStore[]): Promise<Memory | undefined> {
  for (const { root } of directories) {
    const memory = await readMemory(root)
    if (memory) return memory
  }
  return undefined
}

async function prepareAll(directories: readonly DirectoryStore[], set: FileSet): Promise<Prepared[]> {
  const prepared: Prepared[] = []
  try {
    for (const part of set.directories) {
      const directory = directories.find(({ root }) => root.path === part.directory)
      if (!directory) throw new SidecarError('BUG', `${part.directory} is not open in this store`)
      const ready = await directory.prepare(part, set.bundle)
      if (ready) prepared.push(ready)
    }
    return prepared
  } catch (error) {
    await discardAll(prepared)
    throw error
  }
}

async function discardAll(prepared: readonly Prepared[]): Promise<void> {
  // What is left is cleared before the next write; the reason why we stopped matters more.
  for (const { discard } of prepared) await discard().catch(() => {})
}
