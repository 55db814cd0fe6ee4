import { execFile } from 'node:child_process'
import { renameSync, writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { component } from './components.ts'

export interface WallClock {
  /** For the process whose clock it is to be. */
  readonly env: Readonly<Record<string, string>>
  /** How far it is ahead of the true time, as libfaketime takes it: `+2h`, `-2d`, `+0`. */
  set(offset: string): void
}

/** A wall clock for one process alone, by libfaketime, kept in `file`; the monotonic clock stays true. */
export async function createWallClock(file: string): Promise<WallClock> {
  const set: WallClock['set'] = (offset) => {
    writeFileSync(`${file}.new`, `${offset}\n`)
    renameSync(`${file}.new`, file)
  }
  set('+0')
  return {
    env: {
      LD_PRELOAD: await libfaketime(),
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      NO_FAKE_STAT: '1',
    },
    set,
  }
}

/**
 * What its program would have preloaded. It makes a semaphore that is named after its process, and takes one that a killed process of the
 * same number left behind for a defect; so it may take some tries.
 */
async function libfaketime(tries = 5): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(await component('faketime'), ['-f', '+0', 'printenv', 'LD_PRELOAD'])
    return stdout.trim()
  } catch (error) {
    if (tries > 1 && String(error).includes('sem_open: File exists')) return libfaketime(tries - 1)
    throw error
  }
}
