import { abortable } from '../abortable.ts'

/** Runs at most `max` actions at a time; the others wait in the order they came, and leave the queue when their signal aborts. */
export function limiter(max: number) {
  let running = 0
  const waiting = new Set<() => void>()

  const next = () => {
    const [first] = waiting
    if (!first || running >= max) return
    waiting.delete(first)
    running += 1
    first()
  }

  return async <T>(action: () => Promise<T>, signal: AbortSignal): Promise<T> => {
    signal.throwIfAborted()
    const { promise: turn, resolve: start } = Promise.withResolvers<void>()
    waiting.add(start)
    next()
    await abortable(turn, signal).catch((reason: unknown) => {
      // The turn may have come in the same instant as the abort.
      if (!waiting.delete(start)) leave()
      throw reason
    })
    return action().finally(leave)
  }

  function leave() {
    running -= 1
    next()
  }
}
