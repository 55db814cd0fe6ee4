import type { Clock } from '../clock.ts'
import { formatDuration } from '../core/units.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import { createRecorder, type Happening } from '../kubernetes/events.ts'
import type { Emit, EventMap, EventName, Observer } from './events.ts'
import { isoTime } from './fields.ts'

export interface KubernetesEventsDeps {
  readonly clock: Clock
  /** POD_UID; without it the pod must be readable. */
  readonly podUid: string | undefined
  readonly emit: Emit
}

/** What a person who looks at the pod should see of the rest: a few events, on the pod. */
export function createKubernetesEvents(
  api: Kubernetes,
  { clock, podUid, emit }: KubernetesEventsDeps,
): AsyncDisposable & { readonly observe: Observer } {
  const recorder = createRecorder(api, {
    clock,
    uid: podUid || undefined,
    onLost: ({ code, message }) => emit('kubernetes.events-lost', { pod: api.pod, code, message }),
  })
  return {
    observe: (name, event) => {
      const happening = HAPPENINGS[name]?.(event)
      if (happening) recorder.record(happening)
    },
    [Symbol.asyncDispose]: () => recorder[Symbol.asyncDispose](),
  }
}

const HAPPENINGS: { readonly [Name in EventName]?: (event: EventMap[Name]) => Happening | undefined } = {
  'rotation.finished': ({ certificate, serial, notAfter, verified, durationMs }) => ({
    type: 'Normal',
    reason: 'CertificateRotated',
    about: certificate,
    message: `${certificate}: serial ${serial}, valid until ${isoTime(notAfter)}, ${verified ? 'proven to be served' : 'nobody is asked whether it is served'}; took ${formatDuration(durationMs)}`,
  }),
  'rotation.failed': ({ certificate, stage, code, message, attempt, nextAt, hint }) => ({
    type: 'Warning',
    reason: 'RotationFailed',
    about: `${certificate} ${code}`,
    message: `${certificate}: ${stage} failed (${code}), attempt ${attempt}, next at ${isoTime(nextAt)}: ${message}. ${hint}`,
  }),
  'rotation.rolled-back': ({ certificate, serial, refused }) => ({
    type: 'Warning',
    reason: 'CertificateRolledBack',
    about: certificate,
    message: `${certificate}: the target refused serial ${refused}; ${serial} is in service again`,
  }),
  'certificate.phase': ({ certificate, to, reason }) =>
    to === 'EXPIRED'
      ? {
          type: 'Warning',
          reason: 'CertificateExpired',
          about: certificate,
          message: `${certificate}: the certificate in service has expired${reason ? ` (${reason})` : ''}`,
        }
      : undefined,
  'config.rejected': ({ errors }) => ({
    type: 'Warning',
    reason: 'ConfigRejected',
    about: 'config',
    message: `the new config is rejected, the old one stays: ${errors.join('; ')}`,
  }),
}
