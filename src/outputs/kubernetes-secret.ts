import * as z from 'zod'
import { keyPem } from '../core/bundle.ts'
import { Label, ObjectName } from '../kubernetes/options.ts'
import { defineOutput } from './output.ts'
import { caPem, servedPem } from './pem.ts'

const LabelValue = z
  .string()
  .regex(/^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/, 'must be a label value of at most 63 characters')
const Key = z
  .string()
  .regex(
    /^(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/,
    'must be a key such as example.com/team',
  )
  .refine((key) => !key.startsWith('certferry.io/'), 'is one of those that certferry sets itself')

export const kubernetesSecret = defineOutput({
  kind: 'kubernetes-secret',
  summary:
    'A copy in a Secret of type kubernetes.io/tls, for Ingress controllers and the Gateway API. Needs an output beside it that writes files: these hold the state.',
  options: z
    .strictObject({
      name: ObjectName.describe('Name of the Secret'),
      namespace: Label.optional().describe('Its namespace; that of this pod unless given'),
      owner: z
        .enum(['none', 'pod', 'workload'])
        .default('none')
        .describe('With which it is deleted: this pod, or the Deployment, StatefulSet or DaemonSet the pod belongs to'),
      labels: z.record(Key, LabelValue).prefault({}).describe('Labels besides app.kubernetes.io/managed-by'),
      annotations: z
        .record(Key, z.string())
        .prefault({})
        .describe('Annotations besides certferry.io/certificate, serial, fingerprint, not-after and pod'),
    })
    .refine(({ namespace, owner }) => namespace === undefined || owner === 'none', {
      path: ['owner'],
      error: 'must be none with a namespace: an owner and what it owns share theirs',
    }),
  create: ({ namespace, ...options }, { certificate, now, kubernetes }) => {
    const load = () => import('../kubernetes/secret.ts')
    const placeFor = (api: { readonly namespace: string }) => ({ ...options, namespace: namespace ?? api.namespace })
    return {
      place: `Secret ${namespace === undefined ? '' : `${namespace}/`}${options.name}`,
      inspect: async (signal) => {
        const api = kubernetes()
        return (await load()).inspectSecret(api, placeFor(api), signal)
      },
      publish: async (bundle, signal) => {
        const api = kubernetes()
        const { applySecret } = await load()
        const { serial, fingerprint, notBefore, notAfter } = bundle
        const key = keyPem(bundle.key)
        const content = { chain: servedPem(bundle), key, ca: caPem(bundle) }
        try {
          const facts = { certificate, serial, fingerprint, notBefore, notAfter, now: now() }
          return await applySecret(api, placeFor(api), { ...facts, ...content }, signal)
        } finally {
          key.fill(0)
        }
      },
    }
  },
})
