import { systemClock } from '../clock.ts'
import { loadConfig } from '../config/config.ts'
import { watchConfig } from '../config/watch.ts'
import { openService } from '../service.ts'
import type { Io } from './io.ts'

/** The sidecar, until the first SIGTERM or SIGINT. */
export async function run(file: string, io: Io): Promise<void> {
  const config = loadConfig(file, io.env)
  await using service = await openService(config, { clock: systemClock, env: io.env, destination: io.stdout })
  const refresh = () => void service.refresh()
  io.onHangup(refresh)
  const watching = watchConfig(file, refresh, systemClock, io.signal)
  await Promise.race([service.failed, aborted(io.signal)])
  service.emit('sidecar.stopped', { signal: io.signal.reason instanceof Error ? io.signal.reason.message : 'unknown' })
  await watching
}

export const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
