import * as z from 'zod'
import { SidecarError } from '../../errors.ts'
import { Lookup } from '../sys.ts'
import { type AuthDeps, defineAuth } from './auth.ts'
import { AbsolutePath, credentialFrom, fingerprintOf, SecretText } from './credential.ts'
import { unwrapper } from './unwrap.ts'

export const token = defineAuth({
  kind: 'token',
  summary: 'A token that somebody else obtained, given here or kept in a file, such as the sink of a Vault Agent.',
  options: z
    .strictObject({
      token: SecretText.optional().describe("The token, such as '${VAULT_TOKEN}'; either this or tokenFile"),
      tokenFile: AbsolutePath.optional().describe('File that holds it; read again for each login'),
      wrapped: z
        .boolean()
        .default(false)
        .describe(
          'tokenFile holds a response-wrapping token of auth/token/create instead, which is unwrapped once; a used one is a security event',
        ),
    })
    .refine(({ token, tokenFile }) => (token === undefined) !== (tokenFile === undefined), {
      error: 'needs either token or tokenFile',
    })
    .refine(({ wrapped, tokenFile }) => !wrapped || tokenFile !== undefined, {
      path: ['wrapped'],
      error: 'needs tokenFile',
    }),
  create: ({ token, tokenFile, wrapped }, deps) => {
    const unwrap = wrapped && tokenFile !== undefined ? tokenIn(tokenFile, deps) : undefined
    return {
      prepare: async () => {
        const delivered = await credentialFrom(token, tokenFile)
        if (!delivered) throw new SidecarError('AUTH_SOURCE', 'neither token nor tokenFile is given')
        return {
          fingerprint: fingerprintOf(delivered.reveal()),
          login: async (signal) => {
            const secret = unwrap ? await unwrap(delivered, signal) : delivered
            const path = 'auth/token/lookup-self'
            const reply = await deps.ask({ operation: 'lookup-self', method: 'GET', path, token: secret }, signal)
            if (!reply.ok && unwrap)
              throw new SidecarError(
                'AUTH_PERMANENT',
                `${reply.told}; it came out of ${tokenFile}, which gives it only once`,
              )
            if (!reply.ok) throw new SidecarError('AUTH_FAILED', reply.told)
            const { ttlMs, renewable } = reply.parse(Lookup)
            return { token: secret, ttlMs, renewable, isGiven: !wrapped }
          },
        }
      },
    }
  },
})

const tokenIn = (file: string, deps: AuthDeps) =>
  unwrapper(
    {
      file,
      isExpected: (path) => /(?:^|\/)auth\/token\/create(?:-orphan|\/[^/]+)?$/.test(path),
      expected: 'auth/token/create',
      content: TokenReply,
    },
    deps,
  )

const TokenReply = z
  .object({ auth: z.object({ client_token: z.string().min(1) }) })
  .transform(({ auth }) => auth.client_token)
