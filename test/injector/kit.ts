import assert from 'node:assert/strict'
import { applyPatch } from 'rfc6902'
import * as z from 'zod'
import type { InjectorContext } from '../../src/injector/inject.ts'
import { Pod } from '../../src/injector/pod.ts'
import { review } from '../../src/injector/review.ts'

/** A cluster with a Vault, as most are. */
export const CONTEXT: InjectorContext = {
  image: 'certferry:0.1.0',
  nativeSidecars: true,
  vaultAnnotations: false,
  ownNamespace: 'certferry',
  defaults: { 'vault-address': 'https://vault.vault.svc:8200', 'vault-role': 'web' },
}

export const WEB = { 'certferry.io/certificate.web': 'pki/issue/web?common_name=web.example.com&ttl=72h' }

/** A pod as the API server shows it to a webhook: a Deployment made it, the service account admission has seen it. */
export const podWith = (annotations: Record<string, string>, change: { spec?: object; container?: object } = {}) => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    generateName: 'web-67b946d5d4-',
    labels: { app: 'web', 'pod-template-hash': '67b946d5d4' },
    annotations,
    creationTimestamp: null,
  },
  spec: {
    serviceAccountName: 'web',
    volumes: [{ name: 'kube-api-access-x2x8z', projected: { sources: [] } }],
    containers: [
      {
        name: 'nginx',
        image: 'nginx:1.29',
        securityContext: { runAsUser: 101, runAsGroup: 101 },
        volumeMounts: [{ name: 'kube-api-access-x2x8z', mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' }],
        ...change.container,
      },
    ],
    ...change.spec,
  },
})

export const reviewOf = (object: unknown, request: object = {}) => ({
  apiVersion: 'admission.k8s.io/v1',
  kind: 'AdmissionReview',
  request: {
    uid: '705ab4f5-6393-11e8-b7cc-42010a800002',
    kind: { group: '', version: 'v1', kind: 'Pod' },
    resource: { group: '', version: 'v1', resource: 'pods' },
    namespace: 'shop',
    operation: 'CREATE',
    userInfo: {},
    dryRun: false,
    object,
    ...request,
  },
})

/** The answer to a review, with the pod as the API server would store it. */
export function admit(pod: ReturnType<typeof podWith> | Pod, context: InjectorContext = CONTEXT, request: object = {}) {
  const { verdict, answer } = review(reviewOf(pod, request), context)
  const { response } = Answer.parse(answer)
  const operations =
    response.patch === undefined ? [] : Operations.parse(JSON.parse(Buffer.from(response.patch, 'base64').toString()))
  const stored = structuredClone(pod)
  assert.deepEqual(
    applyPatch(stored, operations).filter((error) => error !== null),
    [],
  )
  return { verdict, response, operations, pod: Pod.parse(stored) }
}

export const denied = (
  annotations: Record<string, string>,
  change: Parameters<typeof podWith>[1] = {},
  context = CONTEXT,
): string => admit(podWith(annotations, change), context).response.status?.message ?? 'it was not denied'

export const Answer = z.object({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  response: z.object({
    uid: z.string(),
    allowed: z.boolean(),
    patchType: z.literal('JSONPatch').optional(),
    patch: z.string().optional(),
    warnings: z.array(z.string()).optional(),
    status: z.object({ code: z.int(), reason: z.string(), message: z.string() }).optional(),
  }),
})
export const Operations = z.array(
  z.object({ op: z.literal(['add', 'replace', 'remove']), path: z.string(), value: z.unknown() }),
)
