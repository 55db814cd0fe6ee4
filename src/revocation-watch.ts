import type { Clock, Instant } from './clock.ts'
import type { Bundle } from './core/bundle.ts'
import { type Content, editionOf } from './core/content.ts'
import type { Outdated } from './core/outdated.ts'
import type { RotationState } from './core/state.ts'
import { toSidecarError } from './errors.ts'
import type { Emit } from './observe/events.ts'
import type { Verdict } from './revocation/revocation.ts'
import type { Managed } from './rotation.ts'

/** The look after revocation between rotations: is what is in service revoked, and what came before it? */
export interface RevocationWatch<C extends Content = Bundle> {
  dueAt(state: RotationState<C>): Instant
  /** True where what is in service must be replaced; `isNews` where that was not known before. Never throws. */
  look(state: RotationState<C>): Promise<{ readonly mustReplace: boolean; readonly isNews: boolean }>
  /** The end of the process: what is in service is revoked where that is wanted. It takes two seconds at the most, and never throws. */
  end(): Promise<void>
}

const NOTHING = { mustReplace: false, isNews: false }
const AT_EXIT_MS = 2_000
/** Between two tries to revoke the same certificate. */
const RETRY_MS = 60_000
const LONGEST_RETRY_MS = 3_600_000
const REVOKE_MS = 10_000

type WatchDeps = { readonly clock: Clock; readonly emit: Emit }

export function createRevocationWatch<C extends Content>(
  cert: Managed<C>,
  { clock, emit }: WatchDeps,
  signal: AbortSignal,
): RevocationWatch<C> {
  const { revocation, store, name: certificate } = cert
  let [checkElapsed, revokeElapsed, failures] = [0, 0, 0]
  /** What was told already, so that it is told once. */
  let [toldRevoked, toldStale, isBlind] = ['', '', false]
  return { dueAt, look, end }

  function dueAt(state: RotationState<C>): Instant {
    const { serving } = state
    if (!revocation || !serving) return Number.POSITIVE_INFINITY
    const dues = [
      revocation.check ? checkElapsed : Number.POSITIVE_INFINITY,
      ripe(state).length > 0 ? revokeElapsed : Number.POSITIVE_INFINITY,
    ]
    const atElapsed = Math.ceil(clock.now() + Math.max(Math.min(...dues) - clock.elapsed(), 0))
    const end = revocation.stapleEnd?.(serving)
    return end === undefined || toldStale === editionOf(serving)
      ? atElapsed
      : Math.min(atElapsed, Math.max(end, clock.now()))
  }

  async function look(state: RotationState<C>) {
    const { serving } = state
    if (!revocation || !serving) return NOTHING
    tellStale(serving)
    if (ripe(state).length > 0 && clock.elapsed() >= revokeElapsed) await revokeOutdated(ripe(state))
    if (!revocation.check || clock.elapsed() < checkElapsed) return NOTHING
    checkElapsed = clock.elapsed() + revocation.everyMs * (0.9 + clock.random() * 0.2)
    return check(serving)
  }

  async function check(serving: C) {
    const verdict = await askAbout(cert, serving, { emit, signal, isNews: !isBlind })
    isBlind = verdict === undefined
    if (!revocation || verdict?.status !== 'revoked') return NOTHING
    const isNews = toldRevoked !== serving.fingerprint
    const mustReplace = revocation.onRevoked === 'rotate'
    if (isNews) tellRevoked(cert, serving, { emit, verdict })
    toldRevoked = serving.fingerprint
    return { mustReplace, isNews }
  }

  /** A response that ended is worse than none: clients may refuse it. */
  function tellStale(serving: C): void {
    const endedAt = revocation?.stapleEnd?.(serving)
    if (endedAt === undefined || clock.now() < endedAt || toldStale === editionOf(serving)) return
    toldStale = editionOf(serving)
    emit('certificate.staple-ended', { certificate, serial: serving.serial, endedAt })
  }

  /** What may be revoked now: neither in service nor proven, and the one in service is. */
  function ripe({ verification, pending }: RotationState<C>): readonly Outdated[] {
    const { toRevoke = [], verified } = store.memory
    const isSettled = !pending && (verification === 'verified' || verification === 'none')
    const kept = [store.current?.fingerprint, verified?.fingerprint]
    return isSettled ? toRevoke.filter(({ fingerprint }) => !kept.includes(fingerprint)) : []
  }

  async function revokeOutdated(all: readonly Outdated[]): Promise<void> {
    const done: Outdated[] = []
    for (const one of all) if (one.notAfter <= clock.now() || (await revoke(one))) done.push(one)
    failures = done.length === all.length ? 0 : failures + 1
    revokeElapsed = clock.elapsed() + (failures === 0 ? 0 : Math.min(RETRY_MS * 2 ** (failures - 1), LONGEST_RETRY_MS))
    const gone = new Set(done.map(({ fingerprint }) => fingerprint))
    const { toRevoke = [] } = store.memory
    await store.remember({ toRevoke: toRevoke.filter(({ fingerprint }) => !gone.has(fingerprint)) }).catch(() => {})
  }

  async function revoke(one: Outdated): Promise<boolean> {
    try {
      // On record before: no rollback may go to it from here on, whatever becomes of the answer.
      await condemn(cert, one.fingerprint)
      await revocation?.revoke(one, 'superseded', AbortSignal.any([signal, AbortSignal.timeout(REVOKE_MS)]))
      emit('certificate.revoked', { certificate, serial: one.serial, why: 'superseded' })
      return true
    } catch (thrown) {
      if (!signal.aborted) tellFailed(one, thrown)
      return false
    }
  }

  function tellFailed({ serial }: Outdated, thrown: unknown): void {
    const { code, message } = toSidecarError(thrown)
    emit('certificate.revoke-failed', { certificate, serial, code, message })
  }

  async function end(): Promise<void> {
    const serving = store.current
    const one = serving && revocation?.atExit?.(serving)
    if (!one || !revocation) return
    try {
      await condemn(cert, one.fingerprint)
      await revocation.revoke(one, 'cessationOfOperation', AbortSignal.timeout(AT_EXIT_MS))
      emit('certificate.revoked', { certificate, serial: one.serial, why: 'cessationOfOperation' })
    } catch (thrown) {
      tellFailed(one, thrown)
    }
  }
}

