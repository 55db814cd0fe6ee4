import { isAbsolute } from 'node:path'
import * as z from 'zod'
import { ListenAddress } from '../core/listen.ts'
import { Duration } from '../core/units.ts'

/** Directories that have a name (RFC 8555 §7.1.1), each with the one to rehearse against. */
export const DIRECTORIES = {
  letsencrypt: 'https://acme-v02.api.letsencrypt.org/directory',
  'letsencrypt-staging': 'https://acme-staging-v02.api.letsencrypt.org/directory',
} as const

const AbsolutePath = z
  .string()
  .refine((path) => isAbsolute(path) && !path.includes('\0') && !path.split('/').includes('..'), {
    error: 'must be an absolute path without ".."',
  })

const DirectoryUrl = z
  .string()
  .meta({ examples: ['https://acme.example.com/directory'] })
  .refine((text) => text in DIRECTORIES || isHttps(text), {
    error: `must be ${Object.keys(DIRECTORIES).join(', ')}, or the https URL of a directory`,
  })
  .transform((text) => ('letsencrypt' === text || 'letsencrypt-staging' === text ? DIRECTORIES[text] : text))

function isHttps(text: string): boolean {
  return URL.canParse(text) && new URL(text).protocol === 'https:'
}

const Argv = z.tuple([z.string().min(1)]).rest(z.string())

/** RFC 2136, with TSIG (RFC 8945). */
const Rfc2136 = z.strictObject({
  server: z
    .string()
    .regex(/^(?:\[[0-9a-f:.]+\]|[^:[\]\s]+)(?::\d{1,5})?$/i, 'must be host or host:port')
    .describe('The name server that takes updates, host or host:port'),
  zone: z.string().min(1).describe('The zone that is updated, such as example.com'),
  keyName: z.string().min(1).describe('Name of the TSIG key'),
  keyFile: AbsolutePath.describe('File with its secret in base64'),
  algorithm: z
    .enum(['hmac-sha256', 'hmac-sha384', 'hmac-sha512'])
    .default('hmac-sha256')
    .describe('Algorithm of the TSIG key'),
  ttl: Duration.prefault('60s').describe('TTL of the record'),
})

const Hook = z.strictObject({
  present: Argv.describe('Command that makes the TXT record; see docs/acme.md for what it is told'),
  cleanup: Argv.optional().describe('Command that removes it'),
  timeout: Duration.prefault('2m').describe('For one run of either; then it is killed with all that it started'),
})

/** What of the options each kind takes: exactly one of these. */
const ANSWERED_BY = {
  'http-01': ['listen', 'webroot'],
  'tls-alpn-01': ['listen'],
  'dns-01': ['exec', 'rfc2136'],
} as const
const ALL = ['listen', 'webroot', 'exec', 'rfc2136'] as const

const Challenge = z
  .strictObject({
    kind: z
      .enum(['http-01', 'tls-alpn-01', 'dns-01'])
      .describe('http-01 answers at port 80, tls-alpn-01 at port 443 of each name, dns-01 by a TXT record'),
    listen: ListenAddress.optional().describe(
      'Of http-01 and tls-alpn-01: certferry answers here while the order lasts; what the port leads to, or what the server there passes /.well-known/acme-challenge/ on to',
    ),
    webroot: AbsolutePath.optional().describe(
      'Of http-01, instead of listen: the folder that the server at port 80 serves; the answer is put below .well-known/acme-challenge',
    ),
    exec: Hook.optional().describe('Of dns-01: commands that make and remove the TXT record'),
    rfc2136: Rfc2136.optional().describe('Of dns-01, instead of exec: dynamic updates of the zone'),
    propagation: Duration.optional().describe(
      'Of dns-01: how long to wait between the record and the challenge; not at all unless given',
    ),
  })
  .superRefine((challenge, context) => {
    const { kind, propagation } = challenge
    const [wanted, given] = [ANSWERED_BY[kind], ALL.filter((name) => challenge[name] !== undefined)]
    const refuse = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
    const isWanted = (name: string) => wanted.some((one) => one === name)
    for (const name of given) if (!isWanted(name)) refuse(name, `has no meaning with ${kind}`)
    if (given.filter(isWanted).length !== 1)
      refuse('kind', `${kind} needs ${wanted.length > 1 ? 'either ' : ''}${wanted.join(' or ')}`)
    if (propagation !== undefined && kind !== 'dns-01') refuse('propagation', `has no meaning with ${kind}`)
  })

export const AcmeOptions = {
  directory: DirectoryUrl.prefault('letsencrypt').describe(
    `The ACME server: ${Object.keys(DIRECTORIES).join(', ')}, or the URL of its directory`,
  ),
  stagingDirectory: DirectoryUrl.optional().describe(
    'Where certferry once --dry-run rehearses; that of letsencrypt is known',
  ),
  caFile: AbsolutePath.optional().describe('PEM file of the CAs of the ACME server itself, where it is a private one'),
  account: z
    .strictObject({
      keyFile: AbsolutePath.describe(
        'The key of the account, made at first use (0600) in a folder that is there; one account may serve many certificates',
      ),
      contact: z
        .array(z.string().regex(/^mailto:[^\s@]+@[^\s@]+$/, 'must be mailto: and an address'))
        .default([])
        .describe('Where the CA writes to, as mailto:ops@example.com'),
      termsOfServiceAgreed: z
        .boolean()
        .default(false)
        .describe('That you agree to the terms of the CA; most demand it'),
      externalAccountBinding: z
        .strictObject({
          kid: z.string().min(1).describe('Key identifier, from the CA'),
          hmacKeyFile: AbsolutePath.describe('File with the HMAC key in base64url, from the CA'),
        })
        .optional()
        .describe('Ties the account to one at the CA (RFC 8555 §7.3.4)'),
    })
    .describe('The account at the CA'),
  challenge: Challenge.describe('How control over the names is shown'),
  profile: z.string().min(1).optional().describe('Certificate profile of the CA, such as shortlived'),
  preferredChain: z
    .string()
    .min(1)
    .optional()
    .describe('Common name of the root or issuer that the chain shall end in, where the CA offers several'),
  ttl: Duration.optional().describe('Lifetime asked for; few CAs take it'),
  timeout: Duration.prefault('5m').describe('For an order from its beginning to the certificate'),
}

const Options = z.strictObject(AcmeOptions)
export type AcmeOptions = z.output<typeof Options>
export type ChallengeOptions = AcmeOptions['challenge']
export type HookOptions = z.output<typeof Hook>
export type UpdateOptions = z.output<typeof Rfc2136>

/** The directory to rehearse against; undefined where none is known. */
export const stagingOf = ({ directory, stagingDirectory }: Pick<AcmeOptions, 'directory' | 'stagingDirectory'>) =>
  stagingDirectory ??
  (directory.startsWith('https://acme-v02.api.letsencrypt.org/') ? DIRECTORIES['letsencrypt-staging'] : undefined)
