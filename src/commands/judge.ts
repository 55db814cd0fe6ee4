import { createPrivateKey, type X509Certificate } from 'node:crypto'
import { fingerprintOf, type Instant, isIssuedBy, serialOf } from '../core/bundle.ts'
import { isIP } from '../core/ip.ts'
import { namesOf } from '../core/names.ts'
import { quote } from '../core/secret.ts'
import { formatDuration } from '../core/units.ts'
import type { Chain } from '../verifiers/handshake.ts'
import type { StartTls } from '../verifiers/start-tls.ts'

export type State = 'OK' | 'WARNING' | 'CRITICAL' | 'UNKNOWN'

export interface Expectations {
  /** Less left than this is a warning, ms. */
  readonly warn: number
  /** Less left than this is critical, ms. */
  readonly critical: number
  /** Name to ask for and to expect, instead of that of the target. */
  readonly serverName?: string | undefined
  readonly startTls?: StartTls | undefined
  readonly roots: readonly X509Certificate[]
  readonly now: Instant
}

export interface Judgement {
  readonly state: State
  /** The worst first; empty when all is well. */
  readonly problems: readonly string[]
  readonly names?: readonly string[]
  readonly issuer?: string
  readonly serial?: string
  readonly fingerprint?: string
  readonly notBefore?: Instant
  /** The first end of validity among the leaf and its intermediates. */
  readonly notAfter?: Instant
  /** How many certificates were sent, or are in the file. */
  readonly certificates?: number
}

/** What else is known about a chain. */
interface Circumstances {
  /** DNS name or IP address that the leaf must carry. */
  readonly name?: string | undefined
  /** Private key in PEM that must be the leaf's. */
  readonly key?: string | undefined
  /** The leaf did not come first. */
  readonly isMisplaced?: boolean
  /** OpenSSL's own objection. */
  readonly distrust?: string | undefined
}

interface Problem {
  readonly state: 'WARNING' | 'CRITICAL'
  readonly text: string
}

/** Judges a leaf and what came with it: validity, way to a trusted root, name, key. Pure. */
export function judge(
  chain: Chain,
  expect: Expectations,
  { name, key, isMisplaced, distrust }: Circumstances,
): Judgement {
  const [leaf] = chain
  const { path, isTrusted } = findPath(chain, expect)
  const problems = [
    ...path.flatMap((certificate) =>
      validityProblems(certificate, expect, certificate === leaf ? '' : `its issuer "${quote(certificate.subject)}" `),
    ),
    ...(isTrusted ? distrustProblems(distrust) : [critical(untrusted(path))]),
    ...(name === undefined ? [] : nameProblems(leaf, name)),
    ...(key === undefined ? [] : keyProblems(leaf, key)),
    ...(isMisplaced ? [critical('the leaf is not the first certificate in the file; servers would not take it')] : []),
  ]
  return { ...conclude(problems), ...describe(leaf, chain.length), notAfter: Math.min(...path.map(endOf)) }
}

/** Judges CA certificates by their validity alone, and describes the one that ends first. Pure. */
export function judgeAuthorities(authorities: Chain, expect: Expectations): Judgement {
  const what = (authority: X509Certificate) => (authorities.length === 1 ? '' : `CA "${quote(authority.subject)}" `)
  const problems = authorities.flatMap((authority) => validityProblems(authority, expect, what(authority)))
  const first = authorities.reduce((a, b) => (endOf(b) < endOf(a) ? b : a))
  const names = [quote(namesOf(first).commonName ?? first.subject)]
  return { ...conclude(problems), ...describe(first, authorities.length), names, notAfter: endOf(first) }
}

const critical = (text: string): Problem => ({ state: 'CRITICAL', text })

function conclude(problems: readonly Problem[]): Pick<Judgement, 'state' | 'problems'> {
  const worstFirst = problems.toSorted((a, b) => a.state.localeCompare(b.state))
  return { state: worstFirst[0]?.state ?? 'OK', problems: worstFirst.map(({ text }) => text) }
}

