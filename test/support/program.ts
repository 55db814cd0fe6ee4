import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { after } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

/** A program that runs until it ends, or until the tests of the file are over. */
export interface Running {
  readonly child: ChildProcess
  /** Standard output and error so far. */
  output(): string
  /** Exit status; the name of the signal where one ended it. */
  readonly ended: Promise<number | string>
}

/** In a process group of its own, as in a terminal. Nothing of our environment but what is given. */
export function startProgram(argv: readonly string[], env: Record<string, string>): Running {
  const [program = '', ...args] = argv
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  const ended = once(child, 'close').then(([code, signal]): number | string => code ?? signal)
  after(() => {
    if (child.exitCode === null && child.signalCode === null && child.pid) process.kill(-child.pid, 'SIGKILL')
  })
  return { child, output: () => text, ended }
}

/** What `look` finds, as soon as it finds it. Throws with the output of the program when that has ended, or after a minute. */
export async function until<T>(
  what: string,
  look: () => Promise<T | undefined> | T | undefined,
  running: Running,
): Promise<T> {
  for (let attempt = 0; attempt < 1200; attempt += 1) {
    const found = await look()
    if (found !== undefined) return found
    if (running.child.exitCode !== null) break
    await sleep(50)
  }
  throw new Error(`${what}: waited in vain\n${running.output()}`)
}
