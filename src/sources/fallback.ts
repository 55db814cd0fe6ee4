import type { Bundle } from '../core/bundle.ts'
import type { Content } from '../core/content.ts'
import { type Finding, findingOf } from '../core/finding.ts'
import { emergencyAt } from '../core/renewal.ts'
import { mayHaveIssued, SidecarError, toSidecarError } from '../errors.ts'
import type { Polling, Source } from './source.ts'

export interface FallbackDeps {
  readonly now: () => number
  /** As the check stage: what does not pass is not delivered. */
  readonly assertUsable: (bundle: Bundle, at: number) => void
  /** Told when another than the first delivers, and why the first did not. */
  readonly tell: (bundle: Bundle, why: SidecarError) => void
}

/** A look at what nobody changes between rotations is never due. */
const NEVER_MS = 365 * 86_400_000

/**
 * Several sources as one. The first is asked; the next only when that failed, and the certificate in service is in its emergency window
 * (`core/renewal.ts`), or there is none. What a later one delivered stays until it is due: then the first is asked again. Throws
 * CONFIG_INVALID for two of one origin.
 */
export function withFallback(sources: readonly [Source, ...Source[]], deps: FallbackDeps): Source {
  const [first, ...others] = sources
  if (others.length === 0) return first
  const twice = sources.find((one, index) => sources.findIndex(({ origin }) => origin === one.origin) !== index)
  if (twice) {
    const why = 'is one of source and fallback already; what keeps one from delivering keeps both'
    throw new SidecarError('CONFIG_INVALID', `fallback: ${twice.origin} ${why}`)
  }
  const polling = pollingOf(sources)
  const rehearsals = sources.flatMap(({ rehearse }) => (rehearse ? [rehearse] : []))
  return {
    origin: first.origin,
    alternatives: others.map(({ origin }) => origin),
    issues: sources.some(({ issues }) => issues),
    isIssued: (bundle) => sources.some(({ origin, issues }) => issues && origin === bundle.origin),
    ttlMs: sources.find(({ ttlMs }) => ttlMs !== undefined)?.ttlMs,
    names: first.names,
    algorithm: first.algorithm,
    fetch: (signal, current) => fetchInTurn(sources, deps, signal, current),
    ...(polling && { polling }),
    ...(rehearsals.length > 0 && {
      rehearse: async (signal) => (await Promise.all(rehearsals.map((rehearse) => rehearse(signal)))).flat(),
    }),
    examine: async (signal) => (await Promise.all(sources.map((source) => examined(source, signal)))).flat(),
  }
}

async function fetchInTurn(
  sources: readonly Source[],
  deps: FallbackDeps,
  signal: AbortSignal,
  current: Bundle | undefined,
): Promise<Bundle> {
  const failures: { readonly origin: string; readonly error: SidecarError }[] = []
  for (const [index, source] of sources.entries()) {
    try {
      const bundle = await fetchUsable(source, deps, signal, current)
      const [why] = failures
      if (why) deps.tell(bundle, why.error)
      return bundle
    } catch (thrown) {
      signal.throwIfAborted()
      const error = toSidecarError(thrown)
      failures.push({ origin: source.origin, error })
      const next = sources[index + 1]
      if (next && current && deps.now() < emergencyAt(current)) throw untilThen(error, next, emergencyAt(current))
    }
  }
  throw together(failures)
}

async function fetchUsable(
  source: Source,
  deps: FallbackDeps,
  signal: AbortSignal,
  current: Bundle | undefined,
): Promise<Bundle> {
  const bundle = await source.fetch(signal, current)
  try {
    assertWorthIt(bundle, current, deps)
    return bundle
  } catch (error) {
    throw source.issues ? mayHaveIssued(error) : error
  }
}

/** The last twentieth of a life is when the next source is to deliver, so what is in that itself is none that this one delivered. */
function assertWorthIt(bundle: Bundle, current: Bundle | undefined, { now, assertUsable }: FallbackDeps): void {
  const { origin, serial, notBefore, notAfter, fingerprint } = bundle
  assertUsable(bundle, now())
  const isOver = now() >= notAfter - (notAfter - notBefore) / 20
  const isSame = fingerprint === current?.fingerprint
  if (!isOver && !isSame) return
  const what = isSame ? 'which is in service already' : `which ends at ${iso(notAfter)}`
  throw new SidecarError('STALE_RESPONSE', `${origin} has nothing newer than certificate ${serial}, ${what}`)
}

function untilThen(error: SidecarError, { origin }: Source, at: number): SidecarError {
  return remade(error, `${error.message}; ${origin} is asked from ${iso(at)} on`)
}

/** Named all; tried again as soon as any of them may be. */
function together(failures: readonly { readonly origin: string; readonly error: SidecarError }[]): SidecarError {
  const errors = failures.map(({ error }) => error)
  const soonest = errors.find(({ kind }) => kind.retry !== 'config' && kind.retry !== 'never') ?? errors[0]
  if (!soonest) return new SidecarError('BUG', 'no source was asked')
  const message = failures.map(({ origin, error }) => `${origin}: ${error.message}`).join('; and ')
  return remade(
    soonest,
    message,
    errors.some(({ mayHaveIssued }) => mayHaveIssued),
  )
}

function remade(cause: SidecarError, message: string, isPossible = cause.mayHaveIssued): SidecarError {
  const { code, retryAfterMs } = cause
  return new SidecarError(code, message, { cause, retryAfterMs, mayHaveIssued: isPossible })
}

/** Each is looked at while what it delivered is in service; undefined where none has anything to look at. */
function pollingOf(sources: readonly Source[]): Polling<Bundle> | undefined {
  if (sources.every(({ polling }) => !polling)) return undefined
  const own = ({ origin }: Content) => sources.find((source) => source.origin === origin) ?? sources[0]
  const watches = sources.flatMap(({ polling }) => (polling?.watch ? [polling.watch] : []))
  return {
    afterMs: (serving) => own(serving)?.polling?.afterMs(serving) ?? NEVER_MS,
    look: async (serving, signal) => {
      const polling = own(serving)?.polling
      return polling ? polling.look(serving, signal) : serving
    },
    renewAt: (serving) => {
      const source = own(serving)
      if (!source?.polling || source.polling.renewAt) return source?.polling?.renewAt?.(serving)
      // The first renews by itself, or not: then it is the turn of the others. What these hold is left for the first when the config says.
      return source === sources[0] ? emergencyAt(serving) : undefined
    },
    prolonged: (serving) => own(serving)?.polling?.prolonged?.(serving) ?? serving,
    delivered: (bundle, since) => own(bundle)?.polling?.delivered?.(bundle, since) ?? bundle,
    ...(watches.length > 0 && { watch: (ring) => all(watches.map((watch) => watch(ring))) }),
  }
}

const all = (watchings: readonly AsyncDisposable[]): AsyncDisposable => ({
  [Symbol.asyncDispose]: async () => {
    await Promise.all(watchings.map((one) => one[Symbol.asyncDispose]()))
  },
})

async function examined({ origin, examine }: Source, signal: AbortSignal): Promise<Finding[]> {
  const findings = await examine(signal).catch((thrown: unknown): Finding[] => {
    signal.throwIfAborted()
    return [findingOf(thrown)]
  })
  return findings.map((finding) => ({ ...finding, what: `${origin}: ${finding.what}` }))
}

const iso = (instant: number) => new Date(instant).toISOString()
