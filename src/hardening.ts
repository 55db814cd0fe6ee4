import { writeFileSync } from 'node:fs'
import inspector from 'node:inspector'
import { SidecarError } from './errors.ts'

interface Start {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Options of Node on the command line. */
  readonly execArgv: readonly string[]
}

/**
 * The memory of this process holds keys and tokens. Ways by which Node would give it away are turned off, whoever asked for them; where
 * that takes no more than a setting of Node, the process must not start: NODE_UNSAFE. To be called before anything else listens to signals.
 */
export function keepMemoryPrivate(start: Start): void {
  leaveNothingToCore()
  leaveNothingToReports()
  inspector.close()
  const found = unsafeIn(start)
  if (found) throw new SidecarError('NODE_UNSAFE', `${found.setting} makes Node ${found.what}`)
}

/** A core dump then holds no memory at all (core(5)), for commands that we start as well. The limit of the size is out of Node's reach. */
const leaveNothingToCore = () => filterDumps('self', '0')

/** The kernel's default again: for a program that is about to take the place of this process, or for one that it started, which inherit the filter. */
export const leaveCoreAsUsual = (pid: number | 'self' = 'self'): void => filterDumps(pid, '0x33')

function filterDumps(pid: number | 'self', mask: string): void {
  try {
    writeFileSync(`/proc/${pid}/coredump_filter`, mask)
  } catch {
    // Not Linux, no /proc, or the process has ended or belongs to another user.
  }
}

/** Reports hold the environment, heap snapshots all strings. Both can be asked for by NODE_OPTIONS, and then come with a signal. */
function leaveNothingToReports(): void {
  const { report } = process
  if (report)
    Object.assign(report, { reportOnFatalError: false, reportOnSignal: false, reportOnUncaughtException: false })
  for (const event of process.eventNames()) if (String(event).startsWith('SIG')) process.removeAllListeners(event)
}

const UNSAFE_OPTIONS: Readonly<Record<string, string>> = {
  '--heapsnapshot-near-heap-limit': 'write its memory to a file when that runs short',
  '--tls-keylog': 'write to a file what its TLS connections can be read with',
  '--trace-tls': 'print its TLS connections',
  '--experimental-config-file': 'take options from a file, and such of this kind among them',
  '--experimental-default-config-file': 'take options from a file, and such of this kind among them',
}

function unsafeIn({ env, execArgv }: Start): { setting: string; what: string } | undefined {
  if (env.NODE_DEBUG) return { setting: 'NODE_DEBUG', what: 'print environments of commands and parts of messages' }
  // Quotes may stand anywhere in an option, and backslashes in quotes; Node takes _ for -.
  const written = (env.NODE_OPTIONS ?? '').replaceAll(/["\\]/g, '').split(/\s+/)
  const given = [...execArgv, ...written].map((text) => text.replaceAll('_', '-'))
  const [setting, what] =
    Object.entries(UNSAFE_OPTIONS).find(([option]) =>
      given.some((text) => text === option || text.startsWith(`${option}=`)),
    ) ?? []
  return setting === undefined || what === undefined ? undefined : { setting, what }
}
