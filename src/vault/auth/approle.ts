import * as z from 'zod'
import { Secret } from '../../core/secret.ts'
import { SidecarError } from '../../errors.ts'
import { MountPath } from '../paths.ts'
import { type AuthDeps, defineAuth, loginFrom } from './auth.ts'
import { AbsolutePath, fingerprintOf, readCredential, SecretText } from './credential.ts'

const Options = z
  .strictObject({
    mount: MountPath.default('approle').describe('Where the auth method is mounted, without auth/'),
    roleId: SecretText.optional().describe('The role_id'),
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
type Options = z.output<typeof Options>

/** POST auth/{mount}/login: https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle */
export const approle = defineAuth({
  kind: 'approle',
  summary: 'Logs in with a role_id and a secret_id.',
  options: Options,
  create: (options, deps) => {
    const unwrap = unwrapper(options, deps)
    /** The last credential that Vault accepted. */
    let accepted: string | undefined
    return {
      prepare: async () => {
        const roleId = await given(options.roleId, options.roleIdFile)
        const delivered = await given(options.secretId, options.secretIdFile)
        const fingerprint = fingerprintOf(roleId?.reveal(), delivered?.reveal())
        return {
          fingerprint,
          login: async (signal) => {
            const secretId = delivered && options.secretIdWrapped ? await unwrap(delivered, signal) : delivered
            const body = { role_id: roleId?.reveal(), secret_id: secretId?.reveal() }
            const path = `auth/${options.mount}/login`
            const reply = await deps.ask({ operation: 'login', method: 'POST', path, body }, signal)
            // Vault words a secret_id that is used up or expired like one that is wrong; but this one was right before.
            if (!reply.ok && accepted === fingerprint)
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

const given = async (value: Secret | undefined, file: string | undefined) =>
  file === undefined ? value : readCredential(file)

/** https://developer.hashicorp.com/vault/docs/concepts/response-wrapping#response-wrapping-token-validation */
const LookupReply = z.object({ data: z.object({ creation_path: z.string() }) })
const UnwrapReply = z.object({ data: z.object({ secret_id: z.string().min(1) }) })

/** Turns a wrapping token into the secret_id in it. That works once, so the secret_id is kept, in memory only, for as long as the token stays the same. */
function unwrapper({ mount, secretIdFile = '' }: Options, { ask, onWrapReused }: AuthDeps) {
  let last: { readonly wrapping: string; readonly secretId: Secret } | undefined
  const alarm = (told: string) => {
    onWrapReused({ file: secretIdFile })
    return new SidecarError('WRAP_REUSED', `wrapping token in ${secretIdFile}: ${told}`)
  }

  return async (wrapping: Secret, signal: AbortSignal): Promise<Secret> => {
    const identity = fingerprintOf(wrapping.reveal())
    if (last?.wrapping === identity) return last.secretId
    // 1. Does it wrap a secret_id of this mount? Whoever intercepted the true one could put a wrapped answer of his own in its place.
    const token = wrapping.reveal()
    const lookup = await ask(
      { operation: 'wrap-lookup', method: 'POST', path: 'sys/wrapping/lookup', body: { token } },
      signal,
    )
    if (!lookup.ok) throw alarm(lookup.told)
    const { creation_path: origin } = lookup.parse(LookupReply).data
    if (!/\/role\/[^/]+\/(?:custom-)?secret-id$/.test(origin) || !`/${origin}`.includes(`/auth/${mount}/role/`))
      throw alarm(`it was made by ${JSON.stringify(origin)}, not by auth/${mount}/role/…/secret-id`)
    // 2. Unwrap it.
    const reply = await ask(
      { operation: 'unwrap', method: 'POST', path: 'sys/wrapping/unwrap', token: wrapping },
      signal,
    )
    if (!reply.ok) throw alarm(reply.told)
    const secretId = new Secret(reply.parse(UnwrapReply).data.secret_id)
    last = { wrapping: identity, secretId }
    return secretId
  }
}
