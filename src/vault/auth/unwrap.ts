import * as z from 'zod'
import { mask, quote, Secret } from '../../core/secret.ts'
import { SidecarError } from '../../errors.ts'
import type { AuthDeps, AuthReply } from './auth.ts'
import { fingerprintOf } from './credential.ts'

/** What a wrapping token is expected to wrap. */
interface Wrapped {
  /** File that holds the wrapping token. */
  readonly file: string
  /** Whether an answer to this path of Vault is expected; in a namespace it may begin with that. */
  readonly isExpected: (creationPath: string) => boolean
  /** The same for people, such as `auth/token/create`. */
  readonly expected: string
  /** The secret in the answer that was wrapped. */
  readonly content: z.ZodType<string>
}

/** https://developer.hashicorp.com/vault/docs/concepts/response-wrapping#response-wrapping-token-validation */
const LookupReply = z.object({ data: z.object({ creation_path: z.string() }) })

/** Turns a wrapping token into the secret in it. That works once, so the secret is kept, in memory only, for as long as the token stays the same. */
export function unwrapper(
  { file, isExpected, expected, content }: Wrapped,
  { ask, onWrapReused }: Pick<AuthDeps, 'ask' | 'onWrapReused'>,
) {
  let last: { readonly wrapping: string; readonly secret: Secret } | undefined

  const alarm = (told: string) => {
    onWrapReused({ file })
    return new SidecarError('WRAP_REUSED', `wrapping token in ${file}: ${told}`)
  }
  /** Vault answers 400 to a wrapping token that was used, has expired or never was. */
  const accept = (reply: AuthReply) => {
    if (reply.status === 400) throw alarm(reply.told)
    if (!reply.ok) throw new SidecarError('AUTH_FAILED', reply.told)
    return reply
  }

  return async (wrapping: Secret, signal: AbortSignal): Promise<Secret> => {
    const identity = fingerprintOf(wrapping.reveal())
    if (last?.wrapping === identity) return last.secret
    // 1. Does it wrap what is expected? Whoever intercepted the true one could put a wrapped answer of his own in its place.
    const body = { token: wrapping }
    const lookup = { operation: 'wrap-lookup', method: 'POST', path: 'sys/wrapping/lookup', body } as const
    const { creation_path: origin } = accept(await ask(lookup, signal)).parse(LookupReply).data
    if (!isExpected(origin)) throw alarm(`it was made by ${quote(mask(origin, [wrapping]), 100)}, not by ${expected}`)
    // 2. Unwrap it.
    const unwrap = { operation: 'unwrap', method: 'POST', path: 'sys/wrapping/unwrap', token: wrapping } as const
    const secret = new Secret(accept(await ask(unwrap, signal)).parse(content))
    last = { wrapping: identity, secret }
    return secret
  }
}
