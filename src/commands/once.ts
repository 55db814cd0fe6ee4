import { styleText } from 'node:util'
import { systemClock } from '../clock.ts'
import { loadConfig } from '../config/config.ts'
import { NEVER } from '../core/content.ts'
import { formatDuration } from '../core/units.ts'
import type { AnyLoop } from '../loop.ts'
import { combine } from '../observe/index.ts'
import { createLog } from '../observe/log.ts'
import { startSidecar } from '../sidecar.ts'
import { type Io, print } from './io.ts'
import { isSettled, whyStopped } from './settled.ts'

/**
 * Obtains what is missing or due, delivers it, and ends: for an init container or cron. A target that is not there yet is
 * not waited for. Throws TIMED_OUT with what each certificate still lacks when the time is up.
 */
export async function once(file: string, timeoutMs: number, io: Io): Promise<void> {
  const config = loadConfig(file, io.env)
  const signal = AbortSignal.any([io.signal, AbortSignal.timeout(timeoutMs)])
  await using log = createLog(
    { ...config.log, level: config.log.level === 'debug' ? 'debug' : 'warn' },
    { now: systemClock.now, destination: io.stderr },
  )
  const settled = new Set<string>()
  const all = Promise.withResolvers<void>()
  await using sidecar = startSidecar(config, {
    clock: systemClock,
    emit: combine(log.observe),
    env: io.env,
    // What it delivers is in use after its end.
    keepsTokens: config.secrets.length > 0,
    changed: (loop) => {
      if (!isSettled(loop) || settled.has(loop.cert.name)) return
      settled.add(loop.cert.name)
      print(io, line(loop, io))
      if (settled.size === config.certificates.length + config.secrets.length + config.trust.length) all.resolve()
    },
  })
  const stopped = Promise.withResolvers<never>()
  signal.addEventListener('abort', () => stopped.reject(whyStopped(io, timeoutMs, sidecar, settled)), {
    once: true,
  })
  await Promise.race([all.promise, stopped.promise, sidecar.failed])
}

function line({ cert, report }: AnyLoop, io: Io): string {
  const { serving, rotatedAt, verification } = report?.state ?? {}
  const fate = rotatedAt === undefined ? 'still good' : 'obtained'
  const proof = {
    // A secret has nobody to ask.
    none: 'readings' in (serving ?? {}) ? '' : ', not verified: no verifier',
    pending: ', target not there yet',
    verified: ', verified',
    failed: '',
  }[verification ?? 'pending']
  const ends = serving && serving.notAfter !== NEVER
  const left = ends ? `, expires in ${formatDuration(serving.notAfter - systemClock.now())}` : ''
  const places = [...new Set(cert.outputs.map((output) => output.directory))].join(', ')
  return `${styleText('green', '✓', { stream: io.stdout })} ${cert.name}  ${fate}${left}${proof}  ${styleText('dim', places, { stream: io.stdout })}`
}
