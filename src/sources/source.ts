import type { Bundle, Expectation } from '../core/bundle.ts'
import type { Finding } from '../core/finding.ts'
import type { KeyAlgorithm } from '../core/key.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import { definer } from '../registry.ts'
import type { Vault } from '../vault/client.ts'

/** Where a bundle comes from. */
export interface Source {
  /** Identity of the issuer, such as `vault-pki https://vault:8200 pki`. A bundle on disk of another origin is due. */
  readonly origin: string
  /** True when each fetch makes a new certificate, and so counts against the issue budget. */
  readonly issues: boolean
  /** Lifetime asked for in ms; undefined where the issuer decides. */
  readonly ttlMs: number | undefined
  /** Names that a bundle must carry; undefined where the source decides. */
  readonly names: Expectation['names']
  /** Key algorithm that a bundle must have; undefined where the source decides. */
  readonly algorithm: Expectation['algorithm']
  /**
   * One bundle, fresh. Fails fast with a SidecarError: the loop retries, a source does not. Must stop when `signal` aborts.
   * Each call makes a new private key.
   */
  fetch(signal: AbortSignal): Promise<Bundle>
  /** What would keep `fetch` from working, found out without issuing anything. */
  examine(signal: AbortSignal): Promise<readonly Finding[]>
}

export interface SourceDeps {
  /** Throws CONFIG_INVALID when the config has no `vault`. */
  readonly vault: () => Vault
  /** Throws CONFIG_INVALID outside a cluster. */
  readonly kubernetes: () => Kubernetes
  readonly key: { readonly algorithm: KeyAlgorithm }
  readonly now: () => number
}

export const defineSource = definer<SourceDeps, Source>()
