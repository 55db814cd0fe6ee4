import { readdirSync, readFileSync } from 'node:fs'

export interface Memory {
  readonly residentBytes: number
  /** Memory of its own that no file backs: what counts against a limit when files are evicted. */
  readonly anonymousBytes: number
  /** The most that was ever resident. */
  readonly peakBytes: number
}

/** proc(5): smaps_rollup and status, in kB. */
export function memoryOf(pid: number): Memory {
  const [rollup, status] = ['smaps_rollup', 'status'].map((file) => readFileSync(`/proc/${pid}/${file}`, 'utf8'))
  const bytes = (text: string | undefined, field: string) => numberOf(text, field) * 1024
  return {
    residentBytes: bytes(rollup, 'Rss'),
    anonymousBytes: bytes(rollup, 'Anonymous'),
    peakBytes: bytes(status, 'VmHWM'),
  }
}

/** Open files, sockets and the like. */
export const descriptorsOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length

/** How many this system lets a process have. */
export const mostDescriptors = (): number =>
  Number(/^Max open files +\d+ +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])

/** What each thread has used since it began. */
export interface Usage {
  readonly at: number
  readonly threads: ReadonlyMap<string, { readonly cpuNs: number; readonly switches: number }>
}

/** Nanoseconds on a processor, from schedstat, as the ticks of `stat` are 10 ms long; and voluntary context switches: each is an end of work, thus a wake-up before. */
export function usageOf(pid: number): Usage {
  const threads = new Map(
    readdirSync(`/proc/${pid}/task`).map((thread) => {
      const read = (file: string) => readFileSync(`/proc/${pid}/task/${thread}/${file}`, 'utf8')
      const cpuNs = Number(read('schedstat').split(' ')[0])
      return [thread, { cpuNs, switches: numberOf(read('status'), 'voluntary_ctxt_switches') }]
    }),
  )
  return { at: performance.now(), threads }
}

export interface Spent {
  readonly seconds: number
  readonly cpuMs: number
  readonly switches: number
}

/** Between two looks, by the threads that were there at the second one. */
export function spent(before: Usage, after: Usage): Spent {
  let [cpuNs, switches] = [0, 0]
  for (const [thread, now] of after.threads) {
    const then = before.threads.get(thread)
    cpuNs += now.cpuNs - (then?.cpuNs ?? 0)
    switches += now.switches - (then?.switches ?? 0)
  }
  return { seconds: (after.at - before.at) / 1000, cpuMs: cpuNs / 1e6, switches }
}

const numberOf = (text: string | undefined, field: string) =>
  Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(text ?? '')?.[1])
