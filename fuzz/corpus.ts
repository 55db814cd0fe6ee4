import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const ROOT = new URL('./corpus/', import.meta.url)
const folderOf = (target: string) => new URL(`${target}/`, ROOT)

/** Larger ones are not worth a place in the repository. */
const LARGEST = 4_096

/** The inputs kept for a target, each of which reaches code that no smaller one does; `test/fuzz.test.ts` replays them. */
export function readCorpus(target: string): Buffer[] {
  const folder = folderOf(target)
  mkdirSync(folder, { recursive: true })
  return readdirSync(folder)
    .sort()
    .map((name) => readFileSync(new URL(name, folder)))
}

/** Replaces the corpus. */
export function writeCorpus(target: string, inputs: readonly Buffer[]): string {
  const folder = folderOf(target)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  for (const input of inputs) writeFileSync(new URL(nameOf(input), folder), input)
  return fileURLToPath(folder)
}

export const worthKeeping = (inputs: readonly Buffer[]) =>
  inputs.filter(({ length }) => length <= LARGEST).toSorted((a, b) => a.length - b.length)

export const nameOf = (input: Buffer) => createHash('sha256').update(input).digest('hex').slice(0, 12)
