import * as z from 'zod'
import type { StagedVault } from './vault.ts'

export interface NewIntermediate {
  /** The mount of the root that signs it; `{mount}-root` unless given. */
  readonly by?: string
  readonly commonName?: string
  readonly ttl?: string
  /** What Vault does when a certificate would outlive it: `err` unless given. */
  readonly leafNotAfter?: 'err' | 'truncate' | 'permit'
}

const Issuers = z.object({ default: z.string() })
const Imported = z.object({ imported_issuers: z.array(z.string()).min(1) })
const Text = z.object({ csr: z.string().optional(), certificate: z.string().optional() })

/** The issuer that this mount uses when none is named. */
export async function defaultIssuer({ api }: StagedVault, mount: string): Promise<string> {
  return Issuers.parse((await api('GET', `${mount}/config/issuers`)).data).default
}

export async function setDefaultIssuer({ api }: StagedVault, mount: string, issuer: string): Promise<void> {
  await api('POST', `${mount}/config/issuers`, { default: issuer })
}

/** Adds one more intermediate to the mount, and gives its id; the default stays. */
export async function addIntermediate(
  vault: StagedVault,
  mount: string,
  { by = `${mount}-root`, commonName = `${mount} next`, ttl = '43800h', leafNotAfter = 'err' }: NewIntermediate = {},
): Promise<string> {
  const { api } = vault
  const before = await defaultIssuer(vault, mount)
  const key = { common_name: commonName, key_type: 'ec', key_bits: 256 }
  const { csr } = Text.parse((await api('POST', `${mount}/intermediate/generate/internal`, key)).data)
  const signing = { csr, common_name: commonName, ttl }
  const { certificate } = Text.parse((await api('POST', `${by}/root/sign-intermediate`, signing)).data)
  const { data: root } = await api('GET', `${by}/cert/ca`)
  // Vault lists an issuer that it knows already as well; the new one comes first, as it stands in the file.
  const bundle = `${certificate}\n${root?.certificate}`
  const { imported_issuers: issuers } = Imported.parse(
    (await api('POST', `${mount}/intermediate/set-signed`, { certificate: bundle })).data,
  )
  const [issuer = ''] = issuers
  await api('POST', `${mount}/issuer/${issuer}`, { leaf_not_after_behavior: leafNotAfter })
  await setDefaultIssuer(vault, mount, before)
  return issuer
}
