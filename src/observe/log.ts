import type { Writable } from 'node:stream'
import { pino } from 'pino'
import { EVENTS, type EventMap, type EventName, type Level, type Observer } from './events.ts'
import { fieldsOf, isoTime } from './fields.ts'
import { prettyLine } from './pretty.ts'
import { createSink } from './sink.ts'

export interface LogOptions {
  /** Least severe level that is written. */
  readonly level: Level
  /** `auto`: pretty on a terminal, JSON elsewhere. */
  readonly format: 'auto' | 'json' | 'pretty'
}

export interface LogDeps {
  /** Wall clock, ms. */
  readonly now: () => number
  /** Where lines go; `process.stdout`, unless a test listens. */
  readonly destination: Writable & { readonly isTTY?: boolean }
}

export interface Log extends AsyncDisposable {
  readonly observe: Observer
  /** Lines dropped so far because nobody read them. */
  readonly dropped: number
}

/** Events as lines: constant message, data in fields. A destination that is closed or blocked costs lines, never the process. */
export function createLog(options: LogOptions, { now, destination }: LogDeps): Log {
  const sink = createSink(destination)
  const asPretty = options.format === 'pretty' || (options.format === 'auto' && destination.isTTY === true)
  const write = (line: string) => sink.write(asPretty ? prettyLine(line, destination) : line)
  let reported = 0
  const logger = pino(
    {
      level: options.level,
      base: null,
      timestamp: () => `,"time":"${isoTime(now())}"`,
      formatters: { level: (level) => ({ level }) },
    },
    { write },
  )
  const tell = <Name extends EventName>(name: Name, event: EventMap[Name]) => {
    const kind = EVENTS[name]
    const level = kind.escalate?.(event) ?? kind.level
    if (logger.isLevelEnabled(level)) logger[level]({ event: name, ...fieldsOf(event) }, kind.message)
  }
  return {
    observe(name, event) {
      const before = sink.dropped
      tell(name, event)
      if (sink.dropped > before || before === reported) return
      // Lines find room again: now is the time to say how many did not.
      tell('log.dropped', { lines: before - reported })
      if (sink.dropped === before) reported = before
    },
    get dropped() {
      return sink.dropped
    },
    [Symbol.asyncDispose]: () => sink[Symbol.asyncDispose](),
  }
}