interface Asking {
  readonly emit: Emit
  readonly signal: AbortSignal
  /** Whether trouble is told as a warning. */
  readonly isNews: boolean
}

/** undefined where nobody could say: then it counts as good. */
async function askAbout<C extends Content>(
  { revocation, name: certificate }: Managed<C>,
  content: C,
  { emit, signal, isNews }: Asking,
): Promise<Verdict | undefined> {
  const event = { certificate, serial: content.serial, isNews }
  try {
    const verdict = await revocation?.check?.(content, signal)
    if (verdict) emit('certificate.revocation-checked', { ...event, result: verdict.status, by: verdict.by })
    return verdict
  } catch (thrown) {
    if (signal.aborted) return undefined
    const { code, message } = toSidecarError(thrown)
    emit('certificate.revocation-checked', { ...event, result: 'error', code, message })
    return undefined
  }
}

/** Whether it was found revoked; then it is condemned. For whoever would put it back into service. */
export async function isRevoked<C extends Content>(
  cert: Managed<C>,
  content: C,
  emit: Emit,
  signal: AbortSignal,
): Promise<boolean> {
  if (!cert.revocation?.check) return false
  const verdict = await askAbout(cert, content, { emit, signal, isNews: true })
  if (verdict?.status !== 'revoked') return false
  await condemn(cert, content.fingerprint)
  tellRevoked(cert, content, { emit, verdict })
  return true
}

const condemn = <C extends Content>({ store }: Managed<C>, fingerprint: string) =>
  store.remember({ condemned: [...new Set([...store.memory.condemned, fingerprint])] })

function tellRevoked<C extends Content>(
  { name: certificate }: Managed<C>,
  { serial }: C,
  { emit, verdict: { by, at, reason } }: { readonly emit: Emit; readonly verdict: Verdict },
): void {
  emit('security.certificate-revoked', { certificate, serial, by, revokedAt: at, reason })
}
