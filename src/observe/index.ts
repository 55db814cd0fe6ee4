import { toSidecarError } from '../errors.ts'
import { type Audit, openAudit } from './audit.ts'
import type { Emit, Observer } from './events.ts'
import { createLog, type LogDeps, type LogOptions } from './log.ts'
import type { Metrics, MetricsDeps } from './metrics.ts'
import type { SidecarStatus } from './status.ts'

/** One `Emit` that tells all observers, in order, and never throws: one that fails is reported to the others. */
export function combine(...observers: readonly Observer[]): Emit {
  return (name, event) => {
    for (const observer of observers) {
      try {
        observer(name, event)
      } catch (thrown) {
        const error = toSidecarError(thrown)
        const failure = { code: error.code, message: `an observer failed on ${name}: ${error.message}`, error }
        for (const other of observers) if (other !== observer) attempt(() => other('internal.error', failure))
      }
    }
  }
}

/** Whoever fails to hear of a failure is not told of that as well. */
function attempt(tell: () => void): void {
  try {
    tell()
  } catch {}
}

export interface ObserversOptions {
  readonly version: string
  readonly log: LogOptions
  readonly audit?: { readonly file: string } | undefined
}

export interface ObserversDeps extends LogDeps {
  /** For the metrics, read at each scrape. */
  readonly snapshot: () => SidecarStatus
  /** Told besides the log, the metrics and the audit log. */
  readonly also?: readonly Observer[]
}

export interface Observers extends AsyncDisposable {
  readonly emit: Emit
  /** Loads what counts, 20 ms of a start (docs/performance.md). Events that came before are counted as well. */
  loadMetrics(): Promise<Metrics>
}

/** Log, metrics and audit log of one sidecar. Throws as `openAudit` does. Disposing flushes the log. */
export function createObservers(
  { version, log: logOptions, audit: auditOptions }: ObserversOptions,
  { now, destination, snapshot, also = [] }: ObserversDeps,
): Observers {
  const audit: Audit | undefined =
    auditOptions && openAudit(auditOptions.file, { now, emit: (name, event) => emit(name, event) })
  const log = createLog(logOptions, { now, destination })
  const metrics = createLateMetrics({
    version,
    snapshot,
    logDropped: () => log.dropped,
    auditLost: () => audit?.lost ?? 0,
  })
  const emit = combine(log.observe, metrics.observe, ...(audit ? [audit.observe] : []), ...also)
  return {
    emit,
    loadMetrics: metrics.load,
    async [Symbol.asyncDispose]() {
      audit?.[Symbol.dispose]()
      await log[Symbol.asyncDispose]()
    },
  }
}

type Told = Parameters<Observer>

/** Keeps events until it is loaded. */
function createLateMetrics(deps: MetricsDeps): { readonly observe: Observer; load(): Promise<Metrics> } {
  const early: Told[] = []
  let metrics: Metrics | undefined
  return {
    observe: (...told: Told) => {
      if (metrics) metrics.observe(...told)
      else early.push(told)
    },
    load: async () => {
      const { createMetrics } = await import('./metrics.ts')
      metrics ??= createMetrics(deps)
      for (const told of early.splice(0)) metrics.observe(...told)
      return metrics
    },
  }
}
