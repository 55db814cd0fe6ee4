import { readdirSync } from 'node:fs'
import { type EventLoopUtilization, performance } from 'node:perf_hooks'
import type { PROCESS_METRICS } from './metric-table.ts'

type Reading = readonly [value: number, labels?: Readonly<Record<string, string>>]

/**
 * A handful of readings instead of prom-client's 33 default families: those cost memory, and keep a GC observer and a loop
 * monitor running for as long as the process lives, once per registry.
 */
export function processReadings(): Record<keyof typeof PROCESS_METRICS, () => readonly Reading[]> {
  const startedAt = Date.now() / 1000 - process.uptime()
  let last: EventLoopUtilization | undefined
  return {
    process_cpu_seconds_total: () => {
      const { user, system } = process.cpuUsage()
      return [[(user + system) / 1e6]]
    },
    process_resident_memory_bytes: () => [[process.memoryUsage.rss()]],
    process_start_time_seconds: () => [[startedAt]],
    process_open_fds: () => openFds(),
    nodejs_active_resources: () =>
      [...Map.groupBy(process.getActiveResourcesInfo(), (type) => type)].map(([type, all]) => [all.length, { type }]),
    nodejs_heap_size_used_bytes: () => [[process.memoryUsage().heapUsed]],
    nodejs_eventloop_utilization: () => {
      const total = performance.eventLoopUtilization()
      const since = last ? performance.eventLoopUtilization(total, last) : total
      last = total
      return [[since.utilization]]
    },
  }
}

/** Nothing where there is no /proc, or no descriptor left to read it with. */
function openFds(): readonly Reading[] {
  try {
    // Less the one that reads the directory.
    return [[readdirSync('/proc/self/fd').length - 1]]
  } catch {
    return []
  }
}
