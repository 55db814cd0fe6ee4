import * as z from 'zod'
import { SidecarError } from '../errors.ts'
import type { Kubernetes } from './client.ts'

/** Kinds of the group apps that replace their pods one after the other when their template changes. */
export const WORKLOADS = { Deployment: 'deployments', StatefulSet: 'statefulsets', DaemonSet: 'daemonsets' } as const
export type WorkloadKind = keyof typeof WORKLOADS
export interface WorkloadName {
  readonly kind: WorkloadKind
  readonly name: string
}

const OwnerReference = z.object({
  apiVersion: z.string(),
  kind: z.string(),
  name: z.string(),
  uid: z.string(),
  controller: z.boolean().optional(),
})
const Texts = z.record(z.string(), z.string()).default({})
const Owned = z.object({ metadata: z.object({ ownerReferences: z.array(OwnerReference).default([]) }) })

const Pod = z.object({
  metadata: z.object({
    name: z.string(),
    uid: z.string(),
    deletionTimestamp: z.string().optional(),
    annotations: Texts,
    labels: Texts,
    ownerReferences: z.array(OwnerReference).default([]),
  }),
})
export type Pod = z.output<typeof Pod>['metadata']

/** The pod this process runs in. */
export async function readPod(api: Kubernetes, signal: AbortSignal): Promise<Pod> {
  const path = ['api', 'v1', 'namespaces', api.namespace, 'pods', api.pod]
  return (await api.ask({ method: 'GET', path }, Pod, signal)).metadata
}

export interface Owner extends WorkloadName {
  readonly uid: string
}

/**
 * The workload that a pod belongs to: its controller, or for a Deployment the controller of that. Throws RELOAD_BLOCKED for a pod that
 * nobody would replace, such as one of a Job.
 */
export async function workloadOf(api: Kubernetes, pod: Pod, signal: AbortSignal): Promise<Owner> {
  let owner = controllerOf(pod.ownerReferences)
  if (owner?.kind === 'ReplicaSet' && isApps(owner.apiVersion)) {
    const path = ['apis', 'apps', 'v1', 'namespaces', api.namespace, 'replicasets', owner.name]
    const { metadata } = await api.ask({ method: 'GET', path }, Owned, signal)
    owner = controllerOf(metadata.ownerReferences) ?? owner
  }
  const kind = owner && isApps(owner.apiVersion) ? kindNamed(owner.kind) : undefined
  if (owner && kind) return { kind, name: owner.name, uid: owner.uid }
  const what = owner ? `belongs to ${owner.kind} ${owner.name} (${owner.apiVersion})` : 'belongs to no workload'
  throw new SidecarError(
    'RELOAD_BLOCKED',
    `pod ${api.namespace}/${pod.name} ${what}; only ${Object.keys(WORKLOADS).join(', ')} can be restarted`,
  )
}

/** Does the workload replace this pod? A ReplicaSet is named after its Deployment and the hash of the template. */
export const isOwner = ({ kind, name }: WorkloadName, { ownerReferences, labels }: Pod): boolean => {
  const owner = controllerOf(ownerReferences)
  if (kind !== 'Deployment') return owner?.kind === kind && owner.name === name
  return owner?.kind === 'ReplicaSet' && owner.name === `${name}-${labels['pod-template-hash']}`
}

const controllerOf = (owners: readonly z.output<typeof OwnerReference>[]) => owners.find(({ controller }) => controller)
const isApps = (apiVersion: string) => apiVersion.startsWith('apps/')
const kindNamed = (kind: string) => z.enum(['Deployment', 'StatefulSet', 'DaemonSet']).safeParse(kind).data
