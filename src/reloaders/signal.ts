import * as z from 'zod'
import type { Instant } from '../core/bundle.ts'
import { quote } from '../core/secret.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { testOptions, withTest } from './config-test.ts'
import { AbsolutePath } from './options.ts'
import { readPid } from './pid-file.ts'
import { isNamed, mastersNamed, type ProcessInfo, processById, takes } from './process.ts'
import { defineReloader } from './reloader.ts'

const Options = z
  .strictObject({
    pidFile: AbsolutePath.optional().meta({
      description: 'Where the target keeps its process id; read anew each time',
    }),
    process: z
      .string()
      .regex(/^[^/\0]+$/, 'must be the name of a program, not a path')
      .optional()
      .meta({
        description:
          'Name of the target: alone, it is looked for among all visible processes; with pidFile, the process must have it',
      }),
    signal: z
      .enum(['SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGWINCH', 'SIGINT', 'SIGTERM', 'SIGQUIT'])
      .default('SIGHUP')
      .meta({ description: 'What the target takes as a request to reload' }),
    ...testOptions,
  })
  .refine(({ pidFile, process: name }) => pidFile !== undefined || name !== undefined, {
    error: 'needs pidFile, process, or both',
  })

export const signal = defineReloader({
  kind: 'signal',
  summary: 'Sends a signal to a process, found by its pid file or by its name.',
  options: Options,
  create: (options, deps) => {
    const place = options.pidFile === undefined ? 'found by name' : `pid file ${options.pidFile}`
    const description = `${options.signal} to ${options.process ?? 'a process'} (${place})`
    return withTest(options, deps, {
      kind: 'signal',
      description,
      inspect: async () => {
        const found = await findTarget(options)
        send(found, 0)
        return `${options.signal} to ${quote(found.names.at(-1) ?? '', 40)}, pid ${found.pid}`
      },
      reload: async (_context, abort) => {
        const pause = () => deps.clock.sleep(100, abort)
        send(await findReady(options, pause), options.signal)
      },
    })
  },
})

/** A server writes its pid file before it is ready for signals, which would end it then. */
async function findReady(options: z.output<typeof Options>, pause: Pause): Promise<ProcessInfo> {
  for (let attempt = 1; ; attempt += 1) {
    const found = await findTarget(options, pause)
    if (await takes(found.pid, options.signal)) return found
    if (attempt === ATTEMPTS)
      throw new SidecarError(
        'RELOAD_TARGET_MISSING',
        `${quote(found.names.at(-1) ?? '', 40)}, pid ${found.pid}, does not take ${options.signal}, or not yet; nothing was signalled`,
      )
    await pause()
  }
}

type Target = Pick<z.output<typeof Options>, 'pidFile' | 'process'>

/** Waits a moment; where it is not given, one look must do. */
type Pause = () => Promise<void>
const ATTEMPTS = 10

/** The process that a pid file or a name leads to. Throws as `reload` does; `pause` lets it look again at what is only passing. */
export async function findTarget({ pidFile, process: name }: Target, pause?: Pause): Promise<ProcessInfo> {
  return pidFile === undefined ? byName(name ?? '', pause) : byPidFile(pidFile, name, pause)
}

/** A second process of the name may be a passing one, such as `nginx -t`, so that is looked at again. */
async function byName(name: string, pause?: Pause): Promise<ProcessInfo> {
  for (let attempt = 1; ; attempt += 1) {
    const [found, ...others] = await mastersNamed(name)
    if (!found)
      throw new SidecarError(
        'RELOAD_TARGET_MISSING',
        `no process named ${name} is visible in /proc; ${OTHER_NAMESPACE}`,
      )
    if (others.length === 0) return found
    if (!pause || attempt === ATTEMPTS)
      throw new SidecarError(
        'RELOAD_WRONG_PROCESS',
        `several processes are named ${name} (pids ${[found, ...others].map(({ pid }) => pid).join(', ')}); say which one with pidFile`,
      )
    await pause()
  }
}

async function byPidFile(path: string, name: string | undefined, pause?: Pause): Promise<ProcessInfo> {
  const { pid, writtenAt } = await readPid(path, pause)
  const says = `pid file ${path} says ${pid}`
  if (pid === process.pid)
    throw new SidecarError('RELOAD_WRONG_PROCESS', `${says}, which is certferry itself; ${OTHER_NAMESPACE}`)
  const found = await processById(pid)
  if (!found) {
    // Where /proc hides foreign processes (hidepid), this tells "not for this user" from "not there".
    signalTo(pid, 0, `the process that pid file ${path} names`)
    throw new SidecarError('RELOAD_TARGET_MISSING', `${says}, which /proc does not show as a running process`)
  }
  const doubt = doubtAbout(found, name, writtenAt)
  if (doubt)
    throw new SidecarError('RELOAD_WRONG_PROCESS', `${says}, ${doubt}; nothing was signalled; ${OTHER_NAMESPACE}`)
  return found
}

const OTHER_NAMESPACE =
  'processes of other containers are visible only with shareProcessNamespace: true; without it, reload by exec or http, if need be with certferry reload-helper'

/** The start is known to a second, and a program may write its pid file just before it forks. */
const START_TOLERANCE_MS = 2_000

/**
 * Why a process is not the target. Its name decides when we know it; the start time does without, since a stepped clock would make every
 * process look younger than its pid file.
 */
function doubtAbout(found: ProcessInfo, name: string | undefined, writtenAt: Instant): string | undefined {
  const is = `which is "${quote(found.names.at(-1) ?? '?', 40)}"`
  if (name !== undefined) return isNamed(found, name) ? undefined : `${is}, not "${name}"`
  if (found.pid === 1) return `${is}, the first process of this container; give its name with process if that is meant`
  if (found.pid === process.ppid) return `${is}, the parent of certferry; give its name with process if that is meant`
  if (found.startedAt > writtenAt + START_TOLERANCE_MS)
    return `${is} and started at ${iso(found.startedAt)}, after the file was written at ${iso(writtenAt)}; the file is stale, or give the name with process`
  return undefined
}

const iso = (instant: Instant) => new Date(instant).toISOString()

const send = ({ pid, names }: ProcessInfo, name: NodeJS.Signals | 0) =>
  signalTo(pid, name, quote(names.at(-1) ?? '', 40))

/** Throws RELOAD_TARGET_MISSING, RELOAD_EPERM. Between the look at the process and this call it may have ended; Node has no pidfd to close that gap of microseconds. */
export function signalTo(pid: number, name: NodeJS.Signals | 0, who: string): void {
  try {
    process.kill(pid, name)
  } catch (cause) {
    if (systemCode(cause) !== 'EPERM')
      throw new SidecarError('RELOAD_TARGET_MISSING', `${who}, pid ${pid}, is not running`, { cause })
    throw new SidecarError('RELOAD_EPERM', `this user may not signal ${who}, pid ${pid}`, { cause })
  }
}
