import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../../test/support/nginx.ts'
import { bareNode } from '../bare-node.ts'
import { type Contender, likeTheImage } from '../contenders.ts'
import { launch } from '../launch.ts'
import { type Memory, memoryOf, type Spent, spent, usageOf } from '../proc.ts'
import { type Participant, valuesOf } from '../rounds.ts'
import { type Bench, type Detail, MEGABYTE, type Row } from '../row.ts'
import { type WakeUps, watchWakeUps } from '../wake-ups.ts'

/** By the tick of certificates that live long (src/scheduler.ts). */
const TICK_SECONDS = 30
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
    const all = [...bench.contenders.map((contender) => delivered(contender, bench)), ticking(bench)]
    const results = new Map(
      await Promise.all(all.map(async ({ name, measure }): Promise<[string, Idle[]]> => [name, [await measure()]])),
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
          targets: [{ plus: 60 / TICK_SECONDS }],
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
        `Processor time is from schedstat, in ns, of all threads, over ${minutes} in which nobody asks for anything; all contenders idle at the same time. Wake-ups are counted afterwards by strace: how often any thread ends a wait after a rest of all. The target is one each tick of ${TICK_SECONDS} s. Bare node is one that does nothing but set a timer for each tick, with the flags of certferry.`,
      ],
    }
  },
}

const delivered = (contender: Contender, bench: Bench): Participant<Idle> => ({
  name: contender.name,
  measure: async () => {
    await using running = await launch(contender, bench, { metricsPort: await freePort() })
    await running.delivered()
    return await watch(running.pid, bench)
  },
})

/** What the same ticks cost a Node that does nothing at them. */
const ticking = (bench: Bench): Participant<Idle> => ({
  name: 'bare node',
  measure: async () => {
    const { flags, env } = likeTheImage(bench.compileCache)
    await using node = bareNode([...flags, '-e', `setInterval(() => {}, ${TICK_SECONDS * 1000})`], env)
    return await watch(node.pid, bench)
  },
})

async function watch(pid: number, { size: { idleMinutes, settleMs } }: Bench): Promise<Idle> {
  await sleep(settleMs)
  const before = usageOf(pid)
  await sleep(idleMinutes * 60_000)
  const usage = spent(before, usageOf(pid))
  const memory = memoryOf(pid)
  const wakeUps = await watchWakeUps(pid, Math.min(idleMinutes * 60, LONGEST_STRACE_SECONDS))
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
