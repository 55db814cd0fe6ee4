import * as fs from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { makeVolume } from './volume.ts'

/**
 * A program put before certferry's own with --require, which breaks a part of Node while a file is there: a defect as it may slip into
 * any release, and no hook for it in what ships.
 */
export function plantDefect(t: TestContext, code: (flag: string) => string) {
  const folder = makeVolume(t)
  const [flag, module] = [join(folder, 'broken'), join(folder, 'defect.cjs')]
  fs.writeFileSync(module, code(JSON.stringify(flag)))
  return {
    env: { NODE_OPTIONS: `--require=${module}` },
    begin: () => fs.writeFileSync(flag, ''),
    end: () => fs.rmSync(flag),
    /** There once the code wrote it. */
    reached: `${flag}.reached`,
  }
}
