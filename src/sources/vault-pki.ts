import * as z from 'zod'
import { type Bundle, certificatePem, serialOf, toBundle } from '../core/bundle.ts'
import { createCsr } from '../core/csr.ts'
import type { Finding } from '../core/finding.ts'
import { generateKey } from '../core/key.ts'
import type { Names } from '../core/names.ts'
import { Duration } from '../core/units.ts'
import { mayHaveIssued, SidecarError } from '../errors.ts'
import { pkiPath, type Vault } from '../vault/client.ts'
import { MountPath, PathSegment, vaultName } from '../vault/paths.ts'
import { examinePolicy } from '../vault/policy.ts'
import { hasNames, NameOptions, NO_NAMES, namesFrom } from './name-options.ts'
import { examineRole, type Wish } from './pki-role.ts'
import { defineSource } from './source.ts'

const Options = z
  .strictObject({
    vault: vaultName,
    mount: MountPath.prefault('pki').describe('Where the PKI engine is mounted'),
    role: PathSegment.describe('The PKI role that decides what is granted'),
    ...NameOptions,
    ttl: Duration.refine((ms) => ms >= 1000, { error: 'must be at least 1s' })
      .optional()
      .describe('Lifetime asked for; by default that of the role'),
    method: z
      .enum(['sign', 'issue'])
      .default('sign')
      .describe('sign makes the key here and sends a CSR; issue lets Vault make the key, of the algorithm of the role'),
    issuerRef: PathSegment.optional().describe('Issuer to use instead of the one that the role names'),
    removeRootsFromChain: z.boolean().default(false).describe('Asks Vault to leave the root out of its answer'),
  })
  .refine(hasNames, NO_NAMES)
type Options = z.output<typeof Options>

export const vaultPki = defineSource({
  kind: 'vault-pki',
  summary: 'Issues from a Vault PKI role: POST {mount}/sign/{role}, or {mount}/issue/{role}.',
  options: Options,
  create: (options, { vault: getVault, key: { algorithm }, clock: { now } }) => {
    const { mount, role, issuerRef, method } = options
    const vault = getVault(options.vault)
    const names = namesFrom(options)
    const origin = `vault-pki ${vault.address} ${mount}${issuerRef === undefined ? '' : `/issuer/${issuerRef}`}`
    const body = bodyOf(options, names)

    const obtain = async (signal: AbortSignal) => {
      const request = { mount, role, issuerRef, body }
      if (method === 'issue') {
        const issued = await vault.issue(request, signal)
        return { issued, key: issued.privateKey?.reveal() }
      }
      const key = await generateKey(algorithm)
      const csr = await createCsr(names, key)
      return { issued: await vault.sign({ ...request, body: { ...body, csr } }, signal), key }
    }

    const complete = async ({ issued, key }: Awaited<ReturnType<typeof obtain>>, signal: AbortSignal) => {
      if (!key) throw new SidecarError('BAD_RESPONSE', `the answer of ${origin} holds no private key`)
      const issuers = [issued.issuingCa, ...issued.caChain]
      const parts = { certificate: issued.certificate, issuers, key, origin, receivedAt: now() }
      const bundle = toBundle(parts)
      if (bundle.roots.length > 0) return bundle
      const more = await askForRoot(vault, options, signal)
      const completed = toBundle({ ...parts, issuers: [...issuers, ...more] })
      return reachesRoot(completed) ? completed : bundle
    }

    return {
      origin,
      issues: true,
      ttlMs: options.ttl,
      names,
      algorithm: method === 'sign' ? algorithm : undefined,
      examine: (signal) =>
        examineGrant(
          vault,
          options,
          { names, ttlMs: options.ttl, algorithm: method === 'sign' ? algorithm : undefined },
          signal,
        ),
      revokedAt: (certificate, signal) => vault.revokedAt(mount, serialOf(certificate), signal),
      revoke: (certificate, _why, signal) => vault.revoke(mount, certificatePem(certificate), signal),
      fetch: async (signal) => {
        signal.throwIfAborted()
        const answer = await obtain(signal)
        try {
          return await complete(answer, signal)
        } catch (error) {
          throw mayHaveIssued(error)
        }
      },
    }
  },
})

/**
 * https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-certificate. Every name is given, in the CSR for roles with `use_csr_sans` and
 * here for the others; Vault is not to add the common name by itself, since it takes an address for a DNS name.
 */
const bodyOf = ({ commonName, ttl, removeRootsFromChain }: Options, names: Names) => ({
  ...(commonName === undefined ? {} : { common_name: commonName }),
  alt_names: [...names.dns, ...names.email].join(','),
  ip_sans: names.ip,
  uri_sans: names.uri,
  exclude_cn_from_sans: true,
  ...(ttl === undefined ? {} : { ttl: `${Math.round(ttl / 1000)}s` }),
  format: 'pem',
  ...(removeRootsFromChain ? { remove_roots_from_chain: true } : {}),
})

/** Whether the policy and the role grant what will be asked. */
async function examineGrant(
  vault: Vault,
  { mount, role, issuerRef, method }: Options,
  wish: Wish,
  signal: AbortSignal,
): Promise<Finding[]> {
  const path = pkiPath(method, { mount, role, issuerRef }).join('/')
  const policy = await examinePolicy(vault, { method: 'POST', path }, signal)
  const settings = await vault.readRole(mount, role, signal)
  if (!settings) {
    return [
      policy,
      {
        ok: undefined,
        what: `the role ${role} cannot be read with this token, so names and ttl were not compared with it`,
        fix: `For the doctor only: path "${mount}/roles/${role}" { capabilities = ["read"] }`,
      },
    ]
  }
  const troubles = examineRole(settings, wish)
  return [
    policy,
    ...(troubles.length > 0 ? troubles : [{ ok: true, what: `the role ${role} allows these names, key and ttl` }]),
  ]
}

/** The certificate exists by now, so a failure here must not waste it: without a root `check.chain` decides. */
async function askForRoot(vault: Vault, { mount, issuerRef = 'default' }: Options, signal: AbortSignal) {
  try {
    return await vault.caChain(mount, issuerRef, signal)
  } catch {
    signal.throwIfAborted()
    return []
  }
}

/** The role may use another issuer than the one we asked about; its root would be a wrong trust anchor. */
function reachesRoot({ leaf, intermediates, roots }: Bundle): boolean {
  const last = intermediates.at(-1) ?? leaf
  return roots.every((root) => last.checkIssued(root) && last.verify(root.publicKey))
}
