import { systemClock } from '../clock.ts'
import { loadConfig } from '../config/config.ts'
import { digest, watchConfig } from '../config/watch.ts'
import { keepHeapSmall } from '../footprint.ts'
import { openService } from '../service.ts'
import type { Io } from './io.ts'

/** The sidecar, until the first SIGTERM or SIGINT. */
export async function run(file: string, io: Io): Promise<void> {
  let hungUp = false
  let refresh = () => {
    hungUp = true
  }
  io.onHangup(() => refresh())
  // Before it is read, so that no change goes by unseen until it is watched.
  const known = digest(file)
  const config = loadConfig(file, io.env)
  keepHeapSmall(config.certificates.length)
  await using service = await openService(config, { clock: systemClock, env: io.env, destination: io.stdout })
  refresh = () => void service.refresh()
  // Opening takes a while: whoever asked meanwhile is not to be forgotten.
  if (hungUp) refresh()
  const ended = new AbortController()
  const watching = watchConfig(file, known, refresh, systemClock, AbortSignal.any([io.signal, ended.signal]))
  try {
    await Promise.race([service.failed, aborted(io.signal)])
    service.emit('sidecar.stopped', { signal: nameOf(io.signal) })
  } finally {
    ended.abort()
    await watching
  }
}

const nameOf = ({ reason }: AbortSignal): string => (reason instanceof Error ? reason.message : 'unknown')

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
