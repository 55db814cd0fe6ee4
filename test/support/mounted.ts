import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/**
 * A volume of a Secret as the kubelet keeps it (pkg/volume/util/atomic_writer.go): files are links through `..data`, which each `write` swaps
 * for a new directory by one rename, and then removes the old one.
 */
export function mountedSecret(directory: string) {
  let generation = 0
  return {
    path: (name: string) => join(directory, name),
    write(files: Readonly<Record<string, string>>): void {
      const name = (number: number) => `..2026_01_01_00_00_00.${number}`
      generation += 1
      mkdirSync(join(directory, name(generation)), { recursive: true })
      for (const [file, content] of Object.entries(files))
        writeFileSync(join(directory, name(generation), file), content)
      symlinkSync(name(generation), join(directory, '..data_tmp'))
      renameSync(join(directory, '..data_tmp'), join(directory, '..data'))
      if (generation > 1) rmSync(join(directory, name(generation - 1)), { recursive: true })
      else for (const file of Object.keys(files)) symlinkSync(join('..data', file), join(directory, file))
    },
  }
}
