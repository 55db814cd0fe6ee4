import { createHash } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { Secret } from '../core/secret.ts'
import type { ReloadContext, Reloader } from './reloader.ts'

export interface Pace {
  /** A reload begins once no call came for this long, ms … */
  readonly quietMs: number
  /** … and at the latest this long after the first call, ms. */
  readonly maxMs: number
}

/**
 * A reloader for certificates that share a target: calls that arrive within the quiet time, or while an earlier reload runs, are served by
 * one reload that begins after all of them. At most one runs and one waits. Each caller gets the result of the reload that covers it.
 * A caller that aborts leaves alone; the reload itself is aborted when the last caller it serves leaves.
 */
export function coalesce(reloader: Reloader, clock: Clock, pace: Pace = { quietMs: 500, maxMs: 5_000 }): Reloader {
  let waiting: Batch | undefined
  let running: Promise<void> = Promise.resolve()

  const serve = async (batch: Batch): Promise<void> => {
    const { signal } = batch.abort
    try {
      await untilQuiet(batch, clock, pace)
      await Promise.race([running, rejection(signal)])
    } finally {
      if (waiting === batch) waiting = undefined
    }
    const result = reloader.reload(merge(batch.contexts), signal)
    running = result.catch(() => {})
    await result
  }

  return {
    ...reloader,
    reload: async (context, signal) => {
      signal.throwIfAborted()
      if (!waiting || waiting.abort.signal.aborted) {
        waiting = open(clock)
        waiting.result = serve(waiting)
      }
      await join(waiting, context, clock, signal)
    },
  }
}

interface Batch {
  readonly contexts: ReloadContext[]
  readonly openedAt: number
  readonly abort: AbortController
  lastCallAt: number
  callers: number
  result: Promise<void>
}

const open = (clock: Clock): Batch => ({
  contexts: [],
  openedAt: clock.elapsed(),
  abort: new AbortController(),
  lastCallAt: clock.elapsed(),
  callers: 0,
  result: Promise.resolve(),
})

function join(batch: Batch, context: ReloadContext, clock: Clock, signal: AbortSignal): Promise<void> {
  batch.contexts.push(context)
  batch.lastCallAt = clock.elapsed()
  batch.callers += 1
  return new Promise((resolve, reject) => {
    const leave = () => {
      batch.callers -= 1
      if (batch.callers > 0) reject(signal.reason)
      // The last one stays until the reload has ended, so that no command is left behind.
      else batch.abort.abort(signal.reason)
    }
    signal.addEventListener('abort', leave, { once: true })
    batch.result.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave))
  })
}

async function untilQuiet(batch: Batch, clock: Clock, { quietMs, maxMs }: Pace): Promise<void> {
  const rest = () => Math.min(batch.lastCallAt + quietMs, batch.openedAt + maxMs) - clock.elapsed()
  for (let ms = rest(); ms > 0; ms = rest()) await clock.sleep(ms, batch.abort.signal)
}

const rejection = (signal: AbortSignal) =>
  new Promise<never>((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })

/** All names and directories, the shortest life, first only if all are; the serial and notAfter are those of the certificate that came last. */
function merge(contexts: readonly ReloadContext[]): ReloadContext {
  const last = contexts.at(-1)
  if (!last) throw new TypeError('a reload without a caller')
  return {
    ...last,
    certificates: [...new Set(contexts.flatMap(({ certificates }) => certificates))],
    lifetimeMs: Math.min(...contexts.map(({ lifetimeMs }) => lifetimeMs)),
    isFirst: contexts.every(({ isFirst }) => isFirst),
    directories: [...new Set(contexts.flatMap(({ directories }) => directories))],
  }
}

/** The same for reloaders with the same options in whatever order: certificates that name one target share it. Tells no secret. */
export const targetKey = (options: object): string =>
  createHash('sha256')
    .update(JSON.stringify(canonical(options)))
    .digest('hex')

function canonical(value: unknown): unknown {
  if (value instanceof Secret) return ['secret', canonical(value.reveal())]
  if (Array.isArray(value)) return value.map(canonical)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => [name, canonical(member)]),
  )
}
