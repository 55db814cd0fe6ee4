import type { X509Certificate } from 'node:crypto'
import { SocketAddress } from 'node:net'
import { domainToASCII } from 'node:url'
import * as z from 'zod'
import { isIP } from './ip.ts'
import { quote } from './secret.ts'

/** The names of a certificate: subject common name and subjectAltName (RFC 5280 §4.2.1.6), normalised for comparison. */
export interface Names {
  readonly commonName: string | undefined
  readonly dns: readonly string[]
  readonly ip: readonly string[]
  readonly uri: readonly string[]
  readonly email: readonly string[]
}

type Kind = 'dns' | 'ip' | 'uri' | 'email'

/**
 * The names a request will carry in its subjectAltName. A bare list of `altNames` is sorted into kinds: an address is an IP,
 * what else holds a colon a URI, what holds `@` an email, the rest DNS. The common name joins them unless `excludeCnFromSans`,
 * or unless it is free text such as `Payment Service`, which no subjectAltName can hold.
 */
export function requestedNames(request: {
  commonName: string | undefined
  altNames: readonly string[]
  excludeCnFromSans: boolean
}): Names {
  const { commonName, altNames, excludeCnFromSans } = request
  const joins = commonName !== undefined && !excludeCnFromSans && problemOf(commonName) === undefined
  const all = joins ? [commonName, ...altNames] : altNames
  const pick = (kind: Kind) => unique(all.filter((name) => kindOf(name) === kind).map((name) => normalise(kind, name)))
  return { commonName, dns: pick('dns'), ip: pick('ip'), uri: pick('uri'), email: pick('email') }
}

/** Config: one name for the subjectAltName of a certificate. */
export const AltName = z
  .string()
  .meta({
    description:
      'A DNS name (`*.` at the left only), an IP address, a URI such as spiffe://example.org/web, or an email address',
    examples: ['www.example.com'],
  })
  .superRefine((name, context) => {
    const problem = problemOf(name)
    if (problem !== undefined) context.addIssue({ code: 'custom', message: `${JSON.stringify(name)} ${problem}` })
  })

/** Config: the subject common name; 64 characters at most (RFC 5280 appendix A, ub-common-name). */
export const CommonName = z
  .string()
  .meta({
    description:
      'Subject common name, also put into the subjectAltName where it is a DNS name, an address, a URI or an email',
  })
  .min(1, 'must not be empty; leave it out to issue a certificate without a common name')
  .max(64, 'is longer than the 64 characters a common name can hold; leave it out and use altNames')
  .regex(/^\P{Cc}*$/u, 'holds a control character')

const kindOf = (name: string): Kind => {
  if (isIP(name)) return 'ip'
  if (name.includes(':')) return 'uri'
  return name.includes('@') ? 'email' : 'dns'
}

/** What keeps `name` from being a subjectAltName, or undefined. The encodings are IA5String, so all but DNS must be ASCII already. */
function problemOf(name: string): string | undefined {
  if (/[\s\p{Cc}]/u.test(name)) return 'holds white space or a control character'
  switch (kindOf(name)) {
    case 'ip':
      return name.includes('%') ? 'names a zone, which a certificate cannot hold' : undefined
    case 'uri':
      return isAscii(name) && /^[a-z][a-z0-9+.-]*:(?!\d*$)/i.test(name) && URL.canParse(name)
        ? undefined
        : 'is neither an IP address nor a URI with a scheme, in ASCII'
    case 'email':
      return isAscii(name) && /^[^@,]+@[^@,]+$/.test(name) && isHost(name.slice(name.indexOf('@') + 1))
        ? undefined
        : 'is not an email address in ASCII'
    case 'dns':
      return isDnsName(name) ? undefined : 'is not a DNS name'
  }
}

const isAscii = (text: string) => /^[\x21-\x7e]*$/.test(text)

/** A host, or a wildcard, which counts for the length as well. What becomes an address by the rules for international names is none. */
function isDnsName(name: string): boolean {
  const host = name.replace(/^\*\./, '')
  const ascii = toAscii(host)
  return isHost(host) && !isIP(ascii) && ascii.length + name.length - host.length <= LONGEST_NAME
}

