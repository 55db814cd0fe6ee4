import { createHash, X509Certificate } from 'node:crypto'
import { type Bundle, fingerprintOf, isIssuedBy } from './bundle.ts'
import { type Content, type Instant, NEVER } from './content.ts'

/** A CA that peers trust. */
export interface Anchor {
  readonly certificate: X509Certificate
  /** Since when it is a part of the set. */
  readonly since: Instant
  /** Since when a target is known to trust it; undefined while that is not proven. */
  readonly inForceSince: Instant | undefined
  /** When it was last of use, of one that no source names any more; undefined while one does. */
  readonly retiredAt: Instant | undefined
}

/** A certificate revocation list (RFC 5280 §5), its signature found good. */
export interface RevocationList {
  readonly der: Buffer
  /** Subject of the CA that signed it, and SHA-256 of its DER. */
  readonly issuer: string
  readonly issuerFingerprint: string
  readonly thisUpdate: Instant
  /** `NEVER` where it names none. */
  readonly nextUpdate: Instant
  /** CRL number (§5.2.3), decimal; undefined where it has none. */
  readonly number: bigint | undefined
  /** Holds only what changed since a complete one (§5.2.4). */
  readonly isDelta: boolean
}

/** Whom to trust, and what was revoked: what a `trust` of the config comes to. */
export interface TrustSet extends Content {
  readonly anchors: readonly Anchor[]
  /** Complete ones before deltas. */
  readonly lists: readonly RevocationList[]
}

export interface Renewal {
  readonly now: Instant
  /** How long an anchor that no source names is kept after it was last of use, ms. */
  readonly keepMs: number
  /** Whether a certificate in service chains to it. */
  readonly isUsed: (anchor: X509Certificate) => boolean
}

/**
 * The anchors from now on: all that are named, and of those before the ones that still may be needed. What is new is added at once, what is
 * old goes only when nothing in service chains to it any more, and that for `keepMs`, or when it has ended.
 */
export function nextAnchors(
  named: readonly X509Certificate[],
  before: readonly Anchor[],
  { now, keepMs, isUsed }: Renewal,
): Anchor[] {
  const known = new Map(before.map((anchor) => [fingerprintOf(anchor.certificate), anchor]))
  const wanted = new Map(named.map((certificate) => [fingerprintOf(certificate), certificate]))
  const present = [...wanted].map(
    ([fingerprint, certificate]): Anchor => ({
      certificate,
      since: known.get(fingerprint)?.since ?? now,
      inForceSince: known.get(fingerprint)?.inForceSince,
      retiredAt: undefined,
    }),
  )
  const retiring = before
    .filter(({ certificate }) => !wanted.has(fingerprintOf(certificate)))
    .map(
      (anchor): Anchor => ({
        ...anchor,
        retiredAt: isUsed(anchor.certificate) ? now : (anchor.retiredAt ?? now),
      }),
    )
    .filter(({ certificate, retiredAt = now }) => retiredAt + keepMs > now && certificate.validToDate.getTime() > now)
  return [...present, ...retiring]
}

/** The set once it is in force, all of it at the latest since then. */
export const inForce = (set: TrustSet, since: Instant): TrustSet => ({
  ...set,
  anchors: set.anchors.map((anchor) => ({ ...anchor, inForceSince: anchor.inForceSince ?? since })),
})

/** The set of these parts. Its end is that of the anchor that ends last, or the next update of a list: with that in the past, peers refuse everybody. */
export function toTrustSet({
  anchors,
  lists,
  origin,
  receivedAt,
}: Pick<TrustSet, 'anchors' | 'lists' | 'origin' | 'receivedAt'>): TrustSet {
  const certificates = anchors.map(({ certificate }) => certificate)
  const parts = [...certificates.map(fingerprintOf).toSorted(), ...lists.map(({ der }) => sha256(der)).toSorted()]
  return {
    anchors,
    lists,
    origin,
    receivedAt,
    fingerprint: sha256(parts.join(' ')),
    serial: describe(anchors, lists),
    notBefore: Math.min(receivedAt, ...lists.map(({ thisUpdate }) => thisUpdate)),
    notAfter: Math.min(
      Math.max(...certificates.map(({ validToDate }) => validToDate.getTime())),
      ...lists.map(({ nextUpdate }) => nextUpdate),
    ),
  }
}

function describe(anchors: readonly Anchor[], lists: readonly RevocationList[]): string {
  const retiring = anchors.filter(({ retiredAt }) => retiredAt !== undefined).length
  const of = (amount: number, what: string) => `${amount} ${what}${amount === 1 ? '' : 's'}`
  return [
    `${of(anchors.length, 'CA')}${retiring > 0 ? ` (${retiring} retiring)` : ''}`,
    ...(lists.length > 0 ? [of(lists.length, 'CRL')] : []),
  ].join(', ')
}

/**
 * Whether the chain of a bundle ends in this CA, or goes through it. That a root came along says nothing, since there may be several; only
 * where an intermediate is missing is it all there is to go by.
 */
export function chainsTo({ leaf, intermediates, roots }: Bundle, anchor: X509Certificate): boolean {
  const last = intermediates.at(-1) ?? leaf
  const isAmong = (all: readonly X509Certificate[]) => all.some((one) => fingerprintOf(one) === fingerprintOf(anchor))
  if (isIssuedBy(last, anchor) || isAmong(intermediates)) return true
  return !roots.some((root) => isIssuedBy(last, root)) && isAmong(roots)
}

/** When the first anchor that sources still name ends; undefined without one. */
export const firstEnd = (anchors: readonly Anchor[]): Instant | undefined => {
  const ends = anchors.flatMap(({ certificate, retiredAt }) =>
    retiredAt === undefined ? [certificate.validToDate.getTime()] : [],
  )
  return ends.length > 0 ? Math.min(...ends) : undefined
}

/** A set as JSON, and back: only what has been checked is kept, so it is not checked again. */
export const storedTrust = ({ anchors, lists }: Pick<TrustSet, 'anchors' | 'lists'>) => ({
  anchors: anchors.map(({ certificate, since, inForceSince, retiredAt }) => ({
    certificate: certificate.raw.toString('base64'),
    since,
    ...(inForceSince !== undefined && { inForceSince }),
    ...(retiredAt !== undefined && { retiredAt }),
  })),
  lists: lists.map(({ der, number, nextUpdate, ...facts }) => ({
    ...facts,
    der: der.toString('base64'),
    ...(number !== undefined && { number: String(number) }),
    ...(nextUpdate !== NEVER && { nextUpdate }),
  })),
})

type Stored = {
  readonly anchors: readonly {
    readonly certificate: string
    readonly since: number
    readonly inForceSince?: number | undefined
    readonly retiredAt?: number | undefined
  }[]
  readonly lists: readonly (Omit<RevocationList, 'der' | 'number' | 'nextUpdate'> & {
    readonly der: string
    readonly number?: string | undefined
    readonly nextUpdate?: number | undefined
  })[]
}

export const trustFrom = ({ anchors, lists }: Stored): Pick<TrustSet, 'anchors' | 'lists'> => ({
  anchors: anchors.map(({ certificate, since, inForceSince, retiredAt }) => ({
    certificate: new X509Certificate(Buffer.from(certificate, 'base64')),
    since,
    inForceSince,
    retiredAt,
  })),
  lists: lists.map(({ der, number, nextUpdate = NEVER, ...facts }) => ({
    ...facts,
    der: Buffer.from(der, 'base64'),
    number: number === undefined ? undefined : BigInt(number),
    nextUpdate,
  })),
})

const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex')
