import * as z from 'zod'
import { isSelfIssued, parseCertificates } from '../core/bundle.ts'
import { SidecarError } from '../errors.ts'
import { MountPath, PathSegment, vaultName } from '../vault/paths.ts'
import { defineAnchors, defineLists } from './anchor.ts'
import { blocksOfLists } from './blocks.ts'

const place = {
  vault: vaultName,
  mount: MountPath.prefault('pki').describe('Where the PKI engine is mounted'),
  issuer: PathSegment.prefault('all').describe('One issuer by its name or id, default for the default one, or all'),
}

/** https://developer.hashicorp.com/vault/api-docs/secret/pki#list-issuers and #read-issuer: none of them needs a token. */
export const vaultPkiAnchors = defineAnchors({
  kind: 'vault-pki',
  summary: 'The roots of the issuers of a PKI mount; where it knows none, the issuers themselves.',
  options: z.strictObject(place),
  create: ({ vault: name, mount, issuer }, { vault: getVault }) => {
    const vault = getVault(name)
    return {
      origin: `vault-pki ${vault.address} ${mount} ${issuer}`,
      read: async (signal) => {
        const refs = issuer === 'all' ? await vault.issuers(mount, signal) : [issuer]
        const chains = await Promise.all(refs.map((ref) => vault.caChain(mount, ref, signal)))
        const all = parseCertificates(chains.flat().join('\n'))
        const roots = all.filter(isSelfIssued)
        if (all.length === 0) throw new SidecarError('TRUST_INVALID', `${mount} of ${vault.address} has no issuer`)
        return roots.length > 0 ? roots : all
      },
    }
  },
})

/** https://developer.hashicorp.com/vault/api-docs/secret/pki#read-issuer-crl */
export const vaultPkiLists = defineLists({
  kind: 'vault-pki',
  summary: 'The revocation lists of the issuers of a PKI mount: GET {mount}/issuer/{ref}/crl/der.',
  options: z.strictObject({
    ...place,
    delta: z.boolean().default(false).describe('The delta lists as well, where the mount makes them'),
  }),
  create: ({ vault: name, mount, issuer, delta }, { vault: getVault }) => {
    const vault = getVault(name)
    const refsOf = (signal: AbortSignal) =>
      issuer === 'all' ? vault.issuers(mount, signal) : Promise.resolve([issuer])
    return {
      issuers: async (signal) => {
        const chains = await Promise.all((await refsOf(signal)).map((ref) => vault.caChain(mount, ref, signal)))
        return parseCertificates(chains.flat().join('\n'))
      },
      origin: `vault-pki ${vault.address} ${mount} ${issuer}${delta ? ' delta' : ''}`,
      read: async (signal) => {
        const refs = await refsOf(signal)
        const listsOf = (isDelta: boolean) =>
          Promise.all(refs.map((ref) => vault.revocationList({ mount, issuer: ref, isDelta }, signal)))
        // Deltas first: a complete list that is made in between is a later one, to which they may be added as well.
        const deltas = delta ? await listsOf(true) : []
        const complete = await listsOf(false)
        const texts = [...complete, ...deltas].filter((text) => text !== undefined)
        if (texts.length === 0)
          throw new SidecarError('CRL_INVALID', `${mount} of ${vault.address} has no revocation list of ${issuer}`)
        const lists = texts.flatMap((text) => blocksOfLists(Buffer.from(text), `${mount} of ${vault.address}`))
        return [...new Map(lists.map((list) => [list.toString('base64'), list])).values()]
      },
    }
  },
})
