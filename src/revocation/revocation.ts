import type { Content, Instant } from '../core/content.ts'
import type { Outdated } from '../core/outdated.ts'

/** Who was asked whether a certificate is revoked. */
export const CHECKS = ['ocsp', 'crl', 'vault'] as const
export type CheckKind = (typeof CHECKS)[number]
/** The order of `auto`. */
export const AUTO: readonly CheckKind[] = ['vault', 'ocsp', 'crl']

/** What was found out. */
export interface Verdict {
  readonly status: 'good' | 'revoked' | 'unknown'
  readonly by: CheckKind
  /** When it was revoked, where that was told. */
  readonly at?: Instant | undefined
  /** In the words of RFC 5280 §5.3.1, where it was told. */
  readonly reason?: string | undefined
}

/** What the flow does about the end of a certificate before its time. */
export interface Revocation<C extends Content> {
  readonly everyMs: number
  readonly onRevoked: 'rotate' | 'warn'
  /** Present where it is looked after. Throws what a request meets where nobody could say. */
  check?(content: C, signal: AbortSignal): Promise<Verdict>
  /** Present where what was replaced is to be revoked; undefined where it must not be, since `successor` has the same key, or cannot be. */
  outdated?(previous: C, successor: C): Outdated | undefined
  /** Present where what is in service is to be revoked at the end of the process; undefined where its issuer does not do that. */
  atExit?(serving: C): Outdated | undefined
  /** Revokes; what is revoked already, or unknown to its issuer by now, is no error. */
  revoke(one: Outdated, why: 'superseded' | 'cessationOfOperation', signal: AbortSignal): Promise<void>
  /** When the OCSP response beside it ends; undefined where there is none, or it does not say. */
  stapleEnd?(content: C): Instant | undefined
}
