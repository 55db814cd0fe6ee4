import { execFile } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { until } from '../../test/support/until.ts'
import { type ChaosFault, type Dice, NOTHING_TO_UNDO, oneOf } from './fault.ts'
import type { Subject } from './subject.ts'

const run = promisify(execFile)

/** What a volume does, and what others do to the files on it. */
export const diskFaults: readonly ChaosFault[] = [
  {
    kind: 'disk full',
    group: 'disk',
    seconds: [3, 25],
    begin: async ({ volume }) => {
      const filler = join(volume, 'filler')
      const { bavail, bsize } = fs.statfsSync(volume)
      fs.writeFileSync(filler, Buffer.alloc(bavail * bsize))
      return () => fs.rmSync(filler)
    },
  },
  {
    kind: 'no inodes',
    group: 'disk',
    seconds: [3, 25],
    begin: async ({ volume }) => {
      const fillers = join(volume, 'fillers')
      fs.mkdirSync(fillers)
      const undo = () => fs.rmSync(fillers, { recursive: true })
      try {
        for (let count = fs.statfsSync(volume).ffree; count > 0; count -= 1)
          fs.writeFileSync(join(fillers, `${count}`), '')
      } catch {
        // certferry took one in the meantime.
      }
      return undo
    },
  },
  {
    kind: 'read-only',
    group: 'disk',
    seconds: [3, 25],
    begin: async ({ volume }) => {
      await remount(volume, 'ro')
      return () => remount(volume, 'rw')
    },
  },
  tampering('file edited', (place, dice) => {
    fs.appendFileSync(join(place, oneOf(dice, NAMES)), 'edited\n')
  }),
  tampering('file truncated', (place, dice) => {
    fs.truncateSync(join(place, oneOf(dice, NAMES)), 100)
  }),
  tampering('file deleted', (place, dice) => {
    fs.rmSync(join(place, oneOf(dice, NAMES)))
  }),
  tampering('mode changed', (place, dice) => {
    fs.chmodSync(join(place, oneOf(dice, NAMES)), oneOf(dice, [0o644, 0o666, 0o000]))
  }),
  tampering('link replaced', (_, dice, { directory, layout }) => {
    const name = layout === 'flat' ? oneOf(dice, NAMES) : oneOf(dice, ['..data', 'tls.crt', 'tls.key'] as const)
    fs.symlinkSync(oneOf(dice, ['/dev/null', '..gen-nowhere']), join(directory, 'planted'))
    fs.renameSync(join(directory, 'planted'), join(directory, name))
  }),
  tampering('directory emptied', (_, __, { directory }) => {
    for (const name of fs.readdirSync(directory)) fs.rmSync(join(directory, name), { recursive: true })
  }),
  {
    kind: 'directory renamed away',
    group: 'disk',
    seconds: [2, 20],
    begin: async ({ directory }) => {
      const away = `${directory}.away`
      fs.renameSync(directory, away)
      return () => {
        // certferry may have made another one.
        if (fs.existsSync(directory)) fs.renameSync(directory, `${directory}.made-${Date.now()}`)
        fs.renameSync(away, directory)
      }
    },
  },
]

/** After these, what is on disk is not as certferry left it, until it has mended that. */
export const TAMPERING: ReadonlySet<string> = new Set([
  'file edited',
  'file truncated',
  'file deleted',
  'mode changed',
  'link replaced',
  'directory emptied',
  'directory renamed away',
])

const NAMES = ['tls.crt', 'tls.key'] as const

/** Somebody does something to the files in service, and leaves it to certferry to find out. */
function tampering(kind: string, act: (place: string, dice: Dice, subject: Subject) => void): ChaosFault {
  return {
    kind,
    group: 'disk',
    seconds: [0, 0],
    begin: async (subject, dice) => {
      const { directory, layout } = subject
      const place = layout === 'flat' ? directory : join(directory, fs.readlinkSync(join(directory, '..data')))
      act(place, dice, subject)
      return NOTHING_TO_UNDO
    },
  }
}

/** Refused while somebody writes to a file on it. */
const remount = async (volume: string, how: 'ro' | 'rw') => {
  await until(`${volume} is ${how}`, async () => {
    await run('mount', ['-o', `remount,${how}`, volume])
    return true
  })
}
