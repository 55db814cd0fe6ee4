import * as z from 'zod'
import { mask, quote, Secret } from '../../core/secret.ts'
import { SidecarError } from '../../errors.ts'
import { MountPath } from '../paths.ts'
import { type AuthDeps, type AuthReply, defineAuth, loginFrom } from './auth.ts'
import { AbsolutePath, credentialFrom, fingerprintOf, SecretText } from './credential.ts'

const Options = z
  .strictObject({
    mount: MountPath.prefault('approle').describe('Where the auth method is mounted, without auth/'),
    roleId: SecretText.optional().describe('The role_id; either this or roleIdFile'),
    roleIdFile: AbsolutePath.optional().describe('File that holds the role_id; read again for each login'),
    secretId: SecretText.optional().describe('The secret_id; a role with bind_secret_id=false needs none'),
    secretIdFile: AbsolutePath.optional().describe('File that holds the secret_id; read again for each login'),
    secretIdWrapped: z
      .boolean()
      .default(false)
      .describe(
        'secretIdFile holds a response-wrapping token instead, which is unwrapped once; a used one is a security event',
      ),
  })
  .check((context) => {
    const { roleId, roleIdFile, secretId, secretIdFile, secretIdWrapped } = context.value
    const problem = (path: string, message: string) =>
      context.issues.push({ code: 'custom', input: undefined, path: [path], message })
    if ((roleId === undefined) === (roleIdFile === undefined)) problem('roleId', 'needs either roleId or roleIdFile')
    if (secretId !== undefined && secretIdFile !== undefined)
      problem('secretId', 'cannot be given together with secretIdFile')
    if (secretIdWrapped && secretIdFile === undefined) problem('secretIdWrapped', 'needs secretIdFile')
  })

/** POST auth/{mount}/login: https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle */
export const approle = defineAuth({
  kind: 'approle',
  summary: 'Logs in with a role_id and a secret_id.',
  options: Options,
  create: (options, deps) => {
    const { mount, secretIdFile, secretIdWrapped } = options
    const unwrap = secretIdWrapped && secretIdFile !== undefined ? unwrapper(mount, secretIdFile, deps) : undefined
    /** The last credential that Vault accepted. */
    let accepted: string | undefined
    return {
      prepare: async () => {
        const roleId = await credentialFrom(options.roleId, options.roleIdFile)
        const delivered = await credentialFrom(options.secretId, secretIdFile)
        const fingerprint = fingerprintOf(roleId?.reveal(), delivered?.reveal())
        return {
          fingerprint,
          login: async (signal) => {
            const secretId = delivered && unwrap ? await unwrap(delivered, signal) : delivered
            const body = { role_id: roleId, secret_id: secretId }
            const path = `auth/${mount}/login`
            const reply = await deps.ask({ operation: 'login', method: 'POST', path, body }, signal)
            // Vault words a secret_id that is used up or expired like one that is wrong; but this one was right before. (403 is a lockout.)
            if (reply.status === 400 && accepted === fingerprint)
              throw new SidecarError('AUTH_PERMANENT', `${reply.told}; this secret_id was accepted before`)
            const login = loginFrom(reply)
            accepted = fingerprint
            return login
          },
        }
      },
    }
  },
})

/** https://developer.hashicorp.com/vault/docs/concepts/response-wrapping#response-wrapping-token-validation */
const LookupReply = z.object({ data: z.object({ creation_path: z.string() }) })
const UnwrapReply = z.object({ data: z.object({ secret_id: z.string().min(1) }) })

/** Turns a wrapping token into the secret_id in it. That works once, so the secret_id is kept, in memory only, for as long as the token stays the same. */
function unwrapper(mount: string, file: string, { ask, onWrapReused }: AuthDeps) {
  let last: { readonly wrapping: string; readonly secretId: Secret } | undefined

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
    if (last?.wrapping === identity) return last.secretId
    // 1. Does it wrap a secret_id of this mount? Whoever intercepted the true one could put a wrapped answer of his own in its place.
    const body = { token: wrapping }
    const lookup = { operation: 'wrap-lookup', method: 'POST', path: 'sys/wrapping/lookup', body } as const
    const { creation_path: origin } = accept(await ask(lookup, signal)).parse(LookupReply).data
    if (!isSecretIdOf(mount, origin))
      throw alarm(`it was made by ${quote(mask(origin, [wrapping]), 100)}, not by auth/${mount}/role/…/secret-id`)
    // 2. Unwrap it.
    const unwrap = { operation: 'unwrap', method: 'POST', path: 'sys/wrapping/unwrap', token: wrapping } as const
    const secretId = new Secret(accept(await ask(unwrap, signal)).parse(UnwrapReply).data.secret_id)
    last = { wrapping: identity, secretId }
    return secretId
  }
}

/** In a namespace the path may begin with it. */
const isSecretIdOf = (mount: string, path: string) =>
  `/${path}`.includes(`/auth/${mount}/role/`) && /\/role\/[^/]+\/(?:custom-)?secret-id$/.test(path)
