import { readdir, readFile, readlink } from 'node:fs/promises'
import { constants } from 'node:os'
import { basename } from 'node:path'
import type { Instant } from '../core/bundle.ts'

/** A running process, by proc(5). */
export interface ProcessInfo {
  readonly pid: number
  readonly parent: number
  /** The names it goes by: its comm (at most 15 bytes, and the process may change it) and the file name of its program. */
  readonly names: readonly string[]
  /** When it started, by today's wall clock; right to about a second. */
  readonly startedAt: Instant
}

/** The process with this id; undefined when there is none, when it is a zombie, or when /proc hides it from this user. */
export async function processById(pid: number): Promise<ProcessInfo | undefined> {
  return describe(pid, await bootTime())
}

/** The processes called `name` whose parent is not: of a server with workers that is the master. This process does not count. */
export async function mastersNamed(name: string): Promise<ProcessInfo[]> {
  const boot = await bootTime()
  const all = new Map<number, ProcessInfo>()
  for (const entry of await readdir('/proc')) {
    const found = /^\d+$/.test(entry) ? await describe(Number(entry), boot) : undefined
    if (found && isNamed(found, name) && found.pid !== process.pid) all.set(found.pid, found)
  }
  return [...all.values()].filter(({ parent }) => !all.has(parent))
}

/** The kernel cuts a comm to 15 bytes. */
export const isNamed = ({ names }: ProcessInfo, name: string): boolean =>
  names.includes(name) || names[0] === Buffer.from(name).subarray(0, 15).toString()

/** Fields 3, 4 and 22 of /proc/PID/stat come after the comm, which may itself hold spaces and brackets. */
async function describe(pid: number, boot: Instant): Promise<ProcessInfo | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  if (stat === undefined) return undefined
  const end = stat.lastIndexOf(')')
  const fields = stat.slice(end + 2).split(' ')
  if (fields[0] === 'Z' || fields[0] === 'X') return undefined
  // Readable for processes of the same user only.
  const program = await readlink(`/proc/${pid}/exe`).catch(() => undefined)
  return {
    pid,
    parent: Number(fields[1]),
    names: [
      stat.slice(stat.indexOf('(') + 1, end),
      ...(program ? [basename(program.replace(/ \(deleted\)$/, ''))] : []),
    ],
    startedAt: boot + (Number(fields[19]) / TICKS_PER_SECOND) * 1000,
  }
}

/** USER_HZ, which is 100 on every platform that Node runs on. */
const TICKS_PER_SECOND = 100

async function bootTime(): Promise<Instant> {
  const seconds = /^btime (\d+)$/m.exec(await readFile('/proc/stat', 'utf8'))?.[1]
  return Number(seconds) * 1000
}

/** These are there to end a process, which may be what is wanted. */
const ENDING: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGINT', 'SIGQUIT']

/**
 * Whether a signal reaches a process as a request. One that a process neither catches nor waits for would end it, or be lost: it is about to
 * start, or takes no such signal (proc_pid_status(5)).
 */
export async function takes(pid: number, signal: NodeJS.Signals): Promise<boolean> {
  if (ENDING.includes(signal)) return true
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => undefined)
  // Gone in this moment: whoever signals it finds out.
  if (status === undefined) return true
  const masks = status.matchAll(/^Sig(?:Cgt|Blk):\t([0-9a-f]+)$/gm)
  const bit = 1n << BigInt(constants.signals[signal] - 1)
  return masks.some(([, mask = '']) => (BigInt(`0x${mask}`) & bit) !== 0n)
}
