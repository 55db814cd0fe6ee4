import { dirname, join } from 'node:path'
import * as z from 'zod'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'

/** Where the kubelet puts what a pod needs to talk to its API server. */
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

const AbsolutePath = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path')

/** A DNS label (RFC 1123): names of namespaces. */
export const Label = z
  .string()
  .regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, 'must be 1 to 63 of a-z, 0-9 and "-", as Kubernetes names are')

/** A DNS subdomain: names of most objects. */
export const ObjectName = z
  .string()
  .max(253)
  .regex(/^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/, 'must be a name of a-z, 0-9, "-" and ".", as Kubernetes names are')

const ApiServer = z
  .url({ protocol: /^https$/, error: 'must be an https address such as https://10.96.0.1:443', abort: true })
  .refine((url) => new URL(url).username === '' && new URL(url).password === '', {
    error: 'must not hold a user or password; the token file is what certferry shows',
  })
  .refine((url) => new URL(url).pathname === '/' && new URL(url).search === '' && new URL(url).hash === '', {
    error: 'must be the address alone, without a path, a query or a fragment',
  })
  .transform((url) => new URL(url).origin)

/** Config: the API server of the cluster that this process runs in. A pod needs none of it. */
export const KubernetesOptions = z.strictObject({
  apiServer: ApiServer.optional().describe('https address; KUBERNETES_SERVICE_HOST and _PORT unless given'),
  caFile: AbsolutePath.default(`${SERVICE_ACCOUNT}/ca.crt`).describe(
    'PEM file of the CAs that may sign for the API server; read again for each connection',
  ),
  tokenFile: AbsolutePath.default(`${SERVICE_ACCOUNT}/token`).describe(
    'Token of the service account; read again for each request, as the kubelet replaces it',
  ),
  namespace: Label.optional().describe('Namespace of this pod; POD_NAMESPACE, or the file namespace beside the token'),
  pod: ObjectName.optional().describe('Name of this pod; POD_NAME, or HOSTNAME'),
  events: z
    .boolean()
    .default(false)
    .describe('Tells of rotations and failures by Kubernetes Events on this pod, which kubectl describe pod shows'),
})
export type KubernetesOptions = z.output<typeof KubernetesOptions>

/** What the options and the environment come to. */
export interface Cluster {
  readonly address: string
  readonly caFile: string
  readonly tokenFile: string
  readonly namespace: string
  readonly pod: string
}

/** Throws CONFIG_INVALID, naming what is neither given nor found, as outside a cluster. */
export function findCluster(options: KubernetesOptions, env: Readonly<Record<string, string | undefined>>): Cluster {
  const { caFile, tokenFile } = options
  return {
    address: options.apiServer ?? serviceAddress(env),
    caFile,
    tokenFile,
    namespace: checked('namespace', Label, options.namespace ?? (env.POD_NAMESPACE || readNamespace(tokenFile))),
    pod: checked('pod', ObjectName, options.pod ?? (env.POD_NAME || env.HOSTNAME || missing('pod', 'POD_NAME'))),
  }
}

function serviceAddress({ KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port }: Env): string {
  if (!host) return missing('apiServer', 'KUBERNETES_SERVICE_HOST')
  const address = `https://${host.includes(':') ? `[${host}]` : host}:${port || 443}`
  return checked('apiServer', ApiServer, address)
}

type Env = Readonly<Record<string, string | undefined>>

function readNamespace(tokenFile: string): string {
  const file = join(dirname(tokenFile), 'namespace')
  try {
    return readPlainFile(file).toString('utf8').trim()
  } catch (cause) {
    return missing('namespace', `POD_NAMESPACE, and ${file} cannot be read (${systemCode(cause)});`)
  }
}

const missing = (option: string, variable: string): never => {
  throw new SidecarError(
    'CONFIG_INVALID',
    `kubernetes.${option} is not given, nor ${variable}: this needs a Kubernetes API server, and a pod to run in`,
  )
}

function checked(option: string, schema: z.ZodType<string>, value: string): string {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  throw new SidecarError('CONFIG_INVALID', `kubernetes.${option}: "${value}" ${result.error.issues[0]?.message}`)
}
