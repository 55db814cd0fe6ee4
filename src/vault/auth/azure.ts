import * as z from 'zod'
import { Secret } from '../../core/secret.ts'
import { MountPath, PathSegment } from '../paths.ts'
import { defineAuth } from './auth.ts'
import { MetadataAddress } from './cloud-address.ts'
import { jwtLogin } from './jwt-login.ts'

/** POST auth/{mount}/login: https://developer.hashicorp.com/vault/api-docs/auth/azure#login */
export const azure = defineAuth({
  kind: 'azure',
  summary: 'Logs in as a managed identity of Azure, by an access token and what the machine is.',
  options: z.strictObject({
    mount: MountPath.prefault('azure').describe('Where the auth method is mounted, without auth/'),
    role: PathSegment.describe('Role of the auth method'),
    resource: z
      .string()
      .min(1)
      .default('https://management.azure.com/')
      .describe('Audience of the token, as the auth method has it in resource'),
    clientId: z.guid().optional().describe('Which identity, where the machine has several that are user-assigned'),
    metadataAddress: MetadataAddress.default('http://169.254.169.254').describe('Metadata service of the machine'),
  }),
  create: ({ mount, role, resource, clientId, metadataAddress }, deps) => ({
    prepare: async (signal) => {
      const { askCloudFor } = await import('./cloud.ts')
      const ask = <T>(schema: z.ZodType<T>, path: string, query: Record<string, string>) => {
        const url = `${metadataAddress}/metadata/${path}?${new URLSearchParams(query)}`
        return askCloudFor(schema, { url, headers: { metadata: 'true' } }, signal)
      }
      const identity = { 'api-version': '2018-02-01', resource, ...(clientId !== undefined && { client_id: clientId }) }
      const { access_token: token } = await ask(TokenReply, 'identity/oauth2/token', identity)
      const { compute } = await ask(InstanceReply, 'instance', { 'api-version': '2021-02-01' })
      return jwtLogin({ mount, role, jwt: new Secret(token), place: metadataAddress, facts: factsOf(compute) }, deps)
    },
  }),
})

/** https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token */
const TokenReply = z.object({ access_token: z.string().min(1) })

/** https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service */
const InstanceReply = z.object({
  compute: z.object({
    subscriptionId: z.string(),
    resourceGroupName: z.string(),
    name: z.string(),
    vmScaleSetName: z.string().default(''),
  }),
})

/** A machine of a scale set is told by the set, any other by its name. */
const factsOf = ({
  subscriptionId,
  resourceGroupName,
  name,
  vmScaleSetName,
}: z.output<typeof InstanceReply>['compute']) => ({
  subscription_id: subscriptionId,
  resource_group_name: resourceGroupName,
  ...(vmScaleSetName === '' ? { vm_name: name } : { vmss_name: vmScaleSetName }),
})
