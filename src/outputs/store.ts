import type { Bundle, Instant } from '../core/bundle.ts'
import { SidecarError } from '../errors.ts'
import { directoriesOf, discardAll, prepareAll } from './directories.ts'
import { type DirectoryStore, openDirectory } from './directory-store.ts'
import { freshMemory, readMemory, writeMemory } from './memory.ts'
import { type FileSet, type Output, wipeKeys } from './output.ts'

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
 * The files of one certificate in all its directories: in each all or none, unchanged is a no-op, undo restores.
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

/** Each directory is a set of its own (`directory-store.ts`): whole at any moment, whatever becomes of the others. */
export function createStore(options: StoreOptions): Store {
  const state: State = { options, directories: [], memory: freshMemory() }
  return {
    open: () => open(state),
    get current() {
      return currentOf(state)
    },
    get memory() {
      return state.memory
    },
    remember: (change) => remember(state, change),
    preflight: async () => {
      primaryOf(state)
      for (const directory of state.directories) await directory.preflight(state.memory)
    },
    apply: (set, beforeCommit) =>
      apply(state, set, beforeCommit).finally(() => wipeKeys(set.directories.flatMap(({ files }) => files))),
    settle: (now) => settle(state, now),
    undo: () => undo(state),
    repair: async () => {
      const repairs: Repair[] = []
      for (const directory of state.directories) repairs.push(...(await directory.repair(state.memory)))
      return repairs
    },
    [Symbol.asyncDispose]: () => close(state),
  }
}

interface State {
  readonly options: StoreOptions
  /** Those that are open, in the order of the config. */
  directories: readonly DirectoryStore[]
  memory: Memory
}

async function open(state: State): Promise<Held> {
  await close(state)
  try {
    for (const options of directoriesOf(state.options))
      state.directories = [...state.directories, await openDirectory(options)]
    state.memory = (await firstMemory(state.directories)) ?? state.memory
    for (const directory of state.directories) await directory.recover(state.memory)
  } catch (error) {
    await close(state)
    throw error
  }
  const pending = state.directories.map((directory) => directory.pending(state.memory)).find((one) => one)
  return { current: currentOf(state), pending: pending?.bundle }
}

async function close(state: State): Promise<void> {
  const closing = state.directories.toReversed()
  state.directories = []
  for (const directory of closing) await directory[Symbol.asyncDispose]()
}

async function apply(
  state: State,
  set: FileSet,
  beforeCommit?: (directories: readonly string[]) => Promise<void>,
): Promise<Change> {
  const prepared = await prepareAll(state.directories, set)
  if (prepared.length === 0) return { changed: false, previous: previousOf(state) }
  try {
    await beforeCommit?.(prepared.map(({ path }) => path))
  } catch (veto) {
    await discardAll(prepared)
    await reject(state, set.bundle).catch(() => {})
    throw veto
  }
  for (const { commit } of prepared) await commit(state.memory)
  return { changed: true, previous: previousOf(state) }
}

async function settle(state: State, now: Instant): Promise<void> {
  const fingerprint = currentOf(state)?.fingerprint
  if (fingerprint === undefined) return
  const rejected = state.memory.rejected.filter((one) => one !== fingerprint)
  await remember(state, { verified: { fingerprint, at: now }, rejected })
}

async function undo(state: State): Promise<void> {
  const [back, refused] = [previousOf(state), currentOf(state)]
  if (!back || !refused) return
  // On record before the swap: a stop in between must not roll forward to it again. But a full disk must not keep us from going back.
  await reject(state, refused).catch(() => {})
  const results = await Promise.allSettled(state.directories.map((one) => one.goBack(back, state.memory)))
  for (const result of results) if (result.status === 'rejected') throw result.reason
}

const reject = (state: State, { fingerprint }: Bundle) =>
  remember(state, { rejected: [...state.memory.rejected.filter((one) => one !== fingerprint), fingerprint] })

/** In memory first: what cannot be written now is written with the next change. */
async function remember(state: State, change: Partial<Memory>): Promise<void> {
  state.memory = { ...state.memory, ...change }
  await writeMemory(primaryOf(state).root, state.memory)
}

function primaryOf({ directories, options }: State): DirectoryStore {
  const [first] = directories
  if (!first) throw new SidecarError('BUG', `the store of ${options.certificate} is not open`)
  return first
}

const currentOf = ({ directories }: State): Bundle | undefined =>
  directories.find(({ current }) => current)?.current?.bundle

function previousOf(state: State): Bundle | undefined {
  const bundle = state.directories[0]?.previous?.bundle
  const present = currentOf(state)?.fingerprint
  return present === state.memory.verified?.fingerprint || present === bundle?.fingerprint ? undefined : bundle
}

/** Usually that of the first directory; where the config put another one first, it is found where it was. */
async function firstMemory(directories: readonly DirectoryStore[]): Promise<Memory | undefined> {
  for (const { root } of directories) {
    const memory = await readMemory(root)
    if (memory) return memory
  }
  return undefined
}