/** RFC 1035 §2.3.4, without the length octets of the first label and the root. */
const LONGEST_NAME = 253

/** Labels of letters, digits, hyphen and underscore (in use, if not in RFC 1123), 63 characters each and 253 in all. */
function isHost(name: string): boolean {
  const ascii = toAscii(name)
  return (
    ascii.length <= LONGEST_NAME &&
    ascii.split('.').every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label))
  )
}

/** Lower case, and international names as their A-labels (RFC 5891); an empty string where that cannot be done. */
const toAscii = (name: string) => (isAscii(name) ? name.toLowerCase() : domainToASCII(name))

function normalise(kind: Kind, name: string): string {
  if (kind === 'dns') return toAscii(name)
  return kind === 'ip' && isIP(name) === 6 ? normaliseIPv6(name) : name
}

/** The shortest form; an address mapped from IPv4 (RFC 4291 §2.5.5.2) as IPv4, since that is what a Go program such as Vault writes for it. */
function normaliseIPv6(address: string): string {
  const short = new SocketAddress({ address, family: 'ipv6' }).address
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(short)?.[1] ?? short
}

/** The names in a certificate. Node prints the extension as `DNS:a, IP Address:1.2.3.4`, quoting as JSON whatever could be misread. */
export function namesOf(certificate: X509Certificate): Names {
  const found: Record<Kind, string[]> = { dns: [], ip: [], uri: [], email: [] }
  for (const [, label = '', value = ''] of (certificate.subjectAltName ?? '').matchAll(
    /(?:^|, )([A-Za-z0-9 ]+):("(?:[^"\\]|\\.)*"|[^,]*)/g,
  )) {
    const kind = LABELS.get(label)
    if (kind) found[kind].push(normalise(kind, value.startsWith('"') ? String(JSON.parse(value)) : value))
  }
  return {
    commonName: commonNameOf(certificate),
    dns: unique(found.dns),
    ip: unique(found.ip),
    uri: unique(found.uri),
    email: unique(found.email),
  }
}

const LABELS = new Map<string, Kind>([
  ['DNS', 'dns'],
  ['IP Address', 'ip'],
  ['URI', 'uri'],
  ['email', 'email'],
])

/** One common name, alone in its RDN, of characters that the text of a subject shows as they are. */
const PLAIN_NAME = /^CN=([\w.*@-]+)$/m

/**
 * The last one counts where there are several. The text of a subject escapes what a name may hold, so it is taken from there only where
 * nothing is to be escaped; `toLegacyObject` knows all of it, but loads TLS, which takes 9 ms. Where that comes in by this way first, Node
 * leaves half of node:tls undefined for good (`createSecureContext` is one): hence the line before.
 */
function commonNameOf(certificate: X509Certificate): string | undefined {
  const text = certificate.subject ?? ''
  const plain = text.indexOf('CN=') === text.lastIndexOf('CN=') ? PLAIN_NAME.exec(text)?.[1] : undefined
  if (plain !== undefined || text === '') return plain
  process.getBuiltinModule('node:tls')
  const { subject } = certificate.toLegacyObject()
  const found: string | string[] | undefined = subject?.CN
  return Array.isArray(found) ? found.at(-1) : found
}

/** What differs between two sets of names, in words fit for one line; empty when they are equal. The order of names does not count. */
export function differences(wanted: Names, got: Names): string[] {
  const found: string[] = []
  if (wanted.commonName !== got.commonName)
    found.push(`common name is ${quote(got.commonName ?? '(none)')}, wanted ${wanted.commonName ?? '(none)'}`)
  for (const kind of ['dns', 'ip', 'uri', 'email'] as const) {
    const missing = wanted[kind].filter((name) => !got[kind].includes(name))
    const extra = got[kind].filter((name) => !wanted[kind].includes(name))
    if (missing.length > 0) found.push(`${kind} lacks ${missing.join(', ')}`)
    if (extra.length > 0) found.push(`${kind} has ${quote(extra.join(', '))} besides`)
  }
  return found
}

const unique = (values: readonly string[]) => [...new Set(values)]
