import { stat, utimes } from 'node:fs/promises'
import * as z from 'zod'
import { SidecarError, systemCode } from '../errors.ts'
import { testOptions, withTest } from './config-test.ts'
import { AbsolutePath } from './options.ts'
import { defineReloader } from './reloader.ts'

/** Never a file of ours: those get a new inode each time. */
export const touch = defineReloader({
  kind: 'touch',
  summary: 'Sets the time of a file that the target watches, such as the dynamic configuration of Traefik.',
  options: z.strictObject({
    file: AbsolutePath.meta({ description: 'The watched file; it must be of the user that certferry runs as' }),
    ...testOptions,
  }),
  create: (options, deps) => {
    const { file } = options
    return withTest(options, deps, {
      kind: 'touch',
      description: `touch of ${file}`,
      inspect: async () => {
        const { uid } = await stat(file).catch((cause: unknown) => fail(cause, file))
        if (![uid, 0].includes(process.geteuid?.() ?? 0)) throw notAllowed(file, `it belongs to uid ${uid}`)
        return `set the time of ${file}`
      },
      reload: async () => {
        // Node always gives times, which only the owner may set (utimensat(2)).
        const now = new Date(deps.clock.now())
        await utimes(file, now, now).catch((cause: unknown) => fail(cause, file))
      },
    })
  },
})

function fail(cause: unknown, file: string): never {
  const code = systemCode(cause)
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') throw notAllowed(file, code, cause)
  const why = `${file}, which the target watches, cannot be touched: ${code ?? cause}`
  throw new SidecarError('RELOAD_TARGET_MISSING', why, { cause })
}

const notAllowed = (file: string, why: string, cause?: unknown) =>
  new SidecarError('RELOAD_EPERM', `the time of ${file} may not be set by this user: ${why}`, { cause })
