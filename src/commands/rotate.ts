import { styleText } from 'node:util'
import { formatDuration } from '../core/units.ts'
import { SidecarError } from '../errors.ts'
import { type Io, print } from './io.ts'
import { connectTo, type SocketOptions } from './socket.ts'

export interface RotateOptions extends SocketOptions {
  readonly all?: boolean
  readonly reason: string
  readonly wait?: boolean
  /** ms. */
  readonly timeout: number
}

/** Asks the running sidecar to rotate now. With `wait` it returns when all are proven to be served, and throws the first failure. */
export async function rotate(names: readonly string[], options: RotateOptions, io: Io): Promise<void> {
  if (names.length === 0 && !options.all)
    throw new SidecarError('USAGE', 'give names of certificates, secrets or trusts, or --all')
  if (names.length > 0 && options.all) throw new SidecarError('USAGE', 'give names or --all, not both')
  const client = connectTo(options, io)
  const timeout = AbortSignal.timeout(options.timeout)
  const request = {
    certificates: options.all ? ('all' as const) : [...names],
    reason: options.reason,
    wait: options.wait === true,
  }
  const { results } = await client.rotate(request, AbortSignal.any([io.signal, timeout])).catch((error: unknown) => {
    if (timeout.aborted)
      throw new SidecarError('TIMED_OUT', `no answer within ${formatDuration(options.timeout)}; the rotation goes on`)
    throw error
  })
  const mark = (ok: boolean) => styleText(ok ? 'green' : 'red', ok ? '✓' : '✗', { stream: io.stdout })
  for (const { certificate, ok, serial, isNew, error } of results) {
    const what = `${/^[0-9a-f]+$/.test(serial ?? '') ? 'serial ' : ''}${serial}`
    const done = isNew === false ? `has the newest that its source holds, ${what}` : `rotated, ${what}`
    const told = ok ? (options.wait ? done : 'asked to rotate') : error?.message
    print(io, `${mark(ok)} ${certificate}  ${told}`)
  }
  const failed = results.filter(({ ok }) => !ok)
  const [first] = failed
  if (first) throw new SidecarError(first.error?.code ?? 'BUG', `${failed.length} of ${results.length} did not rotate`)
}
