import { spawn } from 'node:child_process'
import { once } from 'node:events'

/** A Node without certferry, to measure what no program in it can do without. Disposing it ends it. */
export function bareNode(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): AsyncDisposable & { readonly pid: number } {
  const child = spawn(process.execPath, args, { env: { ...env }, stdio: 'ignore' })
  const ended = once(child, 'exit')
  const kill = () => child.kill('SIGKILL')
  // Also when the bench ends without disposing of it.
  process.once('exit', kill)
  return {
    pid: child.pid ?? 0,
    [Symbol.asyncDispose]: async () => {
      kill()
      await ended
      process.removeListener('exit', kill)
    },
  }
}
