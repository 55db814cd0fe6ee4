import { randomBytes } from 'node:crypto'
import * as z from 'zod'
import { replaceFile } from './atomic-file.ts'
import type { PinnedDir } from './pinned-dir.ts'
import type { Memory } from './store.ts'

export const STATE_FILE = '..state.json'

const State = z.object({
  schema: z.literal(1),
  seed: z.string().min(1),
  issuedAt: z.array(z.number()),
  told: z.string().optional(),
  verified: z.object({ fingerprint: z.string(), at: z.number() }).optional(),
  rejected: z.array(z.string()),
  condemned: z.array(z.string()).default([]),
  toRevoke: z
    .array(
      z.object({
        fingerprint: z.string(),
        serial: z.string(),
        notAfter: z.number(),
        der: z.string(),
        origin: z.string().optional(),
      }),
    )
    .default([]),
})

/** Refusals to remember; older ones concern sets that are long gone. */
const MAX_REJECTED = 20

export const freshMemory = (): Memory => ({
  seed: randomBytes(16).toString('hex'),
  issuedAt: [],
  told: undefined,
  verified: undefined,
  rejected: [],
  condemned: [],
  toRevoke: [],
})

/** undefined where there is none, or none that can be read: then a fresh one is as good as can be. */
export async function readMemory(root: PinnedDir): Promise<Memory | undefined> {
  const content = await root.readFile(STATE_FILE)
  try {
    const { seed, issuedAt, told, verified, rejected, condemned, toRevoke } = State.parse(JSON.parse(String(content)))
    return { seed, issuedAt, told, verified, rejected, condemned, toRevoke }
  } catch {
    return undefined
  }
}

export async function writeMemory(root: PinnedDir, memory: Memory): Promise<void> {
  const state: z.input<typeof State> = {
    schema: 1,
    ...memory,
    issuedAt: [...memory.issuedAt],
    rejected: memory.rejected.slice(-MAX_REJECTED),
    condemned: memory.condemned.slice(-MAX_REJECTED),
    toRevoke: [...(memory.toRevoke ?? [])],
  }
  await replaceFile(root, STATE_FILE, { content: Buffer.from(`${JSON.stringify(state, null, 2)}\n`), mode: 0o600 })
}
