import { readdirSync, readFileSync } from 'node:fs'

/** The processes of a command besides its first. */
export interface Kin {
  /**
   * Ids of those that run now: members of the session that `root` leads, where it leads one, and descendants of those seen before or, while
   * `isRunning`, of `root`. What made a session of its own and was orphaned before it was seen escapes.
   */
  left(isRunning: boolean): number[]
}

export function kinOf(root: number): Kin {
  /** When each began: an id alone may have gone to somebody else. */
  const seen = new Map<number, string>()
  return {
    left: (isRunning) => {
      const all = running()
      const now = new Map(all.map(({ pid, startedAt }) => [pid, startedAt]))
      for (const [pid, startedAt] of seen) if (now.get(pid) !== startedAt) seen.delete(pid)
      const isKin = ({ parent, session }: Running) =>
        session === root || seen.has(parent) || (isRunning && parent === root)
      for (let before = -1; before < seen.size; ) {
        before = seen.size
        for (const one of all) if (one.pid !== root && isKin(one)) seen.set(one.pid, one.startedAt)
      }
      return [...seen.keys()]
    },
  }
}

/** The terminal that this process was started from, if any: what is typed there, such as Ctrl-C, the kernel sends to the group in its foreground. */
export interface Terminal {
  /** Whether this process, and so every member of its group, is sent that. */
  isForeground(): boolean
}

export function controllingTerminal(): Terminal | undefined {
  if (statusOf('self')?.hasTerminal !== true) return undefined
  return { isForeground: () => statusOf('self')?.isForeground === true }
}

interface Running {
  readonly pid: number
  readonly parent: number
  readonly session: number
  /** In ticks since the boot. */
  readonly startedAt: string
  readonly hasTerminal: boolean
  readonly isForeground: boolean
}

const running = (): Running[] =>
  idsIn('/proc').flatMap((pid) => {
    const one = statusOf(pid)
    return one ? [one] : []
  })

function idsIn(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => /^\d+$/.test(name))
  } catch {
    return []
  }
}

/** By /proc/PID/stat (proc_pid_stat(5)), whose fields from the third on follow a name that may itself hold spaces and brackets. No zombies. */
function statusOf(pid: string): Running | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const [state = '', parent, group, session, terminal, foreground, ...more] = text
      .slice(text.lastIndexOf(')') + 2)
      .split(' ')
    if ('ZX'.includes(state)) return undefined
    return {
      pid: Number.parseInt(text, 10),
      parent: Number(parent),
      session: Number(session),
      startedAt: more[13] ?? '',
      hasTerminal: terminal !== '0',
      isForeground: terminal !== '0' && foreground === group,
    }
  } catch {
    return undefined
  }
}
