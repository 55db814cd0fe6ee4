import { setTimeout as sleep } from 'node:timers/promises'
import { formatDuration } from '../core/units.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import { counts, type Io, print } from './io.ts'
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
      const { certificates, secrets, trust } = await client.status(signal)
      const all = [...certificates, ...secrets, ...trust]
      assertKnown(names, all)
      const awaited = all.filter(
        ({ name, phase }) => (names.length === 0 || names.includes(name)) && phase !== 'ACTIVE' && phase !== 'DEGRADED',
      )
      if (awaited.length === 0) {
        const wanted = ({ name }: { readonly name: string }) => names.length === 0 || names.includes(name)
        return print(
          io,
          `ready: ${counts({ certificates: certificates.filter(wanted), secrets: secrets.filter(wanted), trust: trust.filter(wanted) })}`,
        )
      }
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

function assertKnown(names: readonly string[], all: readonly { readonly name: string }[]): void {
  const unknown = names.filter((name) => !all.some((one) => one.name === name))
  if (unknown.length > 0)
    throw new SidecarError(
      'USAGE',
      `no certificate, secret or trust named ${unknown.join(', ')}; there are: ${all.map(({ name }) => name).join(', ')}`,
    )
}
