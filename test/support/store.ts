import type { TestContext } from 'node:test'
import { createStore } from '../../src/outputs/disk-store.ts'
import type { Output } from '../../src/outputs/output.ts'
import type { Held, Store, StoreOptions } from '../../src/outputs/store.ts'

export interface OpenStore {
  readonly store: Store
  readonly held: Held
  /** As a restart does: closes the store, and opens a new one, with other outputs if they are given. */
  reopen(outputs?: readonly Output[]): Promise<OpenStore>
}

/** An open store, closed after the test. */
export async function openStore(
  t: Pick<TestContext, 'after'>,
  outputs: readonly Output[],
  options: Partial<StoreOptions> = {},
): Promise<OpenStore> {
  const store = createStore({ certificate: 'web', outputs, now: Date.now, ...options })
  t.after(() => store[Symbol.asyncDispose]())
  return {
    store,
    held: await store.open(),
    reopen: async (others = outputs) => {
      await store[Symbol.asyncDispose]()
      return openStore(t, others, options)
    },
  }
}
