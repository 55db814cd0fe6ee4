import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { attachToWaits } from '../test/support/strace.ts'

export interface WakeUps {
  readonly seconds: number
  /** How often the process began to run after a rest of all its threads. */
  readonly count: number
  /** What ended the rest, and how often. */
  readonly causes: ReadonlyMap<string, number>
}

/** Watches by strace for so long which waits of a process end. */
export async function watchWakeUps(pid: number, seconds: number): Promise<WakeUps> {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-bench-strace-'))
  const log = join(folder, 'log')
  try {
    {
      await using _strace = await attachToWaits(pid, log)
      await sleep(seconds * 1000)
    }
    const all = firstOfEach(wakeUpsIn(readFileSync(log, 'utf8')))
    const causes = Map.groupBy(all, ({ thread, cause }) => `${threadName(pid, thread)}: ${cause}`)
    return {
      seconds,
      count: all.length,
      causes: new Map([...causes].map(([cause, list]): [string, number] => [cause, list.length])),
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

export interface WakeUp {
  /** Seconds since 1970. */
  readonly at: number
  readonly thread: string
  /** A timer with the time it was set for, or something that happened. */
  readonly cause: string
}

/** A call that took less has not rested. */
const REST_SECONDS = 0.001
/** Threads that one event wakes follow each other within this time. */
const TOGETHER_SECONDS = 0.01

/** The ends of all waits in a log of `strace -f -ttt -T`, in the order of time. */
export function wakeUpsIn(log: string): WakeUp[] {
  const begun = new Map<string, string>()
  return log
    .split('\n')
    .flatMap((line) => {
      const [, thread = '', time, resumed, rest = ''] =
        /^(\d+) +(\d+\.\d+) (<\.\.\. \w+ resumed>)?(.*)$/.exec(line) ?? []
      if (rest.endsWith('<unfinished ...>')) begun.set(thread, rest)
      const took = /<(\d+\.\d+)>$/.exec(rest)?.[1]
      if (took === undefined || Number(took) < REST_SECONDS) return []
      const call = resumed === undefined ? rest : `${begun.get(thread)}${rest}`
      // A call that nothing came between is logged with its beginning, another with its end.
      return [
        { at: Number(time) + (resumed === undefined ? Number(took) : 0), thread, cause: causeOf(call, Number(took)) },
      ]
    })
    .sort((a, b) => a.at - b.at)
}

function causeOf(call: string, seconds: number): string {
  const isTimer = /^(?:clock_)?nanosleep/.test(call) || call.includes('ETIMEDOUT') || /^\w*poll\w*\(.*= 0 </.test(call)
  if (!isTimer) return 'an event'
  return `a timer of about ${seconds < 0.95 ? Math.max(seconds, 0.1).toFixed(1) : Math.round(seconds)} s`
}

/** One for each time that the whole process rested. */
function firstOfEach(all: readonly WakeUp[]): WakeUp[] {
  return all.filter(({ at }, index) => at - (all[index - 1]?.at ?? 0) > TOGETHER_SECONDS)
}

function threadName(pid: number, thread: string): string {
  try {
    return readFileSync(`/proc/${pid}/task/${thread}/comm`, 'utf8').trim()
  } catch {
    return 'a thread that ended'
  }
}
