import type { X509Certificate } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { fingerprintOf, isIssuedBy } from '../core/bundle.ts'
import type { Instant } from '../core/content.ts'
import { type Finding, findingOf } from '../core/finding.ts'
import { quote } from '../core/secret.ts'
import { type Anchor, inForce, nextAnchors, type TrustSet, toTrustSet } from '../core/trust.ts'
import { SidecarError } from '../errors.ts'
import type { Origin } from '../sources/source.ts'
import type { AnchorSource, ListSource } from './anchor.ts'
import { assertNotOlder, checkLists, type FoundList } from './check.ts'

export interface TrustParts {
  readonly name: string
  readonly anchors: readonly AnchorSource[]
  readonly lists: readonly ListSource[]
  readonly pollMs: number
  readonly keepMs: number
  /** Whether a certificate in service chains to the anchor. */
  readonly isUsed: (anchor: X509Certificate) => boolean
  /** Told of the CAs at each look. */
  readonly mind: (anchors: readonly Anchor[], now: Instant) => void
  /** Told of what is left out, at each look. */
  readonly warn: (message: string) => void
  readonly clock: Pick<Clock, 'now' | 'random'>
}

/** A list is asked for anew at this part of what is left of it. */
const REFRESH = 1 / 2
const SOONEST_MS = 1_000

/** All anchors and revocation lists of a trust as one source. Somebody else decides when there is something new. */
export function createTrustSource(parts: TrustParts): Origin<TrustSet> {
  const { name, anchors, lists, pollMs, keepMs, isUsed, mind, warn, clock } = parts
  const origin = `trust ${name}: ${[...anchors, ...lists].map((one) => one.origin).join(', ')}`

  const gather = async (signal: AbortSignal, before: TrustSet | undefined): Promise<TrustSet> => {
    const [named, found, issuers] = await Promise.all([
      all(anchors, signal),
      all(lists.map(withPlace), signal),
      Promise.all(lists.map((one) => one.issuers?.(signal) ?? [])),
    ])
    const now = clock.now()
    const kept = nextAnchors(named, before?.anchors ?? [], { now, keepMs, isUsed })
    mind(kept, now)
    const authorities = descendantsOf(
      kept.map(({ certificate }) => certificate),
      issuers.flat(),
    )
    const checked = await checkLists(found, { authorities, now, warn })
    assertNotOlder(checked, before?.lists ?? [])
    return toTrustSet({ anchors: kept, lists: checked, origin, receivedAt: now })
  }

  return {
    origin,
    issues: false,
    ttlMs: undefined,
    fetch: gather,
    polling: {
      afterMs: ({ lists, anchors }) => {
        const now = clock.now()
        const ends = lists.map(({ nextUpdate }) => (nextUpdate - now) * REFRESH)
        const retires = anchors.flatMap(({ retiredAt }) =>
          retiredAt === undefined ? [] : [retiredAt + keepMs - now + 1],
        )
        const soonest = Math.min(pollMs * (1 - clock.random() / 10), ...ends, ...retires)
        return Math.max(soonest, SOONEST_MS)
      },
      look: async (serving, signal) => {
        const found = await gather(signal, serving)
        // What is retiring, and since when, is known to this process; files change only with what is in them.
        return found.fingerprint === serving.fingerprint ? { ...serving, anchors: found.anchors } : found
      },
      delivered: inForce,
    },
    examine: async (signal) => {
      const found = await Promise.all([...anchors, ...lists].map((one) => examined(one, signal)))
      // What a place has is of use only together with the others: a list with the CA that signed it.
      return found.some(({ ok }) => !ok)
        ? found
        : [...found, ...(await judged(() => gather(signal, undefined), clock.now()))]
    },
  }
}

async function judged(gather: () => Promise<TrustSet>, now: Instant): Promise<Finding[]> {
  try {
    const set = await gather()
    assertTrustworthy(set, now)
    const what = `${set.serial}: fit to be trusted until ${new Date(set.notAfter).toISOString()}`
    return [{ ok: true, what }, ...withoutList(set)]
  } catch (thrown) {
    return [findingOf(thrown)]
  }
}

/** OpenSSL, and with it nginx, refuses whom a CA without a list signed, once there is a list of any. */
function withoutList({ anchors, lists }: TrustSet): Finding[] {
  if (lists.length === 0) return []
  const has = ({ certificate }: Anchor) => lists.some((one) => one.issuerFingerprint === fingerprintOf(certificate))
  // One that was renewed with its key has the list of the other.
  const names = new Set(anchors.filter(has).map(({ certificate }) => certificate.subject))
  return anchors
    .filter(({ certificate }) => !names.has(certificate.subject))
    .map(({ certificate }) => ({
      ok: undefined,
      what: `there is no revocation list of "${quote(certificate.subject)}", and there are others`,
      fix: 'nginx refuses every client of a CA without one: name where its list comes from in crls.',
    }))
}

/** The anchors, and those of `others` whose chain ends in one of them. */
function descendantsOf(anchors: readonly X509Certificate[], others: readonly X509Certificate[]): X509Certificate[] {
  const found = [...anchors]
  let rest = [...others]
  for (let count = -1; count !== rest.length; ) {
    count = rest.length
    const next = rest.filter((one) => found.some((issuer) => isIssuedBy(one, issuer)))
    found.push(...next)
    rest = rest.filter((one) => !next.includes(one))
  }
  return found
}

const withPlace = ({ origin, read }: ListSource) => ({
  read: async (signal: AbortSignal): Promise<FoundList[]> =>
    (await read(signal)).map((der) => ({ der, place: origin })),
})

async function all<T>(
  sources: readonly { read(signal: AbortSignal): Promise<readonly T[]> }[],
  signal: AbortSignal,
): Promise<T[]> {
  return (await Promise.all(sources.map((one) => one.read(signal)))).flat()
}

async function examined(one: AnchorSource | ListSource, signal: AbortSignal): Promise<Finding> {
  try {
    const found = await one.read(signal)
    return { ok: true, what: `${one.origin}: ${found.length} found` }
  } catch (thrown) {
    signal.throwIfAborted()
    return findingOf(thrown)
  }
}

/** Refuses a set that must not be put into service: without a CA that is valid now. Throws TRUST_INVALID, CRL_INVALID. */
export function assertTrustworthy({ anchors, lists }: TrustSet, now: number): void {
  const valid = anchors.filter(({ certificate }) => certificate.validToDate.getTime() > now)
  if (valid.length === 0) throw new SidecarError('TRUST_INVALID', 'no CA that it names is valid now')
  for (const { certificate } of valid)
    if (!certificate.ca)
      throw new SidecarError(
        'TRUST_INVALID',
        `${fingerprintOf(certificate).slice(0, 16)} ("${certificate.subject.replaceAll('\n', ', ')}") is no CA certificate (basicConstraints)`,
      )
  const ended = lists.find(({ nextUpdate }) => nextUpdate <= now)
  if (ended) throw new SidecarError('CRL_INVALID', `the revocation list of "${ended.issuer}" has ended`)
}
