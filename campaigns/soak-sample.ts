import { readdir, readFile, readlink } from 'node:fs/promises'
import type { SoakRig } from './soak-rig.ts'

/** What a process holds, seen from outside; `series` by name. */
export interface Sample {
  /** Monotonic, ms. */
  readonly at: number
  readonly series: Readonly<Record<string, number>>
}

/** Looks at certferry, at its target and at its volume once. */
export async function take({ certferry, nginx, directories }: SoakRig): Promise<Sample> {
  const { pid } = certferry
  const [status, kinds, children, workers, metrics, entries] = await Promise.all([
    readFile(`/proc/${pid}/status`, 'utf8'),
    descriptors(pid),
    childrenOf(pid),
    childrenOf(nginx.pid),
    certferry.get('/metrics'),
    Promise.all(directories.map((directory) => readdir(directory, { recursive: true }))),
  ])
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1])
  const files = entries.flat()
  return {
    at: performance.now(),
    series: {
      'anonymous memory': field('RssAnon') * 1024,
      'heap in use': metric(metrics.body, /^nodejs_heap_size_used_bytes (\S+)$/gm),
      'file descriptors': kinds.length,
      'of these, files': kinds.filter((kind) => kind === 'file').length,
      threads: field('Threads'),
      children: children.length,
      'active resources': metric(metrics.body, /^nodejs_active_resources\{[^}]*\} (\S+)$/gm),
      'of these, timers': metric(metrics.body, /^nodejs_active_resources\{type="Timeout"\} (\S+)$/gm),
      'processes of nginx': workers.length,
      generations: files.filter((path) => /^\.\.gen-[^/]+$/.test(path)).length,
      'entries on the volume': files.length,
    },
  }
}

/** Sum of all series that match. */
function metric(text: string, pattern: RegExp): number {
  return [...text.matchAll(pattern)].reduce((sum, [, value]) => sum + Number(value), 0)
}

/** The kind of each open descriptor: file, socket, pipe, anon_inode. */
async function descriptors(pid: number): Promise<string[]> {
  const names = await readdir(`/proc/${pid}/fd`)
  const targets = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => undefined)))
  return targets.flatMap((target) =>
    target === undefined ? [] : (/^(socket|pipe|anon_inode):/.exec(target)?.[1] ?? 'file'),
  )
}

/** Of every thread, as Node may fork from any. */
async function childrenOf(pid: number): Promise<string[]> {
  const threads = await readdir(`/proc/${pid}/task`)
  const lists = await Promise.all(
    threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/children`, 'utf8').catch(() => '')),
  )
  return lists.flatMap((list) => list.split(' ').filter((child) => child !== ''))
}
