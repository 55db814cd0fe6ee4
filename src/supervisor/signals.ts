import type { Terminal } from './kin.ts'
import type { Supervisor } from './supervisor.ts'

/** Of the process: where signals come from. */
export type SignalSource = Pick<NodeJS.Process, 'on' | 'off'>

/** The kernel sends these to all that are in the foreground of a terminal. */
const TYPED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT', 'SIGWINCH']
const OTHERS: readonly NodeJS.Signals[] = ['SIGHUP', 'SIGUSR1', 'SIGUSR2']
/** With a terminal these are between it, the shell and the whole group, this process included; without one they are words like any other. */
const JOB_CONTROL: readonly NodeJS.Signals[] = ['SIGTSTP', 'SIGCONT', 'SIGTTIN', 'SIGTTOU']

/**
 * From now on the signals of this process are the command's: SIGTERM stops it for good, with the stop signal and the timeout; all others go
 * to it as they are, once: what is typed at a terminal reaches the command without us. Nothing else may listen to them, or must not end the
 * process by it.
 */
export function forwardSignals(
  source: SignalSource,
  supervisor: Supervisor,
  terminal: Terminal | undefined,
): Disposable {
  const listeners = new Map<NodeJS.Signals, () => void>()
  listeners.set('SIGTERM', () => void supervisor.stop())
  for (const name of TYPED)
    listeners.set(name, () => {
      if (!terminal?.isForeground()) supervisor.signal(name)
    })
  for (const name of terminal ? OTHERS : [...OTHERS, ...JOB_CONTROL]) listeners.set(name, () => supervisor.signal(name))
  for (const [name, listener] of listeners) source.on(name, listener)
  return {
    [Symbol.dispose]: () => {
      for (const [name, listener] of listeners) source.off(name, listener)
    },
  }
}
