import type { Writable } from 'node:stream'
import { systemCode } from '../errors.ts'

/** Where lines go, without ever holding the process up. */
export interface Sink extends AsyncDisposable {
  /** False when the line was dropped: the reader is gone, or so slow that `limit` bytes wait for it. Never throws. */
  write(line: string): boolean
  /** Lines dropped so far. */
  readonly dropped: number
}

const LIMIT_BYTES = 1024 * 1024
const FLUSH_MS = 500

/**
 * Node writes to a pipe at once where there is room and queues what remains, without a thread: a reader that stops reading
 * costs memory up to `limit`, then lines, but never a stop. (A queue in the thread pool, as pino's own destination has,
 * keeps the process from exiting while the pipe is full.)
 */
export function createSink(stream: Writable, limit = LIMIT_BYTES, flushMs = FLUSH_MS): Sink {
  let dropped = 0
  let broken = false
  // EPIPE, EIO of a terminal that has gone: nobody reads any more, and that is no reason to end. A full disk passes.
  const onError = (error: Error) => {
    dropped += 1
    broken ||= !['ENOSPC', 'EDQUOT'].includes(systemCode(error) ?? '')
  }
  stream.on('error', onError)
  return {
    get dropped() {
      return dropped
    },
    write(line) {
      const room = !broken && stream.writable && stream.writableLength + line.length <= limit
      if (room) stream.write(line)
      else dropped += 1
      return room
    },
    async [Symbol.asyncDispose]() {
      if (!broken) await flushed(stream, flushMs)
      // What is still queued may fail later, when nobody would listen.
      if (stream.writableLength === 0) stream.off('error', onError)
    },
  }
}

/** Resolves when the queue is empty, at the latest after `ms`. */
async function flushed(stream: Writable, ms: number): Promise<void> {
  if (stream.writableLength === 0) return
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  stream.write('', () => resolve())
  await promise
  clearTimeout(timer)
}
