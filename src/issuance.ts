import type { Clock } from './clock.ts'
import { countedLifetime, mayIssueAt, recentIssues } from './core/budget.ts'
import type { Content } from './core/content.ts'
import { SidecarError, toSidecarError } from './errors.ts'
import type { Store } from './outputs/store.ts'
import type { Origin } from './sources/source.ts'

/** Whom to ask, and where the issue budget is kept. */
export interface Issuing<C extends Content> {
  readonly name: string
  readonly source: Origin<C>
  readonly store: Pick<Store<C>, 'current' | 'memory' | 'remember'>
}

export interface Terms {
  readonly clock: Clock
  /** Asked for by a person: outside the budget. */
  readonly forced: boolean
}

/**
 * One new bundle from the source, within the issue budget. Throws BUDGET_SPENT, STALE_RESPONSE when the source repeats the
 * certificate in service, and what the source throws.
 */
export async function request<C extends Content>(
  issuing: Issuing<C>,
  { clock, forced }: Terms,
  signal: AbortSignal,
): Promise<C> {
  const { source, store } = issuing
  const { current, memory } = store
  // What is condemned has no life left: whoever goes by that, such as a fallback, need not wait for its end.
  const isOver = current !== undefined && memory.condemned.includes(current.fingerprint)
  const fetch = () => source.fetch(signal, isOver ? { ...current, notAfter: clock.now() } : current)
  if (!source.issues) return fetch()
  const ask = async () => assertNew(await fetch(), store.current)
  return forced ? ask() : withinBudget(issuing, clock.now(), ask, signal)
}

/** An issuer that repeats itself is a cache in between; taking its answer for new would end in a loop of renewals. */
function assertNew<C extends Content>(bundle: C, current: C | undefined): C {
  if (bundle.fingerprint !== current?.fingerprint) return bundle
  const message = `${bundle.origin} answered with certificate ${bundle.serial}, which is in service already`
  throw new SidecarError('STALE_RESPONSE', message)
}

/** The issuance is on record before it happens, so that no crash loop can hide what it costs. */
async function withinBudget<C extends Content>(
  { name, source, store }: Issuing<C>,
  now: number,
  ask: () => Promise<C>,
  signal: AbortSignal,
): Promise<C> {
  const { current } = store
  const lifetimeMs = countedLifetime(current, source.ttlMs)
  const issuedAt = recentIssues(store.memory.issuedAt, now)
  const freeAt = mayIssueAt(issuedAt, now, { lifetimeMs, isInService: current !== undefined && now < current.notAfter })
  if (freeAt > now) {
    const message = `${name} was issued anew ${issuedAt.length} times in the last day, or may have been; the next time is not before ${new Date(freeAt).toISOString()}`
    throw new SidecarError('BUDGET_SPENT', message, { retryAfterMs: freeAt - now })
  }
  signal.throwIfAborted()
  await store.remember({ issuedAt: [...issuedAt, now] })
  try {
    const content = await ask()
    // What was read costs nothing.
    if (source.isIssued?.(content) === false) await store.remember({ issuedAt })
    return content
  } catch (thrown) {
    const error = toSidecarError(thrown)
    // What may have been issued counts, as a crash here does.
    if (!signal.aborted && !error.mayHaveIssued && error.code !== 'BUG') await store.remember({ issuedAt })
    throw error
  }
}
