import type { Content } from '../core/content.ts'
import { freshMemory } from './memory.ts'
import type { Memory, Store } from './store.ts'

/** For what no file is made of: the content in memory alone, gone with the process. */
export function createMemoryStore<C extends Content>(): Store<C> {
  let current: C | undefined
  let previous: C | undefined
  let memory = freshMemory()
  const remember = async (change: Partial<Memory>) => {
    memory = { ...memory, ...change }
  }
  return {
    open: async () => ({ current, pending: undefined }),
    get current() {
      return current
    },
    get memory() {
      return memory
    },
    remember,
    preflight: async () => {},
    apply: async ({ bundle }) => {
      const changed = bundle.fingerprint !== current?.fingerprint
      if (changed && current?.fingerprint === memory.verified?.fingerprint) previous = current
      current = bundle
      const isProven = bundle.fingerprint === memory.verified?.fingerprint
      return { changed, previous: isProven || previous?.fingerprint === bundle.fingerprint ? undefined : previous }
    },
    settle: async (now) => {
      if (current && current.fingerprint !== memory.verified?.fingerprint)
        await remember({ verified: { fingerprint: current.fingerprint, at: now } })
    },
    undo: async () => {
      if (previous) current = previous
    },
    repair: async () => [],
    [Symbol.asyncDispose]: async () => {},
  }
}
