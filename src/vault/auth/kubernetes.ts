import * as z from 'zod'
import { MountPath, PathSegment } from '../paths.ts'
import { defineAuth } from './auth.ts'
import { AbsolutePath, readCredential } from './credential.ts'
import { jwtLogin } from './jwt-login.ts'

/** POST auth/{mount}/login: https://developer.hashicorp.com/vault/api-docs/auth/kubernetes#login */
export const kubernetes = defineAuth({
  kind: 'kubernetes',
  summary: 'Logs in as the service account of the pod, which Vault has the API server confirm.',
  options: z.strictObject({
    mount: MountPath.prefault('kubernetes').describe('Where the auth method is mounted, without auth/'),
    role: PathSegment.describe('Role of the auth method, which binds service accounts and namespaces'),
    tokenFile: AbsolutePath.default('/var/run/secrets/kubernetes.io/serviceaccount/token').describe(
      'Token of the service account, best a projected one with an audience of its own; read again for each login, as the kubelet replaces it',
    ),
  }),
  create: ({ mount, role, tokenFile }, deps) => ({
    prepare: async () => jwtLogin({ mount, role, jwt: await readCredential(tokenFile), place: tokenFile }, deps),
  }),
})
