import * as z from 'zod'
import type { Clock } from '../../clock.ts'
import { Secret } from '../../core/secret.ts'
import { SidecarError } from '../../errors.ts'
import { definer } from '../../registry.ts'

/** How certferry proves to Vault who it is. */
export interface AuthMethod {
  /**
   * Reads the credential as it is now and asks Vault nothing. Called before every login, so that a credential which was
   * replaced is used. Throws AUTH_SOURCE when it is missing, empty or unreadable.
   */
  prepare(signal: AbortSignal): Promise<Attempt>
}

/** One login with one credential. */
export interface Attempt {
  /** SHA-256 of the credential: one that Vault has just refused is not tried again at once, a new one is. */
  readonly fingerprint: string
  /** Throws AUTH_FAILED when Vault refuses it, AUTH_PERMANENT when it is used up, WRAP_REUSED, or what the request met. */
  login(signal: AbortSignal): Promise<Login>
}

/** A token of Vault and how long it lives. */
export interface Login {
  readonly token: Secret
  /** 0 when it never expires. */
  readonly ttlMs: number
  readonly renewable: boolean
  /** Somebody else obtained it, and may use it still: it is not ours to revoke. */
  readonly isGiven?: boolean
}

/** One request of a login, without the token that the other requests carry. */
export interface AuthRequest {
  /** Name of the request in metrics, such as `login`. */
  readonly operation: string
  readonly method: 'GET' | 'POST'
  /** Below `/v1/`; each segment is percent-encoded. */
  readonly path: string
  /** A Secret in it is sent as its value. */
  readonly body?: Readonly<Record<string, unknown>>
  /** Sent as X-Vault-Token: the token to look up, or the wrapping token. */
  readonly token?: Secret
}

/** What Vault said to it. */
export interface AuthReply {
  /** True for a success; otherwise Vault refused. */
  readonly ok: boolean
  /** Of a refusal: 400, 403, 404 or 405. */
  readonly status: number
  /** Which request, with which status, and Vault's reason, in one line that is safe to print. */
  readonly told: string
  /** Throws BAD_RESPONSE when the answer is not as documented. */
  parse<T>(schema: z.ZodType<T>): T
}

export interface AuthDeps {
  /** Throws on anything but a success or a refusal: network, timeout, 5xx, rate limit. */
  readonly ask: (request: AuthRequest, signal: AbortSignal) => Promise<AuthReply>
  /** The security event: someone else used the wrapping token that `file` holds, or put another one in its place. */
  readonly onWrapReused: (event: { file: string }) => void
  /** From here on requests go over new connections, which present the client certificate as its files hold it then. */
  readonly reconnect: () => Promise<void>
  readonly clientFiles: ClientFiles | undefined
  /** Where the options of this method stand in the config, such as `vault.auth`, for messages. */
  readonly place: string
  readonly clock: Clock
  /** Where tools of a cloud leave word of credentials, such as AWS_ACCESS_KEY_ID. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Something a person should know; the same text is told once. */
  readonly warn: (message: string) => void
}

/** The certificate that connections to Vault present, and its key. */
export interface ClientFiles {
  readonly certFile: string
  readonly keyFile: string
}

export const defineAuth = definer<AuthDeps, AuthMethod>()

/** What every `auth/…/login` answers. Where a second factor is asked for, it says which instead of giving a token. */
const LoginReply = z.object({
  auth: z
    .object({
      client_token: z.string(),
      lease_duration: z.int().min(0),
      renewable: z.boolean(),
      mfa_requirement: z.object({}).nullish(),
    })
    .refine(({ client_token: token, mfa_requirement: factor }) => token !== '' || factor, {
      path: ['client_token'],
      error: 'is empty',
    }),
})

/** The token that Vault gave for a login. Throws AUTH_FAILED when it gave none. */
export function loginFrom(reply: AuthReply): Login {
  if (!reply.ok) throw new SidecarError('AUTH_FAILED', reply.told)
  const { auth } = reply.parse(LoginReply)
  if (auth.client_token === '')
    throw new SidecarError(
      'AUTH_FAILED',
      'Vault asks for a second factor (MFA) after this login, which nobody is here to give; leave it out of the login enforcement',
    )
  return { token: new Secret(auth.client_token), ttlMs: auth.lease_duration * 1000, renewable: auth.renewable }
}
