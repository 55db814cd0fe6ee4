import type { X509Certificate } from 'node:crypto'
import type { Clock } from '../clock.ts'
import type { Bundle, Expectation } from '../core/bundle.ts'
import type { Content, Instant } from '../core/content.ts'
import type { Finding } from '../core/finding.ts'
import type { KeyAlgorithm } from '../core/key.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import { definer } from '../registry.ts'
import type { Vault } from '../vault/client.ts'

/** Where a bundle comes from, or the values of a secret. */
export interface Origin<C extends Content> {
  /** Identity of the issuer, such as `vault-pki https://vault:8200 pki`. A bundle on disk of another origin is due. */
  readonly origin: string
  /** Other origins whose content is as good. */
  readonly alternatives?: readonly string[]
  /** What is said of content of another origin, where an origin may hold what is confidential; else both are named. */
  readonly otherwise?: string
  /** True when each fetch makes a new certificate, and so counts against the issue budget. */
  readonly issues: boolean
  /** Present where not every fetch does: whether this one was made, and not read. */
  isIssued?(content: C): boolean
  /** Lifetime asked for in ms; undefined where the issuer decides. */
  readonly ttlMs: number | undefined
  /**
   * One bundle, fresh. Fails fast with a SidecarError: the loop retries, a source does not. Must stop when `signal` aborts.
   * Where the source issues, each call makes a new private key. `current` is what it is to replace: for an issuer that is told so, and for
   * whoever does otherwise the less of its life is left.
   */
  fetch(signal: AbortSignal, current?: C): Promise<C>
  /** Present where the source has something to say between rotations: somebody else decides when there is something new. */
  readonly polling?: Polling<C>
  /** What would keep `fetch` from working, found out without issuing anything. */
  examine(signal: AbortSignal): Promise<readonly Finding[]>
}

/** How a source is looked at between rotations. */
export interface Polling<C extends Content> {
  /** How long after a look at the source, or a delivery of `serving`, the next look is due, ms. */
  afterMs(serving: C): number
  /**
   * Looks whether `serving` is still what the source has. Resolves with it, or with the same prolonged (equal fingerprint), where there is
   * nothing new; with the new one where there is; with undefined where a new one must be asked for by `fetch`. Throws as `fetch` does.
   */
  look(serving: C, signal: AbortSignal): Promise<C | undefined>
  /**
   * Present where it is renewed by time as well: when the source would have `serving` renewed, undefined where it does not say and the config
   * decides. The answer is the same until a look changes it.
   */
  renewAt?(serving: C): Instant | undefined
  /** After a look that failed: `serving` (equal fingerprint) with what that look has prolonged of it. */
  prolonged?(serving: C): C
  /**
   * Present where the source can learn by itself that there may be something new: calls `ring` then, and the next look, or `fetch`, is made at
   * once, even where a failure was to be waited for. So it must not call more often than twice a second, and not for nothing without end.
   * Begins when it is called and ends when what it returns is disposed of. Never throws; what it misses, the next look finds.
   */
  watch?(ring: () => void): AsyncDisposable
  /** `content` is in service, and proven where there is a verifier, since then: what came before it is not needed any more. What it is known as from now on. */
  delivered?(content: C, since: Instant): C
}

/** What came of a trial. */
export interface Rehearsal {
  /** For people, of whom it was had. */
  readonly what: string
  /** Never to be delivered. */
  readonly bundle: Bundle
  /** By a CA for trials, whose root nobody trusts. */
  readonly isStaging: boolean
}

/** Where a certificate comes from. */
export interface Source extends Origin<Bundle> {
  /** Names that a bundle must carry; undefined where the source decides. */
  readonly names: Expectation['names']
  /** Key algorithm that a bundle must have; undefined where the source decides. */
  readonly algorithm: Expectation['algorithm']
  /** True where the issuer puts what it likes into the subject common name. */
  readonly isCommonNameFree?: true
  /** All that `fetch` does, at a place where nothing counts, for a certificate that is thrown away. Throws as `fetch` does, and CONFIG_INVALID where no such place is known. */
  rehearse?(signal: AbortSignal): Promise<readonly Rehearsal[]>
  /** Present where the issuer itself says when it revoked one of its certificates: 0 where it did not, undefined where it knows no such. */
  revokedAt?(certificate: X509Certificate, signal: AbortSignal): Promise<Instant | undefined>
  /** Present where the issuer revokes one of its certificates when asked. One that is revoked already, or unknown by now, is no error. */
  revoke?(certificate: X509Certificate, why: 'superseded' | 'cessationOfOperation', signal: AbortSignal): Promise<void>
}

export interface SourceDeps {
  /** The connection of that name in `vaults`, or that of `vault`. Throws CONFIG_INVALID when the config has no such. */
  readonly vault: (name: string | undefined) => Vault
  /** Throws CONFIG_INVALID outside a cluster. */
  readonly kubernetes: () => Kubernetes
  readonly key: { readonly algorithm: KeyAlgorithm }
  readonly clock: Clock
  /** Variables of this process; commands inherit only a few of them. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Tells people of what was mended or left out, in words: it is in the log then, and nothing else follows. */
  readonly warn: (message: string) => void
}

export const defineSource = definer<SourceDeps, Source>()
