import { type Instant, NEVER } from '../core/content.ts'
import { renaming, type Telling } from './renaming.ts'

const TELLING: Telling = {
  'rotation.started': ({ certificate: secret, why }, emit) => emit('secret.started', { secret, why }),
  'rotation.finished': ({ certificate: secret, serial, notAfter, durationMs }, emit) =>
    emit('secret.delivered', { secret, versions: serial, ...ending(notAfter), durationMs }),
  'rotation.failed': ({ certificate: secret, ...rest }, emit) => emit('secret.failed', { secret, ...rest }),
  'rotation.waiting': ({ certificate: secret, ...rest }, emit) => emit('secret.waiting', { secret, ...rest }),
  'rotation.recovered': ({ certificate: secret, failures }, emit) => emit('secret.recovered', { secret, failures }),
  'rotation.rolled-back': ({ certificate: secret, serial, refused }, emit) =>
    emit('secret.rolled-back', { secret, versions: serial, refused }),
  'certificate.resumed': ({ certificate: secret, serial, notAfter }, emit) =>
    emit('secret.resumed', { secret, versions: serial, ...ending(notAfter) }),
  'certificate.issued': ({ certificate: secret, serial, notAfter }, emit) =>
    emit('secret.read', { secret, versions: serial, ...ending(notAfter) }),
  'certificate.written': ({ certificate: secret, serial, directories }, emit) =>
    emit('secret.written', { secret, versions: serial, directories }),
  'certificate.phase': ({ certificate: secret, from, to, reason }, emit) =>
    emit('secret.phase', { secret, from, to, reason }),
  'certificate.removed': ({ certificate: secret }, emit) => emit('secret.removed', { secret }),
}

/** What the flow tells of a secret, in the words for secrets. */
export const asSecret = renaming(TELLING)

const ending = (notAfter: Instant) => (notAfter === NEVER ? {} : { expiresAt: notAfter })
