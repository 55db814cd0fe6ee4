import * as z from 'zod'
import { MountPath, PathSegment } from '../paths.ts'
import { defineAuth } from './auth.ts'
import { ApiAddress, MetadataAddress } from './cloud-address.ts'

/** POST auth/{mount}/login: https://developer.hashicorp.com/vault/api-docs/auth/aws#login */
export const aws = defineAuth({
  kind: 'aws',
  summary:
    'Logs in as an IAM principal of AWS, by a signed request to STS that Vault sends (type iam). Credentials are looked for as the SDKs of AWS do: AWS_ACCESS_KEY_ID and the like, the token of a service account (IRSA), the shared file, the container, the instance (IMDSv2).',
  options: z.strictObject({
    mount: MountPath.prefault('aws').describe('Where the auth method is mounted, without auth/'),
    role: PathSegment.optional().describe('Role of the auth method; by default the name of the IAM principal'),
    serverId: z
      .string()
      .regex(/^[\x21-\x7e]+$/, 'must be what a header can carry')
      .optional()
      .describe('Sent as X-Vault-AWS-IAM-Server-ID, where the auth method has an iam_server_id_header_value'),
    region: z
      .string()
      .regex(/^[a-z]{2,}(?:-[a-z]+)+-\d+$/, 'must be a region such as eu-north-1')
      .optional()
      .describe(
        'Region of the STS that Vault asks, where the auth method has an sts_region; by default the global one',
      ),
    stsAddress: ApiAddress.optional().describe('The STS that Vault asks, where the auth method has an sts_endpoint'),
    metadataAddress: MetadataAddress.default('http://169.254.169.254').describe('Metadata service of the instance'),
  }),
  create: (options, deps) => ({
    prepare: async (signal) => (await import('./aws-login.ts')).awsLogin(options, deps, signal),
  }),
})
