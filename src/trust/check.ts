import type { X509Certificate } from 'node:crypto'
import { fingerprintOf } from '../core/bundle.ts'
import { type Instant, NEVER } from '../core/content.ts'
import type { RevocationList } from '../core/trust.ts'
import { SidecarError } from '../errors.ts'

/** RFC 5280 §5.2.3 and §5.2.4. */
const CRL_NUMBER = '2.5.29.20'
const DELTA_INDICATOR = '2.5.29.27'

/** DER of a list, unchecked, and whose it is for messages. */
export interface FoundList {
  readonly der: Buffer
  readonly place: string
}

/**
 * Parses each list and finds the CA that signed it. One of another CA is left out, as of one that is not trusted any more, where its place
 * holds others: `warn` is told. Throws CRL_INVALID for a place of such only, and for what does not parse, has ended, or is a delta without
 * the complete list that it builds on. Complete lists come before deltas, else in the order given.
 */
export async function checkLists(
  lists: readonly FoundList[],
  { authorities, now, warn }: Circumstances,
): Promise<RevocationList[]> {
  if (lists.length === 0) return []
  await import('reflect-metadata')
  const { X509Crl, PublicKey } = await import('@peculiar/x509')
  const all = await Promise.all(lists.map(check))
  const places = new Set(all.flatMap((one) => ('list' in one ? [one.place] : [])))
  for (const one of all) {
    if ('list' in one) continue
    if (!places.has(one.place)) throw new SidecarError('CRL_INVALID', one.foreign)
    warn(one.foreign)
  }
  const checked = all.filter((one) => 'list' in one)
  const found = checked.map(({ list }) => list).toSorted((a, b) => Number(a.isDelta) - Number(b.isDelta))
  for (const { list, base } of checked) if (list.isDelta) assertFits(list, base, found)
  return found

  async function check({ der, place }: FoundList): Promise<Checked | Foreign> {
    const crl = parse(der, place)
    const issuer = await signerOf(crl)
    const name = `the revocation list of "${crl.issuer}" (${place})`
    if (!issuer) return { place, foreign: `${name} is signed by none of the CAs of this trust or their issuers` }
    const nextUpdate = crl.nextUpdate?.getTime() ?? NEVER
    if (nextUpdate <= now)
      throw new SidecarError('CRL_INVALID', `${name} has ended at ${new Date(nextUpdate).toISOString()}`)
    const indicator = crl.getExtension(DELTA_INDICATOR)
    const list = {
      der,
      issuer: crl.issuer,
      issuerFingerprint: fingerprintOf(issuer),
      thisUpdate: crl.thisUpdate.getTime(),
      nextUpdate,
      number: integerIn(crl.getExtension(CRL_NUMBER)?.value),
      isDelta: indicator !== null,
    }
    return { place, list, base: integerIn(indicator?.value) }
  }

  function parse(der: Buffer, place: string) {
    try {
      return new X509Crl(der)
    } catch (cause) {
      throw new SidecarError('CRL_INVALID', `a revocation list of ${place} does not parse`, { cause })
    }
  }

  async function signerOf(crl: InstanceType<typeof X509Crl>): Promise<X509Certificate | undefined> {
    for (const authority of authorities) {
      const publicKey = new PublicKey(authority.publicKey.export({ type: 'spki', format: 'der' }))
      if (await crl.verify({ publicKey }).catch(() => false)) return authority
    }
    return undefined
  }
}

interface Circumstances {
  /** Whose lists are wanted. */
  readonly authorities: readonly X509Certificate[]
  readonly now: Instant
  readonly warn: (message: string) => void
}

interface Foreign {
  readonly place: string
  /** What is wrong with it. */
  readonly foreign: string
}

interface Checked {
  readonly place: string
  readonly list: RevocationList
  /** Of a delta: the number of the complete list, which or any later one it may be added to (RFC 5280 §5.2.4). */
  readonly base: bigint | undefined
}

/** A delta alone says nothing of who was revoked before it. Throws CRL_INVALID. */
function assertFits(delta: RevocationList, base: bigint | undefined, lists: readonly RevocationList[]): void {
  const name = `the delta list of "${delta.issuer}" (number ${delta.number ?? 'none'}, base ${base ?? 'none'})`
  const complete = lists.filter((one) => !one.isDelta && one.issuerFingerprint === delta.issuerFingerprint)
  if (complete.length === 0)
    throw new SidecarError('CRL_INVALID', `${name} comes without the complete list that it builds on`)
  const numbers = complete.map(({ number }) => number)
  if (base === undefined || !numbers.some((number) => number !== undefined && number >= base))
    throw new SidecarError(
      'CRL_INVALID',
      `${name} builds on a later list than the complete one there is, of number ${numbers.join(', ') || 'none'}`,
    )
}

/** The DER of an INTEGER. */
function integerIn(value: ArrayBuffer | undefined): bigint | undefined {
  if (value === undefined) return undefined
  const bytes = Buffer.from(value)
  return bytes[0] === 0x02 && bytes.length > 2 ? BigInt(`0x${bytes.subarray(2).toString('hex')}`) : undefined
}

/**
 * An older list must not take the place of a newer one: whoever replays it would bring revoked certificates back. Of several lists of one CA,
 * as of two places of which one lags behind, the newest counts.
 */
export function assertNotOlder(found: readonly RevocationList[], before: readonly RevocationList[]): void {
  const known = newest(before)
  for (const [key, list] of newest(found)) {
    const last = known.get(key)
    if (last && isOlder(list, last))
      throw new SidecarError(
        'CRL_INVALID',
        `the revocation list of "${list.issuer}" is older than the one in service: ${ageOf(list)}, not ${ageOf(last)}`,
      )
  }
}

function newest(lists: readonly RevocationList[]): Map<string, RevocationList> {
  const byCa = new Map<string, RevocationList>()
  for (const list of lists) {
    const key = `${list.issuerFingerprint} ${list.isDelta}`
    const other = byCa.get(key)
    if (!other || isOlder(other, list)) byCa.set(key, list)
  }
  return byCa
}

const isOlder = (one: RevocationList, other: RevocationList): boolean =>
  one.number !== undefined && other.number !== undefined ? one.number < other.number : one.thisUpdate < other.thisUpdate

const ageOf = ({ number, thisUpdate }: RevocationList): string =>
  number === undefined ? `of ${new Date(thisUpdate).toISOString()}` : `number ${number}`
