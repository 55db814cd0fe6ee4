import type { ChildProcess } from 'node:child_process'

/** Ends the child by its id, also when the tests end without disposing of it. */
export function keepNoOrphan(child: ChildProcess): () => Promise<void> {
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  const ended = new Promise((resolve) => child.once('exit', resolve).once('error', resolve))
  return async () => {
    process.removeListener('exit', kill)
    kill()
    await ended
  }
}

/** The last of what it wrote to standard output and error. */
export function logOf(child: ChildProcess): () => string {
  let log = ''
  const keep = (chunk: Buffer) => {
    log = `${log}${chunk}`.slice(-4000)
  }
  child.stdout?.on('data', keep)
  child.stderr?.on('data', keep)
  return () => log
}
