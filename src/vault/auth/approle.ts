import * as z from 'zod'
import { SidecarError } from '../../errors.ts'
import { MountPath } from '../paths.ts'
import { type AuthDeps, defineAuth, loginFrom } from './auth.ts'
import { AbsolutePath, credentialFrom, fingerprintOf, SecretText } from './credential.ts'
import { unwrapper } from './unwrap.ts'

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
    const unwrap = secretIdWrapped && secretIdFile !== undefined ? secretIdIn(mount, secretIdFile, deps) : undefined
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
            if (reply.status === 400 && accepted === fingerprint && !OTHER_ADDRESS.test(reply.told))
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

/** The secret_id is right, but we come from another address than it, or its role, is bound to. */
const OTHER_ADDRESS = /: source address .* unauthorized /

const secretIdIn = (mount: string, file: string, deps: AuthDeps) =>
  unwrapper(
    {
      file,
      isExpected: (path) => isSecretIdOf(mount, path),
      expected: `auth/${mount}/role/…/secret-id`,
      content: SecretIdReply,
    },
    deps,
  )

const SecretIdReply = z
  .object({ data: z.object({ secret_id: z.string().min(1) }) })
  .transform(({ data }) => data.secret_id)

const isSecretIdOf = (mount: string, path: string) =>
  `/${path}`.includes(`/auth/${mount}/role/`) && /\/role\/[^/]+\/(?:custom-)?secret-id$/.test(path)
