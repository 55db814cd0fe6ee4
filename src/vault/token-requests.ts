import * as z from 'zod'
import type { Clock } from '../clock.ts'
import { Secret } from '../core/secret.ts'
import { formatDuration } from '../core/units.ts'
import { SidecarError } from '../errors.ts'
import { errorsOf, isSuccess, parseReply, refusal } from './replies.ts'
import { type createRequests, nameOf } from './requests.ts'

/** How long the end of the process waits for Vault. */
const REVOKE_MS = 2_000

const WrapReply = z.object({ wrap_info: z.object({ token: z.string().min(1) }) })

/** What is asked of Vault about the token in hand, with that token: no new login, whatever Vault says. */
export function createTokenRequests(send: ReturnType<typeof createRequests>, clock: Clock) {
  return {
    /** https://developer.hashicorp.com/vault/api-docs/system/wrapping-wrap: a token that gives this one, once. */
    wrap: async (token: Secret, wrapTtlMs: number, signal: AbortSignal): Promise<Secret> => {
      const request = { operation: 'wrap', method: 'POST', path: ['sys', 'wrapping', 'wrap'] } as const
      const reply = await send({ ...request, body: { token }, token, wrapTtlMs }, signal)
      if (!isSuccess(reply)) throw refusal(reply, nameOf(request), clock.now())
      return new Secret(parseReply(reply, WrapReply, nameOf(request)).wrap_info.token)
    },
    /** Takes no longer than two seconds. https://developer.hashicorp.com/vault/api-docs/auth/token#revoke-a-token-self */
    revoke: async (token: Secret): Promise<void> => {
      const request = { operation: 'revoke-self', method: 'POST', path: ['auth', 'token', 'revoke-self'] } as const
      const signal = AbortSignal.timeout(REVOKE_MS)
      const reply = await send({ ...request, body: {}, token }, signal).catch((error: unknown) => {
        if (error instanceof SidecarError) throw error
        throw new SidecarError('VAULT_TIMEOUT', `${nameOf(request)} took longer than ${formatDuration(REVOKE_MS)}`)
      })
      // One that Vault does not know any more is what was wanted.
      const isGone = reply.status === 403 && /\b(?:invalid|bad) token\b/.test(errorsOf(reply))
      if (!isSuccess(reply) && !isGone) throw refusal(reply, nameOf(request), clock.now())
    },
  }
}
