import * as z from 'zod'
import { Secret } from '../../core/secret.ts'
import { MountPath, PathSegment } from '../paths.ts'
import { defineAuth } from './auth.ts'
import { MetadataAddress } from './cloud-address.ts'
import { jwtLogin } from './jwt-login.ts'

/** POST auth/{mount}/login: https://developer.hashicorp.com/vault/api-docs/auth/gcp#login */
export const gcp = defineAuth({
  kind: 'gcp',
  summary:
    'Logs in as a service account of a machine or pod in Google Cloud, by an identity token of its metadata service.',
  options: z.strictObject({
    mount: MountPath.prefault('gcp').describe('Where the auth method is mounted, without auth/'),
    role: PathSegment.describe('Role of the auth method: of type gce, or of type iam with allow_gce_inference'),
    serviceAccount: z
      .string()
      .regex(/^[\w.@-]+$/, 'must be default, or the e-mail address of a service account')
      .default('default')
      .describe('Which of the service accounts of the machine'),
    metadataAddress: MetadataAddress.default('http://metadata.google.internal').describe('Metadata service'),
  }),
  create: ({ mount, role, serviceAccount, metadataAddress }, deps) => ({
    prepare: async (signal) => {
      const { askCloud } = await import('./cloud.ts')
      const query = new URLSearchParams({ audience: `https://vault/${role}`, format: 'full' })
      const path = `computeMetadata/v1/instance/service-accounts/${serviceAccount}/identity`
      const url = `${metadataAddress}/${path}?${query}`
      const token = await askCloud({ url, headers: { 'metadata-flavor': 'Google' } }, signal)
      return jwtLogin({ mount, role, jwt: new Secret(token.trim()), place: metadataAddress }, deps)
    },
  }),
})
