import * as z from 'zod'
import { type Bundle, toBundle } from '../core/bundle.ts'
import { readPkcs12 } from '../core/pkcs12.ts'
import { Secret } from '../core/secret.ts'
import { type Json, textOf } from '../core/values.ts'
import { SidecarError } from '../errors.ts'
import { MountPath, poll, SecretPath, vaultName } from '../vault/paths.ts'
import type { KvSecret } from '../vault/secrets.ts'
import { heldSource } from './held.ts'
import { defineSource } from './source.ts'
import { warnOfUnrelated } from './unrelated.ts'

/** As cert-manager, Vault itself, Kubernetes and people call them; the first that is there counts. */
const USUAL = {
  certificate: ['tls.crt', 'certificate', 'cert', 'crt', 'fullchain', 'pem'],
  key: ['tls.key', 'private_key', 'privateKey', 'key', 'privkey'],
  pkcs12: ['keystore.p12', 'pkcs12', 'p12', 'pfx'],
  password: ['password', 'passphrase', 'keystore_password', 'keystorePassword'],
  ca: ['ca.crt', 'ca_chain', 'issuing_ca', 'ca', 'chain', 'ca_bundle'],
} as const

const FieldName = z.string().min(1).optional()

const Options = z.strictObject({
  vault: vaultName,
  mount: MountPath.prefault('secret').describe('Where the key-value engine is mounted'),
  path: SecretPath.describe('Path below the mount, without data/'),
  version: z.int().min(1).optional().describe('The version to keep to; the latest unless given'),
  fields: z
    .strictObject({
      certificate: FieldName.describe(`The certificate, its issuers after it; else ${USUAL.certificate.join(', ')}`),
      key: FieldName.describe(`The private key; else ${USUAL.key.join(', ')}, or within the certificate`),
      ca: FieldName.describe(`Issuers and roots, text or list; else ${USUAL.ca.join(', ')}, where there is one`),
      pkcs12: FieldName.describe(
        `Instead of both, a PKCS#12 file in base64; else ${USUAL.pkcs12.join(', ')}, where there is no certificate`,
      ),
      password: FieldName.describe(`Its password; else ${USUAL.password.join(', ')}`),
    })
    .prefault({})
    .describe('Which field holds what: PEM, or PEM in base64'),
  poll,
})
type Fields = z.output<typeof Options>['fields']

export const vaultKv = defineSource({
  kind: 'vault-kv',
  summary:
    'A certificate and its key that somebody else keeps in a key-value engine of Vault; a new version is a rotation.',
  options: Options,
  create: ({ vault: name, fields, poll, ...place }, { vault: getVault, clock: { now, random }, warn }) => {
    const { address, secrets } = getVault(name)
    const where = `${place.mount}/${place.path}`
    const origin = `vault-kv ${address} ${where}${place.version === undefined ? '' : ` v${place.version}`}`
    let seen: string | undefined
    const fetch = async (signal: AbortSignal): Promise<Bundle> => {
      const secret = await secrets.readKv(place, signal)
      const bundle = toBundle({ ...(await partsOf(secret, fields, where)), origin, receivedAt: now() })
      if (bundle.fingerprint !== seen) warnOfUnrelated(bundle, where, warn)
      seen = bundle.fingerprint
      return bundle
    }
    return heldSource({ origin, place: where, poll, random, fetch })
  },
})

type What = keyof typeof USUAL

async function partsOf({ fields: secret, version }: KvSecret, wanted: Fields, where: string) {
  const fields = secret.reveal()
  const place = version === 0 ? where : `${where} version ${version}`
  const missing = (what: What, trouble: string) =>
    new SidecarError(
      'FIELD_MISSING',
      `${place} ${trouble} for the ${what}; it has ${Object.keys(fields).join(', ') || 'none'}; say fields.${what}`,
    )
  const find = (what: What): string | undefined => {
    const name = wanted[what] ?? USUAL[what].find((usual) => fields[usual] !== undefined)
    const found = name === undefined ? undefined : fields[name]
    if (name === undefined) return undefined
    if (found === undefined) throw missing(what, `has no field "${name}"`)
    return pemOf(found)
  }
  const need = (what: What, found = find(what)): string => {
    if (found !== undefined) return found
    throw missing(what, `has none of the usual fields (${USUAL[what].join(', ')})`)
  }

  const ca = find('ca')
  const issuers = ca === undefined ? [] : [ca]
  const store = wanted.pkcs12 !== undefined || find('certificate') === undefined ? find('pkcs12') : undefined
  if (store !== undefined) {
    const password = find('password')
    const bytes = Buffer.from(store, 'base64')
    const { key, certificates } = await readPkcs12(
      bytes,
      password === undefined ? undefined : new Secret(password),
      place,
    )
    return { certificate: certificates.join(''), key, issuers }
  }
  const certificate = need('certificate')
  return { certificate, key: need('key', find('key') ?? keyIn(certificate)), issuers }
}

/** Text, a list of texts, or one of them in base64. */
function pemOf(json: Json): string {
  const text = Array.isArray(json) ? json.map((one) => pemOf(one)).join('\n') : textOf(json)
  if (text.includes('-----BEGIN ')) return text
  const decoded = Buffer.from(text, 'base64').toString('utf8')
  return decoded.includes('-----BEGIN ') ? decoded : text
}

const keyIn = (pem: string): string | undefined =>
  /-----BEGIN (?:\w+ )?PRIVATE KEY-----[\s\S]+?-----END (?:\w+ )?PRIVATE KEY-----/.exec(pem)?.[0]
