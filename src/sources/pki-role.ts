import type { Finding } from '../core/finding.ts'
import type { KeyAlgorithm } from '../core/key.ts'
import type { Names } from '../core/names.ts'
import { formatDuration } from '../core/units.ts'
import type { PkiRole } from '../vault/client.ts'

/** What is to be asked of a role. */
export interface Wish {
  readonly names: Names
  readonly ttlMs: number | undefined
  /** Undefined where Vault is to make the key. */
  readonly algorithm: KeyAlgorithm | undefined
}

/**
 * What a role would refuse, read from its settings. Vault's own rules are richer (globs, templates, policies of Sentinel), so this finds
 * the usual mistakes and no more. https://developer.hashicorp.com/vault/api-docs/secret/pki#create-update-role
 */
export function examineRole(role: PkiRole, { names, ttlMs, algorithm }: Wish): Finding[] {
  const refusedNames = role.allowAnyName ? [] : allDns(names).filter((name) => !isAllowed(role, name))
  return [
    ...(refusedNames.length > 0
      ? [
          bad(
            `the role does not allow ${refusedNames.join(', ')}`,
            `allowed_domains is [${role.allowedDomains.join(', ')}]; add the domain, or set allow_subdomains, allow_bare_domains or allow_glob_domains`,
          ),
        ]
      : []),
    ...(names.ip.length > 0 && !role.allowIpSans
      ? [bad('the role allows no IP addresses', 'set allow_ip_sans=true')]
      : []),
    ...(names.uri.length > 0 && role.allowedUriSans.length === 0
      ? [bad('the role allows no URIs', 'set allowed_uri_sans')]
      : []),
    ...(ttlMs !== undefined && role.maxTtlSeconds > 0 && ttlMs > role.maxTtlSeconds * 1000
      ? [
          bad(
            `the role cuts the ttl of ${formatDuration(ttlMs)} down to ${formatDuration(role.maxTtlSeconds * 1000)}`,
            'raise max_ttl of the role, or ask for less',
          ),
        ]
      : []),
    ...(algorithm === undefined && role.keyType === 'any'
      ? [bad('Vault makes no key for a role with key_type any', 'set key_type of the role, or use method: sign')]
      : []),
    ...(algorithm !== undefined && !isKeyAllowed(role, algorithm)
      ? [
          bad(
            `the role wants keys of type ${role.keyType} ${role.keyBits}, not ${algorithm}`,
            'set key_type=any, or change key.algorithm',
          ),
        ]
      : []),
  ]
}

const bad = (what: string, fix: string): Finding => ({ ok: false, what, fix })

const allDns = ({ commonName, dns, ip, uri, email }: Names) => [
  ...new Set([
    ...(commonName === undefined || ip.includes(commonName) || uri.includes(commonName) || email.includes(commonName)
      ? []
      : [commonName]),
    ...dns,
  ]),
]

function isAllowed(role: PkiRole, name: string): boolean {
  if (role.allowLocalhost && (name === 'localhost' || name === 'localdomain')) return true
  return role.allowedDomains.some((domain) => {
    if (domain.includes('{{')) return true
    if (role.allowGlobDomains && domain.includes('*'))
      return new RegExp(`^${domain.split('*').map(RegExp.escape).join('.*')}$`, 'i').test(name)
    const plain = domain.toLowerCase()
    return (role.allowBareDomains && name === plain) || (role.allowSubdomains && name.endsWith(`.${plain}`))
  })
}

/** Vault takes 0 bits as its default: 2048 for RSA, 256 for EC. */
function isKeyAllowed({ keyType, keyBits }: PkiRole, algorithm: KeyAlgorithm): boolean {
  if (keyType === 'any' || keyType === '') return true
  const [type, bits] =
    algorithm === 'ed25519'
      ? ['ed25519', 0]
      : algorithm.startsWith('rsa-')
        ? ['rsa', Number(algorithm.slice(4))]
        : ['ec', Number(algorithm.slice(-3))]
  if (keyType !== type) return false
  const least = keyBits || { rsa: 2048, ec: 256 }[type] || 0
  return bits >= least
}
