import * as z from 'zod'
import { ERRORS, type ErrorCode, type SidecarError } from '../errors.ts'
import type { SidecarStatus } from './status.ts'

/** Body of POST /rotate on the control socket. */
export const RotateRequest = z.strictObject({
  /** Names of certificates, or `all`. */
  certificates: z.union([z.literal('all'), z.array(z.string().max(100)).min(1).max(500)]),
  /** For the log and the audit log. */
  reason: z.string().max(500).default(''),
  /** Answer when every rotation has ended, instead of at once. */
  wait: z.boolean().default(false),
})
export type RotateRequest = z.output<typeof RotateRequest>

const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code)

/** An error as it crosses the socket. */
export const WireError = z.object({
  code: z.string().transform((code): ErrorCode => (isErrorCode(code) ? code : 'BUG')),
  message: z.string(),
  hint: z.string(),
})
export type WireError = z.output<typeof WireError>

/** One certificate after POST /rotate: with `wait` verified, or failed and why; without, accepted. */
export const RotateResult = z.object({
  certificate: z.string(),
  ok: z.boolean(),
  /** Now on disk. */
  serial: z.string().nullable(),
  /** Whether something else is on disk than when it was asked; false where the source has nothing newer. Null without `wait`. */
  isNew: z.boolean().nullable().default(null),
  error: WireError.nullable(),
})
export type RotateResult = z.output<typeof RotateResult>
export const RotateReply = z.object({ results: z.array(RotateResult).readonly() })
export type RotateReply = z.output<typeof RotateReply>

/** What POST /reload-config changed. */
export const ReloadReply = z.object({
  added: z.array(z.string()).readonly(),
  changed: z.array(z.string()).readonly(),
  removed: z.array(z.string()).readonly(),
})
export type ReloadReply = z.output<typeof ReloadReply>

/** What the admin server asks of the sidecar. */
export interface Control {
  /** Cheap, and up to this moment: phases follow from the time. */
  snapshot(): SidecarStatus
  /** Undefined while the loop ticks; otherwise what is wrong, in words. Must not depend on Vault. */
  stuck(): string | undefined
  /** Why this process should not be asked now, besides its certificates; undefined where nothing speaks against it. */
  unready(): string | undefined
  /** Throws USAGE for an unknown name. `signal` ends the waiting, when the caller has gone or the server stops; not the rotation. */
  rotate(request: RotateRequest, signal: AbortSignal): Promise<RotateReply>
  /** Throws CONFIG_INVALID and the like; the old config stays then. */
  reloadConfig(signal: AbortSignal): Promise<ReloadReply>
}

export const wireError = ({ code, message, kind }: SidecarError): WireError => ({ code, message, hint: kind.hint })
