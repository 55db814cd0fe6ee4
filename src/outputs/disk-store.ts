import type { Content, Instant } from '../core/content.ts'
import { SidecarError } from '../errors.ts'
import { bundleFile } from './bundle-file.ts'
import { directoriesOf, discardAll, prepareAll } from './directories.ts'
import { type DirectoryStore, openDirectory } from './directory-store.ts'
import { freshMemory, readMemory, writeMemory } from './memory.ts'
import { type FileSet, wipeKeys } from './output.ts'
import type { Change, Codec, Held, Memory, Repair, Store, StoreOptions } from './store.ts'

/** Each directory is a set of its own (`directory-store.ts`): whole at any moment, whatever becomes of the others. */
export const createStore = (options: StoreOptions): Store => createStoreOf(bundleFile, options)

/** The same for any content that `codec` can keep. */
export function createStoreOf<C extends Content>(codec: Codec<C>, options: StoreOptions<C>): Store<C> {
  const state: State<C> = { codec, options, directories: [], memory: freshMemory() }
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
      for (const output of options.outputs) await output.prepare?.()
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

interface State<C extends Content> {
  readonly codec: Codec<C>
  readonly options: StoreOptions<C>
  /** Those that are open, in the order of the config. */
  directories: readonly DirectoryStore<C>[]
  memory: Memory
}

async function open<C extends Content>(state: State<C>): Promise<Held<C>> {
  await close(state)
  for (const output of state.options.outputs) await output.prepare?.()
  try {
    for (const options of directoriesOf(state.codec, state.options))
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

async function close<C extends Content>(state: State<C>): Promise<void> {
  const closing = state.directories.toReversed()
  state.directories = []
  for (const directory of closing) await directory[Symbol.asyncDispose]()
}

async function apply<C extends Content>(
  state: State<C>,
  set: FileSet<C>,
  beforeCommit?: (directories: readonly string[]) => Promise<void>,
): Promise<Change<C>> {
  const prepared = await prepareAll(state.directories, set)
  if (prepared.length === 0) return { changed: false, previous: previousOf(state) }
  try {
    await beforeCommit?.(prepared.map(({ path }) => path))
  } catch (veto) {
    await discardAll(prepared)
    // A newer edition of what is in service says nothing against the certificate.
    if (set.bundle.fingerprint !== currentOf(state)?.fingerprint) await reject(state, set.bundle).catch(() => {})
    throw veto
  }
  for (const { commit } of prepared) await commit(state.memory)
  return { changed: true, previous: previousOf(state) }
}

async function settle<C extends Content>(state: State<C>, now: Instant): Promise<void> {
  const fingerprint = currentOf(state)?.fingerprint
  if (fingerprint === undefined) return
  const { verified } = state.memory
  const rejected = state.memory.rejected.filter((one) => one !== fingerprint)
  const at = verified?.fingerprint === fingerprint ? verified.at : now
  await remember(state, { verified: { fingerprint, at }, rejected })
}

async function undo<C extends Content>(state: State<C>): Promise<void> {
  const [back, refused] = [previousOf(state), currentOf(state)]
  if (!back || !refused) return
  // On record before the swap: a stop in between must not roll forward to it again. But a full disk must not keep us from going back.
  await reject(state, refused).catch(() => {})
  const results = await Promise.allSettled(state.directories.map((one) => one.goBack(back, state.memory)))
  for (const result of results) if (result.status === 'rejected') throw result.reason
}

const reject = <C extends Content>(state: State<C>, { fingerprint }: C) =>
  remember(state, { rejected: [...state.memory.rejected.filter((one) => one !== fingerprint), fingerprint] })

/** In memory first: what cannot be written now is written with the next change. */
async function remember<C extends Content>(state: State<C>, change: Partial<Memory>): Promise<void> {
  state.memory = { ...state.memory, ...change }
  await writeMemory(primaryOf(state).root, state.memory)
}

function primaryOf<C extends Content>({ directories, options }: State<C>): DirectoryStore<C> {
  const [first] = directories
  if (!first) throw new SidecarError('BUG', `the store of ${options.certificate} is not open`)
  return first
}

const currentOf = <C extends Content>({ directories }: State<C>): C | undefined =>
  directories.find(({ current }) => current)?.current?.bundle

function previousOf<C extends Content>(state: State<C>): C | undefined {
  const bundle = state.directories[0]?.previous?.bundle
  const present = currentOf(state)?.fingerprint
  return present === state.memory.verified?.fingerprint || present === bundle?.fingerprint ? undefined : bundle
}

/** Usually that of the first directory; where the config put another one first, it is found where it was. */
async function firstMemory(directories: readonly Pick<DirectoryStore<Content>, 'root'>[]): Promise<Memory | undefined> {
  for (const { root } of directories) {
    const memory = await readMemory(root)
    if (memory) return memory
  }
  return undefined
}
