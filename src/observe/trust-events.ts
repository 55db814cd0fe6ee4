import { renaming, type Telling } from './renaming.ts'

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

/** What the flow tells of a trust, in the words for it. */
export const asTrust = renaming(TELLING)
