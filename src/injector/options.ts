import { join } from 'node:path'
import * as z from 'zod'
import { ListenAddress } from '../core/listen.ts'
import { Label, ObjectName } from '../kubernetes/options.ts'

/** Config: the admission webhook of `certferry injector`. */
export const InjectorOptions = z.strictObject({
  listen: ListenAddress.default('0.0.0.0:8443').describe('Where the webhook listens, always with TLS'),
  certificate: z
    .string()
    .describe('Which of certificates the webhook serves; it needs an output of kind pem, whose files are followed'),
  webhookConfiguration: ObjectName.optional().describe(
    'The MutatingWebhookConfiguration whose caBundle is kept current; left alone unless given',
  ),
  image: z
    .string()
    .regex(/^\w[\w.:/@-]*$/, 'must be the reference of an image such as registry.example.com/certferry:0.1.0')
    .describe('Image of the sidecar, where a pod does not name another'),
  nativeSidecars: z
    .union([z.literal('auto'), z.boolean()], { error: 'must be auto, true or false' })
    .default('auto')
    .describe(
      'Whether init containers with restartPolicy: Always are made; auto asks the API server for its version (1.29). Say false while nodes are older than that',
    ),
  vaultAnnotations: z
    .boolean()
    .default(false)
    .describe('Accepts the common vault.hashicorp.com/agent-inject annotations as well'),
  namespace: Label.optional().describe(
    'Namespace of the injector itself, whose pods are never injected; POD_NAMESPACE unless given',
  ),
  defaults: z
    .record(z.string(), z.string())
    .prefault({})
    .describe(
      'Annotations without certferry.io/, such as vault-address: what holds where a pod does not say otherwise',
    ),
})
export type InjectorOptions = z.output<typeof InjectorOptions>

/** PEM files of an output, absolute. */
export interface PemFiles {
  readonly certFile: string
  readonly keyFile: string
  readonly caFile: string
}

const PemOutput = z.object({
  kind: z.literal('pem'),
  directory: z.string(),
  files: z.object({ certificate: z.string(), key: z.string(), ca: z.string() }),
})

/** The files of the first output of kind pem; undefined where there is none. */
export function pemFilesOf(outputs: readonly { readonly kind: string }[]): PemFiles | undefined {
  const [found] = outputs.flatMap((output) => PemOutput.safeParse(output).data ?? [])
  if (!found) return undefined
  const { directory, files } = found
  return {
    certFile: join(directory, files.certificate),
    keyFile: join(directory, files.key),
    caFile: join(directory, files.ca),
  }
}
