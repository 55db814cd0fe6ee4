import { spawn } from 'node:child_process'
import { keepNoOrphan, logOf } from './child.ts'
import { until } from './until.ts'

/**
 * Words before a command: it ends with the tests, even where these are killed, and runs in a process namespace that ends with it, so that
 * nothing which it starts stays behind. Its user is root there unless another is given, and outside still the one who runs the tests.
 */
export const aloneAs = (user = 0) => [
  ...['setpriv', '--pdeathsig', 'KILL', '--'],
  'unshare',
  '--user',
  `--map-user=${user}`,
  `--map-group=${user}`,
  ...['--pid', '--ipc', '--fork', '--kill-child', '--'],
]

/** Servers that refuse to run as root take this for a user like any other; every system knows it by name. */
export const NOBODY = 65_534

export interface Server extends AsyncDisposable {
  /** SIGKILL, to it and all that it started; resolves when they are gone. */
  readonly stop: () => Promise<void>
}

interface ServerStart {
  readonly title: string
  readonly env?: Readonly<Record<string, string>>
  readonly isReady: () => boolean | Promise<boolean>
}

/** Runs a server as nobody, alone, and waits until it is ready. */
export async function startServerAlone(command: readonly string[], start: ServerStart): Promise<Server> {
  const { title, env = {}, isReady } = start
  const [program = '', ...args] = [...aloneAs(NOBODY), ...command]
  const child = spawn(program, args, {
    // Nothing of the environment that could lead it elsewhere.
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const kill = keepNoOrphan(child)
  const log = logOf(child)
  // Not before the last of them has closed its output.
  const closed = new Promise((resolve) => child.once('close', resolve).once('error', resolve))
  const stop = async () => {
    await kill()
    await closed
  }
  try {
    await until(`${title} is ready`, async () => child.exitCode !== null || (await isReady()), { timeoutMs: 120_000 })
    if (child.exitCode !== null) throw new Error(`${title} ended with ${child.exitCode}`)
  } catch (error) {
    await stop()
    throw new Error(`${error instanceof Error ? error.message : error}:\n${log()}`, { cause: error })
  }
  return { stop, [Symbol.asyncDispose]: stop }
}
