import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../test/support/nginx.ts'
import type { Contender } from '../contenders.ts'
import { launch } from '../launch.ts'
import { type Memory, type Spent, spent, usageOf } from '../proc.ts'
import { valuesOf } from '../rounds.ts'
import { type Bench, type Detail, MEGABYTE, type Row } from '../row.ts'
import { type WakeUps, watchWakeUps } from '../wake-ups.ts'

/** 60 s by the tick of 15 s (src/scheduler.ts). */
const TICKS_A_MINUTE = 4
const LONGEST_STRACE_SECONDS = 60

interface Idle {
  readonly usage: Spent
  readonly memory: Memory
  readonly wakeUps: WakeUps
}

export const idle: Row = {
  name: 'idle',
  title: 'processor time and wake-ups, idle, one certificate',
  run: async (bench) => {
    const { idleMinutes } = bench.size
    const minutes = `${idleMinutes} min`
    bench.progress(`all idle for ${minutes} at the same time, then for a minute under strace`)
    const all = await Promise.all(bench.contenders.map((contender) => watch(contender, bench)))
    const results = new Map(
      bench.contenders.map(({ name }, index): [string, Idle[]] => [name, all.slice(index, index + 1)]),
    )
    return {
      figures: [
        {
          title: `idle for ${minutes}, one certificate: processor time`,
          unit: '% of a core',
          digits: 4,
          values: valuesOf(results, ({ usage }) => usage.cpuMs / 10 / usage.seconds),
          targets: [{ plus: 0.05 }],
        },
        {
          title: 'idle: wake-ups of the process',
          unit: 'a minute',
          digits: 1,
          values: valuesOf(results, ({ wakeUps }) => (wakeUps.count * 60) / wakeUps.seconds),
          targets: [{ plus: TICKS_A_MINUTE }],
        },
        {
          title: 'idle: voluntary context switches of all threads',
          unit: 'a minute',
          digits: 0,
          values: valuesOf(results, ({ usage }) => (usage.switches * 60) / usage.seconds),
          targets: [],
        },
        {
          title: `anonymous memory after ${minutes}`,
          unit: 'MB',
          digits: 1,
          values: valuesOf(results, ({ memory }) => memory.anonymousBytes / MEGABYTE),
          targets: [],
        },
      ],
      details: [causesOf(results)],
      notes: [
        `Processor time is from schedstat, in ns, of all threads, over ${minutes} in which nobody asks for anything; all contenders idle at the same time. Wake-ups are counted afterwards by strace: how often any thread ends a wait after a rest of all. The target is one each tick of 15 s.`,
      ],
    }
  },
}

async function watch(contender: Contender, bench: Bench): Promise<Idle> {
  const { idleMinutes, settleMs } = bench.size
  await using running = await launch(contender, bench, { metricsPort: await freePort() })
  await running.delivered()
  await sleep(settleMs)
  const before = usageOf(running.pid)
  await sleep(idleMinutes * 60_000)
  const usage = spent(before, usageOf(running.pid))
  const memory = running.memory()
  const wakeUps = await watchWakeUps(running.pid, Math.min(idleMinutes * 60, LONGEST_STRACE_SECONDS))
  return { usage, memory, wakeUps }
}

function causesOf(results: ReadonlyMap<string, readonly Idle[]>): Detail {
  const lines = [...results].flatMap(([name, all]) =>
    all.flatMap(({ wakeUps: { causes, seconds } }) =>
      [...causes]
        .sort(([, a], [, b]) => b - a)
        .map(([cause, count]) => [name, cause, ((count * 60) / seconds).toFixed(1)]),
    ),
  )
  return { title: 'What wakes an idle process', head: ['who', 'thread and cause', 'times a minute'], lines }
}
