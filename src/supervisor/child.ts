import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, readdirSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import type { Clock } from '../clock.ts'
import { formatDuration } from '../core/units.ts'
import { systemCode } from '../errors.ts'
import { leaveCoreAsUsual } from '../hardening.ts'
import type { Argv } from '../reloaders/options.ts'
import { type Kin, kinOf } from './kin.ts'

export type Environment = Readonly<Record<string, string>>

/** How the command ended. */
export interface Ended {
  /** As a shell gives it: the exit code, 128 and the number of the signal, 127 where there is no such program, 126 where it cannot be executed. */
  readonly code: number
  readonly signal?: NodeJS.Signals
  /** A clause such as `exited with code 1`. */
  readonly why: string
}

/** A command that was started. */
export interface Child {
  /** Resolves once it runs, or has failed to. */
  readonly begun: Promise<void>
  readonly ended: Promise<Ended>
  /** To the command alone, as the init of a container would; to nobody once it has ended. */
  signal(name: NodeJS.Signals): void
  /**
   * Asks the command to end, and what it leaves behind; at the timeout both are killed. Resolves when nothing is left. Called again it asks
   * again, and waits for the same end.
   */
  end(): Promise<Ended>
}

export interface ChildOptions {
  readonly argv: Argv
  readonly stopSignal: NodeJS.Signals
  readonly stopTimeoutMs: number
}

export interface ChildDeps {
  readonly clock: Clock
  /** The command then stays in this process's group, so that it may use the terminal; else it leads a session of its own. */
  readonly sharesTerminal: boolean
  readonly warn: (message: string) => void
}

/** What SIGKILL does not end within a second hangs in the kernel. */
const KILL_MS = 1_000

/**
 * Starts the command with this environment, all of it. Standard input, output and error are this process's own, as are working directory and
 * umask; nothing else that is open here reaches it.
 */
export function startChild(options: ChildOptions, env: Environment, { clock, sharesTerminal, warn }: ChildDeps): Child {
  const { argv, stopSignal, stopTimeoutMs } = options
  const child = startProcess(argv, env, sharesTerminal)
  if ('code' in child) return neverStarted(child)
  if (child.pid !== undefined) leaveCoreAsUsual(child.pid)
  const kin = child.pid === undefined ? NO_KIN : kinOf(child.pid)
  let end: Ended | undefined
  const ended = endOf(child).then((how) => (end = how))
  let ending: Promise<Ended> | undefined

  const left = () => kin.left(end === undefined)
  /** While the command runs, what it started is its own business. */
  const ask = () => {
    const others = left()
    if (end) for (const pid of others) wake(pid, stopSignal)
    child.kill(stopSignal)
    child.kill('SIGCONT')
  }
  const toTheEnd = async (): Promise<Ended> => {
    const startedAt = clock.elapsed()
    const isOver = (ms: number) => clock.elapsed() - startedAt >= ms
    await within(stopTimeoutMs, ended, clock)
    const inTime = end
    if (inTime) {
      ask()
      await until(() => left().length === 0 || isOver(stopTimeoutMs), clock)
    }
    const late = left().length
    if (inTime && late === 0) return inTime
    warn(
      `${inTime ? `${late} of its processes` : 'it'} did not end within ${formatDuration(stopTimeoutMs)} of ${stopSignal} and must be killed`,
    )
    await until(() => {
      child.kill('SIGKILL')
      const others = left()
      for (const pid of others) send(pid, 'SIGKILL')
      return (end !== undefined && others.length === 0) || isOver(stopTimeoutMs + KILL_MS)
    }, clock)
    return end ?? { ...bySignal('SIGKILL'), why: 'does not end, not even by SIGKILL' }
  }

  return {
    begun: new Promise((resolve) => child.once('spawn', resolve).once('error', () => resolve())),
    ended,
    signal: (name) => void child.kill(name),
    end: () => {
      ask()
      ending ??= toTheEnd()
      return ending
    },
  }
}

const NO_KIN: Kin = { left: () => [] }

/** Most failures come as an event; too long an argument list is thrown, as is what Node itself refuses. */
function startProcess([program, ...args]: Argv, env: Environment, sharesTerminal: boolean): ChildProcess | Ended {
  // Node would say so too, with the value.
  const [broken] = Object.entries(env).find(([, value]) => value.includes('\0')) ?? []
  if (broken !== undefined) return notStarted(126, `the value of ${broken} holds a null byte`)
  try {
    closeInherited()
    return spawn(program, args, { env: { ...env }, stdio: 'inherit', detached: !sharesTerminal })
  } catch (error) {
    return fromError(error)
  }
}

const CLOSED_AT_EXEC = 0o2000000

/** What this process was started with beside the standard streams. Of these Node spares the command only the first few; its own are closed. */
function closeInherited(): void {
  for (const fd of descriptors()) {
    try {
      const flags = /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1]
      if (flags !== undefined && (Number.parseInt(flags, 8) & CLOSED_AT_EXEC) === 0) closeSync(fd)
    } catch {
      // The one with which the folder was read.
    }
  }
}

function descriptors(): number[] {
  try {
    return readdirSync('/proc/self/fd')
      .map(Number)
      .filter((fd) => fd > 2)
  } catch {
    return []
  }
}

function neverStarted(end: Ended): Child {
  const ended = Promise.resolve(end)
  return { begun: Promise.resolve(), ended, signal: () => {}, end: () => ended }
}

const endOf = (child: ChildProcess) =>
  new Promise<Ended>((resolve) => {
    child.on('error', (error) => {
      // Later ones are of signals that could not be sent.
      if (child.pid === undefined) resolve(fromError(error))
    })
    child.once('exit', (code, signal) =>
      resolve(signal ? bySignal(signal) : { code: code ?? 0, why: `exited with code ${code}` }),
    )
  })

const bySignal = (signal: NodeJS.Signals): Ended => ({
  code: 128 + constants.signals[signal],
  signal,
  why: `was killed by ${signal}`,
})

function fromError(error: unknown): Ended {
  const code = systemCode(error) ?? 'for a reason of Node'
  return notStarted(code === 'ENOENT' ? 127 : 126, START_ERRORS[code] ?? code)
}

const notStarted = (code: number, reason: string): Ended => ({ code, why: `could not be started: ${reason}` })

const START_ERRORS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such program (ENOENT)',
  EACCES: 'it may not be executed by this user (EACCES)',
  E2BIG: 'its arguments and environment are too long (E2BIG)',
}

/** What is stopped takes no signal but this before it goes on. */
function wake(pid: number, signal: NodeJS.Signals): void {
  send(pid, signal)
  send(pid, 'SIGCONT')
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It ended in the meantime, or became another user.
  }
}

async function within(ms: number, wanted: Promise<unknown>, clock: Clock): Promise<void> {
  const over = new AbortController()
  await Promise.race([wanted, clock.sleep(ms, over.signal).catch(() => {})])
  over.abort()
}

/** Each look reads the whole of /proc, so they become rarer. */
async function until(isSo: () => boolean, clock: Clock): Promise<void> {
  for (let pauseMs = 10; !isSo(); pauseMs = Math.min(pauseMs * 1.5, 250)) await clock.sleep(pauseMs)
}
