import { systemClock } from '../clock.ts'
import { type Config, loadConfig } from '../config/config.ts'
import { digest, watchConfig } from '../config/watch.ts'
import { SidecarError } from '../errors.ts'
import { keepHeapSmall } from '../footprint.ts'
import { openService } from '../service.ts'
import type { Io } from './io.ts'

/** The sidecar, until the first SIGTERM or SIGINT; with the webhook where the config has the section `injector`, whatever `needs` says. */
export async function run(file: string, io: Io, { needs }: { readonly needs?: 'injector' } = {}): Promise<void> {
  let hungUp = false
  let refresh = () => {
    hungUp = true
  }
  io.onHangup(() => refresh())
  // Before it is read, so that no change goes by unseen until it is watched.
  const known = digest(file)
  const config = loadConfig(file, io.env)
  if (needs === 'injector') assertInjector(config)
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

function assertInjector({ file, injector }: Config): void {
  if (injector) return
  throw new SidecarError(
    'CONFIG_INVALID',
    `${file} has no section injector: with certificate and image at least, certferry injector serves the admission webhook`,
  )
}

const nameOf = ({ reason }: AbortSignal): string => (reason instanceof Error ? reason.message : 'unknown')

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
