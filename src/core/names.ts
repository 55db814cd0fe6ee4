import type { X509Certificate } from 'node:crypto'
import { isIP, SocketAddress } from 'node:net'

/** The names of a certificate: subject common name and subjectAltName (RFC 5280 §4.2.1.6), normalised for comparison. */
export interface Names {
  readonly commonName: string | undefined
  readonly dns: readonly string[]
  readonly ip: readonly string[]
  readonly uri: readonly string[]
  readonly email: readonly string[]
}

/**
 * The names a request will carry in its subjectAltName. A bare list of `altNames` is sorted into kinds the way Vault does it: an address is an IP,
 * what holds `://` a URI, what holds `@` an email, the rest DNS. The common name joins the DNS names unless `excludeCnFromSans`.
 */
export function requestedNames(request: {
  commonName: string
  altNames: readonly string[]
  excludeCnFromSans: boolean
}): Names {
  const all = request.excludeCnFromSans ? request.altNames : [request.commonName, ...request.altNames]
  const pick = (kind: string) =>
    unique(all.filter((name) => kindOf(name) === kind).map((name) => normalise(kind, name)))
  return { commonName: request.commonName, dns: pick('dns'), ip: pick('ip'), uri: pick('uri'), email: pick('email') }
}

const kindOf = (name: string) =>
  isIP(name) ? 'ip' : name.includes('://') ? 'uri' : name.includes('@') ? 'email' : 'dns'

function normalise(kind: string, name: string): string {
  if (kind === 'dns') return name.toLowerCase()
  if (kind === 'ip' && isIP(name) === 6) return new SocketAddress({ address: name, family: 'ipv6' }).address
  return name
}

/** The names in a certificate. Node prints the extension as `DNS:a, IP Address:1.2.3.4`, quoting as JSON whatever could be misread. */
export function namesOf(certificate: X509Certificate): Names {
  const found = { dns: [] as string[], ip: [] as string[], uri: [] as string[], email: [] as string[] }
  const labels = { DNS: 'dns', 'IP Address': 'ip', URI: 'uri', email: 'email' } as const
  for (const [, label, value] of (certificate.subjectAltName ?? '').matchAll(
    /(?:^|, )([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^,]*)/g,
  )) {
    const kind = labels[label as keyof typeof labels]
    if (kind && value !== undefined)
      found[kind].push(normalise(kind, value.startsWith('"') ? String(JSON.parse(value)) : value))
  }
  const commonName = /^CN=(.*)$/m.exec(certificate.subject ?? '')?.[1]
  return {
    commonName,
    dns: unique(found.dns),
    ip: unique(found.ip),
    uri: unique(found.uri),
    email: unique(found.email),
  }
}

/** What differs between two sets of names, in words; empty when they are equal. The order of names does not count. */
export function differences(wanted: Names, got: Names): string[] {
  const found: string[] = []
  if (wanted.commonName !== got.commonName)
    found.push(`common name is ${got.commonName ?? '(none)'}, wanted ${wanted.commonName ?? '(none)'}`)
  for (const kind of ['dns', 'ip', 'uri', 'email'] as const) {
    const missing = wanted[kind].filter((name) => !got[kind].includes(name))
    const extra = got[kind].filter((name) => !wanted[kind].includes(name))
    if (missing.length > 0) found.push(`${kind} lacks ${missing.join(', ')}`)
    if (extra.length > 0) found.push(`${kind} has ${extra.join(', ')} besides`)
  }
  return found
}

const unique = (values: readonly string[]) => [...new Set(values)]
