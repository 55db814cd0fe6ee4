import { spawnSync } from 'node:child_process'
import { statfsSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { type ComponentName, component } from '../test/support/components.ts'
import type { Size } from './row.ts'
import type { Stand } from './stand.ts'

/** What the figures of a run depend on. */
export interface RunDescription {
  readonly date: string
  readonly machine: {
    readonly processor: string
    readonly processors: number
    readonly memoryBytes: number
    readonly kernel: string
    readonly architecture: string
    /** Of the last minute, at the end of the run. */
    readonly loadAverage: number
  }
  readonly versions: Readonly<Record<string, string>>
  /** Where certificates were written, and on which kind of file system. */
  readonly volume: { readonly path: string; readonly fileSystem: string }
  readonly size: Size
}

export async function describeRun({ contenders, volumeIn, size }: Stand): Promise<RunDescription> {
  return {
    date: new Date().toISOString(),
    machine: {
      processor: cpus()[0]?.model ?? 'unknown',
      processors: cpus().length,
      memoryBytes: totalmem(),
      kernel: release(),
      architecture: process.arch,
      loadAverage: loadavg()[0] ?? Number.NaN,
    },
    versions: {
      ...Object.fromEntries(contenders.map(({ name, version }) => [name, version])),
      Node: process.versions.node,
      Vault: await versionOf('vault', 'version'),
      nginx: await versionOf('nginx', '-v'),
    },
    volume: { path: volumeIn, fileSystem: FILE_SYSTEMS[statfsSync(volumeIn).type] ?? 'another file system' },
    size,
  }
}

/** statfs(2) */
const FILE_SYSTEMS: Readonly<Record<number, string>> = {
  61267: 'ext4',
  16914836: 'tmpfs, in memory',
  2035054128: 'overlayfs',
  1481003842: 'xfs',
  2435016766: 'btrfs',
}

async function versionOf(name: ComponentName, flag: string): Promise<string> {
  const program = await component(name).catch(() => undefined)
  if (program === undefined) return 'absent'
  const { stdout, stderr } = spawnSync(program, [flag], { encoding: 'utf8' })
  return /\d+\.\d+\.\d+/.exec(`${stdout}${stderr}`)?.[0] ?? 'unknown'
}
