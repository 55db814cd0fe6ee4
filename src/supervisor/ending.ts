import type { Ended } from './child.ts'

/** Those that end a process by way of business: service managers take death by them for a clean end, and a script stops after Ctrl-C only if it sees it. */
const DIED_OF: readonly (NodeJS.Signals | undefined)[] = ['SIGHUP', 'SIGINT', 'SIGTERM']

/** Of the process: what it takes to end it. */
export type Ending = Pick<NodeJS.Process, 'pid' | 'kill' | 'removeAllListeners'> & {
  exitCode?: number | string | null | undefined
}

/**
 * Has this process end as the command did: with its exit code, or by the same signal where that is one of the three which say no more than
 * "end". After any other, such as SIGSEGV, and as the first process of a container, which no signal of its own can end, with 128 and the
 * number of the signal. To be called when there is nothing left to do.
 */
export function endLike({ code, signal }: Ended, self: Ending): void {
  self.exitCode = code
  if (signal === undefined || !DIED_OF.includes(signal) || self.pid === 1) return
  // Without listeners it does again what it does by default.
  self.removeAllListeners(signal)
  self.kill(self.pid, signal)
}
