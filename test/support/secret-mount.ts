import { randomUUID } from 'node:crypto'
import { mkdirSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Puts files into a directory as kubelet does with a Secret: `..data` is swapped by a rename, and the old directory removed at once. */
export function mountSecret(directory: string, files: Readonly<Record<string, string>>): void {
  const next = `..2026_${randomUUID()}`
  mkdirSync(join(directory, next))
  for (const [name, content] of Object.entries(files)) writeFileSync(join(directory, next, name), content)
  const old = linkOf(join(directory, '..data'))
  symlinkSync(next, join(directory, '..data_tmp'))
  renameSync(join(directory, '..data_tmp'), join(directory, '..data'))
  for (const name of Object.keys(files))
    if (linkOf(join(directory, name)) === undefined) symlinkSync(join('..data', name), join(directory, name))
  if (old !== undefined) rmSync(join(directory, old), { recursive: true })
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}
