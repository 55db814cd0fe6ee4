import { spawn } from 'node:child_process'
import { once } from 'node:events'
import * as z from 'zod'
import { systemClock } from '../clock.ts'
import { quote } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'
import { leaveCoreAsUsual } from '../hardening.ts'
import { listenOnSocket } from '../observe/control-socket.ts'
import type { Emit } from '../observe/events.ts'
import { CONTROL_LIMITS, createServer } from '../observe/http-server.ts'
import { type Handler, text } from '../observe/router.ts'
import { locate } from '../reloaders/command.ts'
import { type ProcessInfo, processById, takes } from '../reloaders/process.ts'
import { findTarget, signal as signalReloader, signalTo } from '../reloaders/signal.ts'
import { type Io, print } from './io.ts'

export interface ReloadHelperOptions {
  readonly socket: string
  readonly socketMode: string
  readonly signal: string
  readonly pidFile?: string
  readonly process?: string
  /** Internal: the process that started this one, which ends with it and by default signals it. */
  readonly parent?: number
}

const BUG = 70

/**
 * Takes POST /reload on a Unix socket and signals a process that the caller cannot. Without a command it does so until SIGTERM. With one, a
 * child does, and this process becomes the command: the container then runs what it would run without, under the same pid, so that signals,
 * orphans and the exit code are the command's own. (Node could not stand in for it: it waits for the children it knows, and as the first
 * process of a container would leave all others as zombies.) Returns the exit code.
 */
export async function reloadHelper(command: readonly string[], options: ReloadHelperOptions, io: Io): Promise<number> {
  const [program] = command
  if (program === undefined) {
    await serve(options, io)
    return 0
  }
  const path = await locate(program, io.env.PATH)
  if (path === undefined) throw new SidecarError('USAGE', `there is no program ${program} to execute`)
  // Whoever is told to reload before it has begun will read the new files anyway.
  io.onHangup(() => {})
  const failed = await startServing(options, io)
  return failed ?? become(path, command)
}

/** Starts this program again, to listen. Resolves once it does, or with its exit code. */
async function startServing(options: ReloadHelperOptions, io: Io): Promise<number | undefined> {
  const [node = '', ...self] = io.self
  const { socket, socketMode, signal, pidFile, process: name } = options
  const argv = ['reload-helper', '--socket', socket, '--socket-mode', socketMode, '--signal', signal]
  if (pidFile !== undefined) argv.push('--pid-file', pidFile)
  if (name !== undefined) argv.push('--process', name)
  argv.push('--parent', String(process.pid))
  // In a session of its own: what is meant for the command, such as Ctrl-C, does not reach it.
  const child = spawn(node, [...self, ...argv], { detached: true, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'exit').then(([code]) => (typeof code === 'number' ? code : BUG))
  try {
    return await Promise.race([once(child.stdout, 'data', { signal: io.signal }).then(() => undefined), ended])
  } catch (error) {
    child.kill()
    io.signal.throwIfAborted()
    throw error
  }
}

function become(path: string, command: readonly string[]): never {
  leaveCoreAsUsual()
  // Node 24 has it on Linux; the types speak for all systems.
  if (process.execve === undefined) throw new SidecarError('USAGE', 'this Node cannot become another program')
  return process.execve(path, command)
}

async function serve(options: ReloadHelperOptions, io: Io): Promise<void> {
  const { socket, socketMode, parent } = options
  const tell = teller(options)
  const say = (line: string) => io.stderr.write(`certferry: ${line}\n`)
  const emit: Emit = (name, event) => say(`${name}: ${'message' in event ? event.message : ''}`)
  const reload: Handler = async ({ signal }) => {
    try {
      const told = await tell(signal)
      say(told)
      return text(200, told)
    } catch (error) {
      // Nobody was told, so nobody refused.
      if (!(error instanceof SidecarError)) throw error
      say(error.message)
      return text(503, error.message)
    }
  }
  await using opened = new AsyncDisposableStack()
  const { server } = opened.use(
    createServer({ routes: new Map([['/reload', { POST: reload }]]), limits: CONTROL_LIMITS, emit }),
  )
  opened.defer(await listenOnSocket(server, socket, { name: '--socket', mode: modeOf(socketMode) }))
  // A connection that cannot be accepted is no reason to end.
  server.on('error', () => {})
  print(io, `listening on ${socket}`)
  await whileThere(parent, io.signal)
}

function modeOf(text: string): 0o600 | 0o660 {
  if (text === '0600') return 0o600
  if (text === '0660') return 0o660
  throw new SidecarError(
    'USAGE',
    `--socket-mode ${text} must be 0600, for its own user, or 0660, for its group as well`,
  )
}

/** How often it is looked whether the command is still there. */
const LOOK_MS = 1_000

/** Returns once `parent` is gone, or with `signal`. */
async function whileThere(parent: number | undefined, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && (parent === undefined || process.ppid === parent))
    await systemClock.sleep(LOOK_MS, signal).catch(() => undefined)
}

const { pidFile, process: name, signal } = signalReloader.options.shape
const Target = z.object({ pidFile, process: name, signal })

/** Gives what signals the target, found anew each time, and says so. */
function teller(options: ReloadHelperOptions): (abort: AbortSignal) => Promise<string> {
  const { success, data: target, error } = Target.safeParse(options)
  if (!success)
    throw new SidecarError('USAGE', error.issues.map(({ path, message }) => `${path}: ${message}`).join('; '))
  const { parent } = options
  const byName = target.pidFile !== undefined || target.process !== undefined
  if (!byName && parent === undefined)
    throw new SidecarError('USAGE', 'needs a command after --, or --pid-file, or --process')
  return async (abort) => {
    const pause = () => systemClock.sleep(100, abort)
    const found = byName ? await findTarget(target, pause) : await parentProcess(parent)
    const who = quote(found.names.at(-1) ?? '', 40)
    if (!(await takes(found.pid, target.signal)))
      throw new SidecarError(
        'RELOAD_TARGET_MISSING',
        `${who}, pid ${found.pid}, does not take ${target.signal}, or not yet`,
      )
    signalTo(found.pid, target.signal, who)
    return `${target.signal} to ${who}, pid ${found.pid}`
  }
}

async function parentProcess(parent: number | undefined): Promise<ProcessInfo> {
  const found = parent === process.ppid ? await processById(parent) : undefined
  if (!found) throw new SidecarError('RELOAD_TARGET_MISSING', 'the command has ended')
  return found
}
