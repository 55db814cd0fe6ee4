import * as z from 'zod'
import type { Secret } from '../../core/secret.ts'
import { SidecarError } from '../../errors.ts'
import { Lookup } from '../sys.ts'
import { type AuthReply, defineAuth, type Login } from './auth.ts'
import { AbsolutePath, credentialFrom, fingerprintOf, SecretText } from './credential.ts'

export const token = defineAuth({
  kind: 'token',
  summary: 'A token that somebody else obtained, given here or kept in a file, such as the sink of a Vault Agent.',
  options: z
    .strictObject({
      token: SecretText.optional().describe("The token, such as '${VAULT_TOKEN}'; either this or tokenFile"),
      tokenFile: AbsolutePath.optional().describe('File that holds it; read again for each login'),
    })
    .refine(({ token, tokenFile }) => (token === undefined) !== (tokenFile === undefined), {
      error: 'needs either token or tokenFile',
    }),
  create: ({ token, tokenFile }, { ask }) => ({
    prepare: async () => {
      const secret = await credentialFrom(token, tokenFile)
      if (!secret) throw new SidecarError('AUTH_SOURCE', 'neither token nor tokenFile is given')
      return {
        fingerprint: fingerprintOf(secret.reveal()),
        login: async (signal) => {
          const path = 'auth/token/lookup-self'
          const reply = await ask({ operation: 'lookup-self', method: 'GET', path, token: secret }, signal)
          return tokenFrom(secret, reply)
        },
      }
    },
  }),
})

function tokenFrom(secret: Secret, reply: AuthReply): Login {
  if (!reply.ok) throw new SidecarError('AUTH_FAILED', reply.told)
  const { ttlMs, renewable } = reply.parse(Lookup)
  return { token: secret, ttlMs, renewable }
}
