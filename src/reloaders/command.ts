import type { ChildProcess, spawn } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import { delimiter, isAbsolute, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Clock } from '../clock.ts'
import { mask, quote, redact, type Secret } from '../core/secret.ts'
import { formatDuration } from '../core/units.ts'
import { systemCode } from '../errors.ts'
import type { Argv } from './options.ts'
import type { ReloadContext, ReloaderDeps } from './reloader.ts'

export interface Command {
  readonly argv: Argv
  readonly timeoutMs: number
  /** The whole environment of the command. */
  readonly env: Readonly<Record<string, string>>
  /** Values that its output must not be told with. */
  readonly secrets?: readonly Secret[]
}

/** How a command ended. `why` is a clause such as `exited with code 1`; `output` is the end of what it printed, fit for a message. */
export type Ended =
  | { readonly how: 'ok'; readonly output: string }
  | { readonly how: 'not-started' | 'failed' | 'timeout'; readonly why: string; readonly output: string }

/** At the timeout the command has this long to clean up after SIGTERM; when certferry itself must stop, less. */
const TERM_MS = 5_000
const TERM_ON_ABORT_MS = 1_000
/** After the exit, the last output may still be in the pipe. */
const FLUSH_MS = 100

/**
 * Runs a command to its end: no shell, no stdin, cwd `/`, its own process group. At the timeout, and when `signal` aborts, the whole group
 * gets SIGTERM and then SIGKILL, grandchildren included (those that make a session of their own escape). A daemon that a command leaves
 * behind is not waited for. Resolves however the command ends; rejects only with the reason of `signal`, after the group is gone.
 */
export async function run(
  { argv, env, timeoutMs, secrets = [] }: Command,
  clock: Clock,
  signal: AbortSignal,
): Promise<Ended> {
  const loaded = await import('node:child_process')
  signal.throwIfAborted()
  const child = start(loaded.spawn, argv, env)
  if (child instanceof Error) return notStarted(child, '')
  const output = collectOutput(child, secrets)
  const closed = new AbortController()
  child.once('close', () => closed.abort())
  const over = new AbortController()
  const expiry = clock.sleep(timeoutMs, AbortSignal.any([over.signal, signal])).catch(() => {})
  const end = await Promise.race([endOf(child), expiry])
  over.abort()
  if (!end) await killGroup(child, clock, signal)
  await pause(FLUSH_MS, undefined, { signal: closed.signal }).catch(() => {})
  child.stdout?.destroy()
  child.stderr?.destroy()
  if (end) return toEnded(end, output())
  signal.throwIfAborted()
  return { how: 'timeout', why: `did not end within ${formatDuration(timeoutMs)} and was killed`, output: output() }
}

/** Most failures come as an event; too long an argument list is thrown. */
function start(startProcess: typeof spawn, [program, ...args]: Argv, env: Command['env']): ChildProcess | Error {
  try {
    return startProcess(program, args, { cwd: '/', env: { ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

type End = { error: Error } | { code: number | null; signal: NodeJS.Signals | null }

const endOf = (child: ChildProcess) =>
  new Promise<End>((resolve) => {
    child.on('error', (error) => resolve({ error }))
    child.once('exit', (code, signal) => resolve({ code, signal }))
  })

function toEnded(end: End, output: string): Ended {
  if ('error' in end) return notStarted(end.error, output)
  if (end.code === 0) return { how: 'ok', output }
  const why = end.signal ? `was killed by ${end.signal}` : `exited with code ${end.code}`
  return { how: 'failed', why, output }
}

const notStarted = (error: Error, output: string): Ended => ({
  how: 'not-started',
  why: `could not be started: ${START_ERRORS[systemCode(error) ?? ''] ?? error.message}`,
  output,
})

const START_ERRORS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such program (ENOENT)',
  EACCES: 'it may not be executed by this user (EACCES)',
  E2BIG: 'its arguments are too long (E2BIG)',
}

/** `kill` on the negative id reaches every member of the group, and fails once none is left. */
async function killGroup({ pid }: ChildProcess, clock: Clock, signal: AbortSignal): Promise<void> {
  if (pid === undefined) return
  const startedAt = clock.elapsed()
  const overdue = () => clock.elapsed() - startedAt - (signal.aborted ? TERM_ON_ABORT_MS : TERM_MS)
  let next: NodeJS.Signals | 0 = 'SIGTERM'
  // What SIGKILL does not end within a second hangs in the kernel.
  while (reaches(-pid, next) && overdue() < 1_000) {
    await clock.sleep(20)
    next = overdue() < 0 ? 0 : 'SIGKILL'
  }
}

function reaches(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch (error) {
    return systemCode(error) === 'EPERM'
  }
}

/** More is kept than is told, so that a private key is seen whole and masked before the text is cut. */
const KEPT_BYTES = 65_536
const TOLD_CHARS = 4_096

function collectOutput(child: ChildProcess, secrets: readonly Secret[]): () => string {
  let kept = Buffer.alloc(0)
  const keep = (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk]).subarray(-KEPT_BYTES)
  }
  child.stdout?.on('data', keep)
  child.stderr?.on('data', keep)
  return () => quote(redact(mask(kept.toString(), secrets)).trim().slice(-TOLD_CHARS), 4 * TOLD_CHARS)
}

const INHERITED = ['PATH', 'LANG', 'LC_ALL', 'TZ']

/** What every command sees of our own environment. */
export const inherited = (env: ReloaderDeps['env']): Record<string, string> =>
  Object.fromEntries(INHERITED.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])))

/** What a command sees: little of our own environment, what the config gives it, and names of what was renewed. */
export function environment(
  env: ReloaderDeps['env'],
  given: Readonly<Record<string, string>>,
  context: ReloadContext,
): Record<string, string> {
  return {
    ...inherited(env),
    ...given,
    CERTFERRY_CERTIFICATES: context.certificates.join(','),
    CERTFERRY_SERIAL: context.serial,
    CERTFERRY_FINGERPRINT: context.fingerprint,
    CERTFERRY_NOT_AFTER: new Date(context.notAfter).toISOString(),
    CERTFERRY_DIRECTORIES: context.directories.join(':'),
  }
}

/** Where a program would be started from; undefined when it is nowhere, or not executable by this user. */
export async function locate(program: string, path: string | undefined): Promise<string | undefined> {
  const places = isAbsolute(program) ? [program] : (path ?? '').split(delimiter).map((folder) => join(folder, program))
  for (const place of places) if (await isExecutable(place)) return place
  return undefined
}

const isExecutable = (path: string) =>
  access(path, constants.X_OK).then(
    () => true,
    () => false,
  )

/** The command as a person would type it. */
export const commandLine = (argv: Argv): string => quote(argv.join(' '), 200)