function describe(leaf: X509Certificate, certificates: number) {
  const { commonName, dns, ip, uri, email } = namesOf(leaf)
  const names = [...dns, ...ip, ...uri, ...email]
  return {
    names: (names.length > 0 || commonName === undefined ? names : [commonName]).map((name) => quote(name)),
    issuer: quote(leaf.issuer),
    serial: serialOf(leaf),
    fingerprint: fingerprintOf(leaf),
    notBefore: leaf.validFromDate.getTime(),
    certificates,
  }
}

const endOf = (certificate: X509Certificate): Instant => certificate.validToDate.getTime()

/**
 * The way from the leaf to a trusted root through what came along; the root itself is not part of it. Certificates that are valid now are
 * preferred. Where there is no way, the longest beginning of one.
 */
function findPath([leaf, ...others]: Chain, { roots, now }: Expectations): { path: Chain; isTrusted: boolean } {
  const isValid = (certificate: X509Certificate) =>
    certificate.validFromDate.getTime() <= now && now < endOf(certificate)
  const valid = search(leaf, others.filter(isValid), roots.filter(isValid))
  return valid.isTrusted ? valid : search(leaf, others, roots)
}

function search(leaf: X509Certificate, pool: readonly X509Certificate[], roots: readonly X509Certificate[]) {
  const seen = new Set<X509Certificate>()
  let longest: Chain = [leaf]
  const visit = (path: Chain): Chain | undefined => {
    const last = path.at(-1) ?? leaf
    if (path.length > longest.length) longest = path
    if (roots.some((root) => fingerprintOf(root) === fingerprintOf(last) || isIssuedBy(last, root))) return path
    for (const next of pool) {
      if (seen.has(next) || !next.ca || !isIssuedBy(last, next)) continue
      seen.add(next)
      const found = visit([...path, next])
      if (found) return found
    }
    return undefined
  }
  const found = visit([leaf])
  return { path: found ?? longest, isTrusted: found !== undefined }
}

function untrusted(path: Chain): string {
  const last = path.at(-1) ?? path[0]
  const what = path.length === 1 ? 'it' : `"${quote(last.subject)}"`
  if (isIssuedBy(last, last)) return `${what} is self-signed and not among the trusted roots (--ca-file)`
  return `the chain is incomplete: "${quote(last.issuer)}", which issued ${what}, is neither included nor a trusted root (--ca-file)`
}

/** Only of interest where our own way to a root is open: name constraints, purposes and the like. Expiry and names are told elsewhere. */
const distrustProblems = (distrust: string | undefined): Problem[] =>
  distrust === undefined || TOLD_ELSEWHERE.has(distrust) ? [] : [critical(`OpenSSL does not trust it: ${distrust}`)]
const TOLD_ELSEWHERE = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID', 'ERR_TLS_CERT_ALTNAME_INVALID'])

function validityProblems(certificate: X509Certificate, expect: Expectations, what: string): Problem[] {
  const left = endOf(certificate) - expect.now
  const early = certificate.validFromDate.getTime() - expect.now
  if (early > 0) return [critical(`${what}becomes valid only in ${formatDuration(early)}`)]
  if (left <= 0) return [critical(`${what}expired ${formatDuration(-left)} ago`)]
  if (left < expect.critical) return [critical(`${what}expires in ${formatDuration(left)}`)]
  if (left < expect.warn) return [{ state: 'WARNING', text: `${what}expires in ${formatDuration(left)}` }]
  return []
}

/** By subjectAltName alone, as clients do (RFC 9525 §6.3). */
function nameProblems(leaf: X509Certificate, name: string): Problem[] {
  if (isIP(name) ? leaf.checkIP(name) : leaf.checkHost(name, { subject: 'never' })) return []
  const { dns, ip } = namesOf(leaf)
  return [critical(`is not for ${quote(name)}, but for ${quote([...dns, ...ip].join(', ')) || 'no host at all'}`)]
}

function keyProblems(leaf: X509Certificate, key: string): Problem[] {
  // Without the passphrase there is nothing to compare.
  if (/ENCRYPTED/.test(key)) return []
  try {
    return leaf.checkPrivateKey(createPrivateKey(key))
      ? []
      : [critical('the private key in the file belongs to another certificate')]
  } catch {
    return [critical('the private key in the file does not parse')]
  }
}
