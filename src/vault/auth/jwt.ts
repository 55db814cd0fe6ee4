import * as z from 'zod'
import { SidecarError } from '../../errors.ts'
import { MountPath, PathSegment } from '../paths.ts'
import { defineAuth } from './auth.ts'
import { AbsolutePath, credentialFrom, SecretText } from './credential.ts'
import { jwtLogin } from './jwt-login.ts'

/** POST auth/{mount}/login: https://developer.hashicorp.com/vault/api-docs/auth/jwt#jwt-login */
export const jwt = defineAuth({
  kind: 'jwt',
  summary: 'Logs in with a JWT that somebody else signed: the API server of a cluster, a CI system, SPIFFE.',
  options: z
    .strictObject({
      mount: MountPath.prefault('jwt').describe('Where the auth method is mounted, without auth/'),
      role: PathSegment.optional().describe('Role of the auth method; by default the default_role of the mount'),
      token: SecretText.optional().describe("The JWT, such as '${ID_TOKEN}'; either this or tokenFile"),
      tokenFile: AbsolutePath.optional().describe('File that holds it; read again for each login'),
    })
    .refine(({ token, tokenFile }) => (token === undefined) !== (tokenFile === undefined), {
      error: 'needs either token or tokenFile',
    }),
  create: ({ mount, role, token, tokenFile }, deps) => ({
    prepare: async () => {
      const jwt = await credentialFrom(token, tokenFile)
      if (!jwt) throw new SidecarError('AUTH_SOURCE', 'neither token nor tokenFile is given')
      return jwtLogin({ mount, role, jwt, place: tokenFile ?? `${deps.place}.token` }, deps)
    },
  }),
})
