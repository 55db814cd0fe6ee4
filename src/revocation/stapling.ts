import type { Bundle } from '../core/bundle.ts'
import type { Instant } from '../core/content.ts'
import { emergencyAt } from '../core/renewal.ts'
import { type Staple, withStaple } from '../core/staple.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import type { Polling, Source } from '../sources/source.ts'
import { subjectOf } from './check.ts'
import { askOcsp, ocspUrlOf } from './ocsp.ts'

export interface Stapling {
  /** The same source; what it gives has an OCSP response beside it, which is renewed at half of its life. */
  readonly source: Source
  /** Throws OCSP_UNAVAILABLE for a new one without, unless what is in service is about to end. */
  assertStapled(bundle: Bundle, serving: Bundle | undefined, now: Instant): void
}

const SHORTEST_MS = 1_000
/** Of a response that does not say when there will be a newer one, and where there is none yet. */
const UNSAID_MS = 3_600_000
const MISSING_MS = 60_000
/** A responder that has nothing newer for the last eighth is trouble. */
const LAST = 1 / 8

const endOf = ({ thisUpdate, nextUpdate = thisUpdate + UNSAID_MS }: Staple): Instant => nextUpdate

export function stapling(
  source: Source,
  { ocspUrl, now }: { readonly ocspUrl: string | undefined; readonly now: () => Instant },
): Stapling {
  const { polling, rehearse } = source
  let trouble: string | undefined
  return {
    source: {
      ...source,
      fetch: async (signal, current) => stapledIfCan(await source.fetch(signal, current), signal),
      ...(rehearse && {
        rehearse: async (signal) => {
          const trials = await rehearse(signal)
          return Promise.all(
            trials.map(async (trial) => ({ ...trial, bundle: await stapledIfCan(trial.bundle, signal) })),
          )
        },
      }),
      polling: {
        ...polling,
        ...(polling ? {} : { renewAt: () => undefined }),
        afterMs: (serving) => Math.min(polling?.afterMs(serving) ?? Number.POSITIVE_INFINITY, refreshMs(serving)),
        look: async (serving, signal) => {
          const found = polling ? await polling.look(serving, signal) : serving
          if (!found) return undefined
          return found.fingerprint === serving.fingerprint
            ? refreshed(found, serving, signal)
            : stapledIfCan(found, signal)
        },
      } satisfies Polling<Bundle>,
    },
    assertStapled: ({ serial, staple, fingerprint }, serving, at) => {
      if (staple || fingerprint === serving?.fingerprint) return
      if (serving && at >= emergencyAt(serving)) return
      throw new SidecarError(
        'OCSP_UNAVAILABLE',
        `there is no OCSP response yet to staple to certificate ${serial}${trouble === undefined ? '' : `: ${trouble}`}`,
      )
    },
  }

  function refreshMs({ staple }: Bundle): number {
    if (!staple) return MISSING_MS
    const left = endOf(staple) - now()
    return Math.max(isFresh(staple) ? left - (endOf(staple) - staple.thisUpdate) / 2 : left / 2, SHORTEST_MS)
  }

  /** In the first half of its life nothing newer is asked for, such as after a restart. */
  function isFresh(staple: Staple): boolean {
    return endOf(staple) - now() > (endOf(staple) - staple.thisUpdate) / 2
  }

  async function stapled(bundle: Bundle, signal: AbortSignal): Promise<Bundle> {
    const url = ocspUrl ?? ocspUrlOf(bundle.leaf)
    const subject = subjectOf(bundle)
    const unavailable = (why: string) => new SidecarError('OCSP_UNAVAILABLE', `certificate ${bundle.serial} ${why}`)
    if (url === undefined) throw unavailable('names no OCSP responder, and revocation.ocspUrl is not given')
    if (!subject) throw unavailable('came without its issuer, so no OCSP response can be asked for')
    const answer = await askOcsp(url, subject, now, signal)
    if (answer.status !== 'good') throw unavailable(`is ${answer.status} to ${url}`)
    return withStaple(bundle, answer)
  }

  /** What was just issued is not wasted. */
  async function stapledIfCan(bundle: Bundle, signal: AbortSignal): Promise<Bundle> {
    try {
      return await stapled(bundle, signal)
    } catch (thrown) {
      trouble = toSidecarError(thrown).message
      return bundle
    }
  }

  async function refreshed(found: Bundle, { staple: last, edition }: Bundle, signal: AbortSignal): Promise<Bundle> {
    if (last && isFresh(last)) return { ...found, staple: last, edition }
    const newer = await stapled(found, signal).catch((thrown) => {
      trouble = toSidecarError(thrown).message
      throw thrown
    })
    const { nextUpdate } = newer.staple ?? {}
    if (!last || nextUpdate === undefined || last.nextUpdate === undefined || nextUpdate > last.nextUpdate) return newer
    if (last.nextUpdate - now() < (last.nextUpdate - last.thisUpdate) * LAST)
      throw new SidecarError(
        'OCSP_UNAVAILABLE',
        `the responder has nothing newer than until ${new Date(last.nextUpdate).toISOString()}`,
      )
    return { ...found, staple: last, edition }
  }
}
