import type { Content } from '../core/content.ts'
import { bundleFile } from './bundle-file.ts'
import { loadGeneration } from './generation.ts'
import { DATA_LINK } from './layout.ts'
import { readMemory } from './memory.ts'
import { pinDirectory } from './pinned-dir.ts'
import type { Codec, Memory } from './store.ts'

/** What lies in a directory, read without taking the lock and without touching anything; nothing where there is no directory yet. */
export const peek = (directory: string) => peekAs(bundleFile, directory)

/** The same for any content that `codec` keeps. */
export async function peekAs<C extends Content>(
  codec: Codec<C>,
  directory: string,
): Promise<{ current: C | undefined; memory: Memory | undefined }> {
  const root = await pinDirectory(directory).catch(() => undefined)
  if (!root) return { current: undefined, memory: undefined }
  await using dir = root
  const linked = await dir.readLink(DATA_LINK)
  const generation = linked === undefined ? undefined : await loadGeneration(dir, linked, codec)
  return { current: generation?.bundle, memory: await readMemory(dir) }
}
