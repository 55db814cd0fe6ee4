import * as z from 'zod'
import { SidecarError } from '../errors.ts'
import type { Kubernetes, KubernetesRequest } from './client.ts'
import type { Workload } from './restart.ts'

/** On record with the Lease of a workload: the last restart that certferry decided on. */
export interface Decision {
  /** Value that the template gets for it; undefined for a Lease that says nothing of the kind. */
  readonly restartedAt: string | undefined
  /** Generation of the workload that it was decided for; carrying it out makes the next one. */
  readonly generation: string | undefined
  readonly workloadUid: string | undefined
  readonly holder: string
  /** Wall clock of the pod that decided. */
  readonly at: number
  readonly transitions: number
  readonly resourceVersion: string
}

const RESTARTED_AT = 'certferry.io/restarted-at'
const GENERATION = 'certferry.io/generation'
const CERTIFICATES = 'certferry.io/certificates'

const Lease = z.object({
  metadata: z.object({
    resourceVersion: z.string(),
    annotations: z.record(z.string(), z.string()).default({}),
    ownerReferences: z.array(z.object({ uid: z.string() })).default([]),
  }),
  spec: z
    .object({
      holderIdentity: z.string().default('nobody'),
      acquireTime: z.string().optional(),
      leaseTransitions: z.int().default(0),
    })
    .prefault({}),
})

/** One for each workload. */
export const leaseName = ({ kind, name }: Pick<Workload, 'kind' | 'name'>): string =>
  `certferry-${kind.toLowerCase()}-${name}`

const leases = ({ namespace }: Kubernetes) => ['apis', 'coordination.k8s.io', 'v1', 'namespaces', namespace, 'leases']

export async function readDecision(
  api: Kubernetes,
  workload: Workload,
  signal: AbortSignal,
): Promise<Decision | undefined> {
  const path = [...leases(api), leaseName(workload)]
  try {
    const { metadata, spec } = await api.ask({ method: 'GET', path }, Lease, signal)
    const at = Date.parse(spec.acquireTime ?? '')
    return {
      restartedAt: metadata.annotations[RESTARTED_AT],
      generation: metadata.annotations[GENERATION],
      workloadUid: metadata.ownerReferences[0]?.uid,
      holder: spec.holderIdentity,
      at: Number.isNaN(at) ? 0 : at,
      transitions: spec.leaseTransitions,
      resourceVersion: metadata.resourceVersion,
    }
  } catch (error) {
    if (error instanceof SidecarError && error.code === 'KUBERNETES_NOT_FOUND') return undefined
    throw error
  }
}

export interface NewDecision {
  readonly restartedAt: string
  readonly at: number
  /** No other restart is meant to begin for so long. */
  readonly durationMs: number
  readonly certificates: readonly string[]
}

/** Puts a decision on record, in place of `last`. Throws KUBERNETES_CONFLICT where somebody else was first. */
export async function record(
  api: Kubernetes,
  workload: Workload,
  { last, next, dryRun }: { last: Decision | undefined; next: NewDecision; dryRun: boolean },
  signal: AbortSignal,
): Promise<void> {
  const time = new Date(next.at).toISOString().replace('Z', '000Z')
  const name = leaseName(workload)
  const body = {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: {
      name,
      namespace: api.namespace,
      annotations: {
        [RESTARTED_AT]: next.restartedAt,
        [GENERATION]: String(workload.generation),
        [CERTIFICATES]: next.certificates.join(','),
      },
      // It goes when the workload goes.
      ownerReferences: [{ apiVersion: 'apps/v1', kind: workload.kind, name: workload.name, uid: workload.uid }],
      ...(last && { resourceVersion: last.resourceVersion }),
    },
    spec: {
      holderIdentity: api.pod,
      acquireTime: time,
      renewTime: time,
      leaseDurationSeconds: Math.max(1, Math.ceil(next.durationMs / 1000)),
      leaseTransitions: last ? last.transitions + 1 : 0,
    },
  }
  const query = { fieldManager: 'certferry', ...(dryRun && { dryRun: 'All' }) }
  const request: KubernetesRequest = last
    ? { method: 'PUT', path: [...leases(api), name], query, body }
    : { method: 'POST', path: leases(api), query, body }
  await api.ask(request, z.object({}), signal)
}
