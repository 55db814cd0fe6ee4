import type { Emit, EventMap, EventName } from './events.ts'

type Telling = { readonly [Name in EventName]?: (event: EventMap[Name], emit: Emit) => void }

/** What the flow tells of a trust, in the words for it; everything else passes as it is. */
export const asTrust =
  (emit: Emit): Emit =>
  (name, event) => {
    const tell = TELLING[name]
    if (tell) tell(event, emit)
    else emit(name, event)
  }

const TELLING: Telling = {
  'rotation.started': ({ certificate: trust, why }, emit) => emit('trust.started', { trust, why }),
  'rotation.finished': ({ certificate: trust, serial, notAfter, durationMs }, emit) =>
    emit('trust.published', { trust, content: serial, notAfter, durationMs }),
  'rotation.failed': ({ certificate: trust, ...rest }, emit) => emit('trust.failed', { trust, ...rest }),
  'rotation.waiting': ({ certificate: trust, ...rest }, emit) => emit('trust.waiting', { trust, ...rest }),
  'rotation.recovered': ({ certificate: trust, failures }, emit) => emit('trust.recovered', { trust, failures }),
  'rotation.rolled-back': ({ certificate: trust, serial, refused }, emit) =>
    emit('trust.rolled-back', { trust, content: serial, refused }),
  'certificate.resumed': ({ certificate: trust, serial, notAfter }, emit) =>
    emit('trust.resumed', { trust, content: serial, notAfter }),
  'certificate.written': ({ certificate: trust, serial, directories }, emit) =>
    emit('trust.written', { trust, content: serial, directories }),
  'certificate.served': ({ certificate: trust, serial }, emit) => emit('trust.proven', { trust, content: serial }),
  'certificate.phase': ({ certificate: trust, from, to, reason }, emit) =>
    emit('trust.phase', { trust, from, to, reason }),
  'certificate.removed': ({ certificate: trust }, emit) => emit('trust.removed', { trust }),
  'certificate.probed': () => {},
}
