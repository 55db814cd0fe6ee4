import { setTimeout as sleep } from 'node:timers/promises'
import { formatDuration } from '../core/units.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import type { CertificateStatus } from '../observe/status.ts'
import { count, type Io, print } from './io.ts'
import { connectTo, type SocketOptions } from './socket.ts'

const PERIOD_MS = 200

/** Returns when the named certificates, or all, have a valid set on disk. A sidecar that is not up yet is waited for as well. */
export async function wait(
  names: readonly string[],
  options: SocketOptions & { readonly timeout: number },
  io: Io,
): Promise<void> {
  const client = connectTo(options, io)
  const timeout = AbortSignal.timeout(options.timeout)
  const signal = AbortSignal.any([io.signal, timeout])
  let missing = 'no answer yet'
  while (!signal.aborted) {
    try {
      const { certificates } = await client.status(signal)
      assertKnown(names, certificates)
      const awaited = certificates.filter(
        ({ name, phase }) => (names.length === 0 || names.includes(name)) && phase !== 'ACTIVE' && phase !== 'DEGRADED',
      )
      if (awaited.length === 0) return print(io, `ready: ${count(names.length || certificates.length, 'certificate')}`)
      missing = awaited
        .map(({ name, phase, reason }) => `${name} is ${phase}${reason ? ` (${reason})` : ''}`)
        .join(', ')
    } catch (thrown) {
      if (signal.aborted) break
      const error = toSidecarError(thrown)
      if (error.code !== 'SIDECAR_UNREACHABLE') throw error
      missing = error.message
    }
    await sleep(PERIOD_MS, undefined, { signal }).catch(() => {})
  }
  throw new SidecarError(
    'TIMED_OUT',
    timeout.aborted ? `not ready within ${formatDuration(options.timeout)}: ${missing}` : `interrupted: ${missing}`,
  )
}

function assertKnown(names: readonly string[], certificates: readonly CertificateStatus[]): void {
  const unknown = names.filter((name) => !certificates.some((certificate) => certificate.name === name))
  if (unknown.length > 0)
    throw new SidecarError(
      'USAGE',
      `no certificate named ${unknown.join(', ')}; there are: ${certificates.map(({ name }) => name).join(', ')}`,
    )
}
