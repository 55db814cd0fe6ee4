import { spawnSync } from 'node:child_process'
import { release } from 'node:os'
import { type ComponentName, component } from '../../test/support/components.ts'

const ASK: readonly (readonly [ComponentName, string])[] = [
  ['vault', 'version'],
  ['nginx', '-v'],
  ['haproxy', '-v'],
  ['strace', '-V'],
]

/** The programs that the fault suite runs against, with the versions they tell of themselves; a program that is absent is left out. */
export async function partsOfTheRun(): Promise<string[]> {
  const told = await Promise.all(ASK.map(([name, argument]) => versionOf(name, argument).catch(() => undefined)))
  return [
    ...told.filter((one) => one !== undefined),
    `Node ${process.versions.node}`,
    `Linux ${release().replace(/-.*/, '')}`,
  ]
}

async function versionOf(name: ComponentName, argument: string): Promise<string> {
  const { stdout, stderr } = spawnSync(await component(name), [argument], { encoding: 'utf8' })
  return `${name} ${/\d+\.\d+[\w.]*/.exec(`${stdout}\n${stderr}`)?.[0]}`
}
