import { formatDuration } from '../core/units.ts'
import { SidecarError } from '../errors.ts'
import type { AnyLoop } from '../loop.ts'
import type { Sidecar } from '../sidecar.ts'
import { counts, type Io } from './io.ts'

/** A valid set is on disk, nothing is due, and the target was told, as far as it is there. */
export function isSettled({ report }: AnyLoop): boolean {
  if (!report?.state.serving || report.next.kind !== 'wait' || report.state.failure) return false
  return report.state.verification !== 'pending' || report.state.waits > 0
}

export function whyStopped(
  io: Io,
  timeoutMs: number,
  { certificates, secrets, trust }: Pick<Sidecar, 'certificates' | 'secrets' | 'trust'>,
  settled: ReadonlySet<string>,
): SidecarError {
  if (io.signal.aborted) return new SidecarError('TIMED_OUT', 'stopped before all was there')
  const isOpen = ({ cert }: AnyLoop) => !settled.has(cert.name)
  const open = {
    certificates: certificates.filter(isOpen),
    secrets: secrets.filter(isOpen),
    trust: trust.filter(isOpen),
  }
  const reasons = [...open.certificates, ...open.secrets, ...open.trust].map(
    ({ cert, report }) => `\n  ${cert.name}: ${whyOpen(report)}`,
  )
  return new SidecarError(
    'TIMED_OUT',
    `${counts(open)} not done after ${formatDuration(timeoutMs)}:${reasons.join('')}`,
  )
}

function whyOpen(report: AnyLoop['report']): string {
  const { failure, serving } = report?.state ?? {}
  const where = serving ? 'a valid set is on disk, but ' : ''
  return failure ? `${where}${failure.message}. ${failure.hint}` : `${where}nothing was answered yet`
}
