import type { X509Certificate } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { definer } from '../registry.ts'
import type { Vault } from '../vault/client.ts'

/** Where CAs come from that peers are to trust. */
export interface AnchorSource {
  /** Such as `vault-pki https://vault:8200 pki`. */
  readonly origin: string
  /** All that it names now, at least one. Fails fast with a SidecarError. */
  read(signal: AbortSignal): Promise<readonly X509Certificate[]>
}

/** Where revocation lists come from. */
export interface ListSource {
  readonly origin: string
  /** The lists as they are there now, DER each, unchecked. Fails fast with a SidecarError. */
  read(signal: AbortSignal): Promise<readonly Buffer[]>
  /** CAs that may have signed them, where the place knows; those that chain to no anchor are not heeded. */
  issuers?(signal: AbortSignal): Promise<readonly X509Certificate[]>
}

export interface TrustDeps {
  /** The connection of that name in `vaults`, or that of `vault`. Throws CONFIG_INVALID when the config has no such. */
  readonly vault: (name: string | undefined) => Vault
  readonly clock: Pick<Clock, 'now' | 'random'>
}

export const defineAnchors = definer<TrustDeps, AnchorSource>()
export const defineLists = definer<TrustDeps, ListSource>()
