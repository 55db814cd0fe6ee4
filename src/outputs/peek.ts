import type { Bundle } from '../core/bundle.ts'
import { bundleFile } from './bundle-file.ts'
import { loadGeneration } from './generation.ts'
import { DATA_LINK } from './layout.ts'
import { readMemory } from './memory.ts'
import { pinDirectory } from './pinned-dir.ts'
import type { Memory } from './store.ts'

/** What lies in a directory, read without taking the lock and without touching anything; nothing where there is no directory yet. */
export async function peek(directory: string): Promise<{ current: Bundle | undefined; memory: Memory | undefined }> {
  const root = await pinDirectory(directory).catch(() => undefined)
  if (!root) return { current: undefined, memory: undefined }
  await using dir = root
  const linked = await dir.readLink(DATA_LINK)
  const generation = linked === undefined ? undefined : await loadGeneration(dir, linked, bundleFile)
  return { current: generation?.bundle, memory: await readMemory(dir) }
}
