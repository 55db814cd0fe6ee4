import * as z from 'zod'
import type { Clock } from '../clock.ts'
import { formatDuration } from '../core/units.ts'
import { SidecarError } from '../errors.ts'
import type { Kubernetes } from './client.ts'
import { type Decision, readDecision, record } from './lease.ts'
import { isOwner, type Pod, readPod, WORKLOADS, type WorkloadKind, type WorkloadName, workloadOf } from './owner.ts'

/** As `kubectl rollout restart` does it: another value in the template makes another generation of pods. */
const RESTARTED_AT = 'kubectl.kubernetes.io/restartedAt'
/** A decision is carried out at once; one that was not by then died with the pod that took it, and does not bind. */
const DECISION_MS = 60_000
const ATTEMPTS = 10

export interface Workload extends WorkloadName {
  readonly uid: string
  readonly resourceVersion: string
  readonly generation: number
  /** Value in its template. */
  readonly restartedAt: string | undefined
  /** Why a changed template would not replace the pod; undefined where it would. */
  readonly blocked: string | undefined
}

export interface RestartRequest {
  /** Found by the owners of this pod unless given. */
  readonly workload: WorkloadName | undefined
  /** Between the last restart that certferry began and the next, ms. */
  readonly minIntervalMs: number
  readonly certificates: readonly string[]
}

export interface Restart {
  /** `Deployment shop/web`. */
  readonly name: string
  /** This pod ends by it. */
  readonly endsPod: boolean
}

/**
 * Sees to it that the workload is restarted after this call was made, once for all pods that ask, whenever and however many they are:
 *
 * 1. A pod that is being deleted, or whose template says another `restartedAt` than that of the workload, is replaced already: by a restart
 *    that another replica, or a person, has begun. It has nothing to ask. No clock is compared for that.
 * 2. The Lease holds the last decision: the value that the template gets, the generation of the workload it was taken for, and when. One
 *    that is not carried out yet is carried out as it stands, by whoever comes: the same value makes the same template, so that any
 *    number of pods that do so make one restart, and a pod that dies between decision and deed holds nobody up.
 * 3. Where the last decision is younger than `minIntervalMs` the pod must wait (RELOAD_DEFERRED). With the default, a third of the
 *    certificate's lifetime, the restart comes before the old certificate ends, which was replaced after two thirds at the latest.
 * 4. Else this pod decides: it writes the Lease, on condition that nobody did since it was read; then the template, on condition that the
 *    workload is as it was read. Who comes second begins again at 1, and finds the restart under way.
 *
 * What is in a pod's first certificate never comes here (`isFirst` of the reload context): the application starts with it. So a restarted
 * pod, which gets a fresh certificate, causes no restart.
 */
export function restart(api: Kubernetes, clock: Clock, request: RestartRequest, signal: AbortSignal): Promise<Restart> {
  return untilNoConflict(clock, signal, () => attemptRestart(api, clock, request, { signal, dryRun: false }))
}

/** What `restart` would do now, in a sentence; throws what it would. The API server checks the requests, and carries none out. */
export async function inspectRestart(
  api: Kubernetes,
  clock: Clock,
  request: RestartRequest,
  signal: AbortSignal,
): Promise<string> {
  const look = () => attemptRestart(api, clock, request, { signal, dryRun: true })
  const { name, endsPod } = await untilNoConflict(clock, signal, look)
  return `restart ${name}${endsPod ? ', which this pod belongs to' : ''}`
}

/** Somebody else was first, or the controller wrote the status: then all is looked at again. */
async function untilNoConflict<T>(clock: Clock, signal: AbortSignal, attempt: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt()
    } catch (error) {
      const isConflict = error instanceof SidecarError && error.code === 'KUBERNETES_CONFLICT'
      if (!isConflict || tries === ATTEMPTS) throw error
      await clock.sleep((0.5 + clock.random()) * 100 * tries, signal)
    }
  }
}

interface Mode {
  readonly signal: AbortSignal
  readonly dryRun: boolean
}

async function attemptRestart(
  api: Kubernetes,
  clock: Clock,
  request: RestartRequest,
  { signal, dryRun }: Mode,
): Promise<Restart> {
  // 1.
  const pod = await readPod(api, signal)
  const wanted = request.workload ?? (await workloadOf(api, pod, signal))
  const endsPod = isOwner(wanted, pod)
  const found = { name: `${wanted.kind} ${api.namespace}/${wanted.name}`, endsPod }
  const workload = await readWorkload(api, wanted, pod, signal)
  const isReplaced = pod.deletionTimestamp !== undefined || pod.annotations[RESTARTED_AT] !== workload.restartedAt
  if (endsPod && isReplaced && !dryRun) return found
  if (endsPod && workload.blocked)
    throw new SidecarError('RELOAD_BLOCKED', `${found.name} ${workload.blocked}: its pods would not be replaced`)
  // 2.
  const last = await readDecision(api, workload, signal)
  if (last?.restartedAt !== undefined && isPending(last, workload, clock)) {
    await carryOut(api, workload, { restartedAt: last.restartedAt, dryRun }, signal)
    return found
  }
  // 3.
  const now = clock.now()
  if (last && last.workloadUid === workload.uid && !dryRun) assertDue(last, { now, request, name: found.name })
  // 4.
  const restartedAt = new Date(now).toISOString()
  const next = { restartedAt, at: now, durationMs: request.minIntervalMs, certificates: request.certificates }
  await record(api, workload, { last, next, dryRun }, signal)
  await carryOut(api, workload, { restartedAt, dryRun }, signal)
  return found
}

const isPending = (last: Decision, workload: Workload, { now }: Clock): boolean =>
  last.workloadUid === workload.uid &&
  last.generation === String(workload.generation) &&
  last.restartedAt !== workload.restartedAt &&
  Math.abs(now() - last.at) < DECISION_MS

/** A clock that is behind must not add to the interval. */
function assertDue(last: Decision, { now, request, name }: { now: number; request: RestartRequest; name: string }) {
  const leftMs = Math.min(last.at + request.minIntervalMs - now, request.minIntervalMs)
  if (leftMs <= 0) return
  throw new SidecarError(
    'RELOAD_DEFERRED',
    `${name} was restarted at ${new Date(last.at).toISOString()} by ${last.holder}, and not again within ${formatDuration(request.minIntervalMs)}`,
    { retryAfterMs: leftMs },
  )
}

const Template = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.string()).default({}) }).prefault({}),
})
const WorkloadObject = z.object({
  metadata: z.object({ uid: z.string(), resourceVersion: z.string(), generation: z.int() }),
  spec: z.object({
    paused: z.boolean().default(false),
    updateStrategy: z
      .object({
        type: z.string().optional(),
        rollingUpdate: z.object({ partition: z.int().default(0) }).optional(),
      })
      .prefault({}),
    template: Template,
  }),
})

const pathOf = ({ namespace }: Kubernetes, { kind, name }: { readonly kind: WorkloadKind; readonly name: string }) => [
  'apis',
  'apps',
  'v1',
  'namespaces',
  namespace,
  WORKLOADS[kind],
  name,
]

async function readWorkload(api: Kubernetes, name: WorkloadName, pod: Pod, signal: AbortSignal): Promise<Workload> {
  const { metadata, spec } = await api.ask({ method: 'GET', path: pathOf(api, name) }, WorkloadObject, signal)
  return {
    ...name,
    ...metadata,
    restartedAt: spec.template.metadata.annotations[RESTARTED_AT],
    blocked: blockadeOf(spec, pod),
  }
}

function blockadeOf({ paused, updateStrategy }: z.output<typeof WorkloadObject>['spec'], pod: Pod): string | undefined {
  const partition = updateStrategy.rollingUpdate?.partition ?? 0
  const ordinal = Number(/-(\d+)$/.exec(pod.name)?.[1] ?? Number.POSITIVE_INFINITY)
  if (paused) return 'is paused'
  if (updateStrategy.type === 'OnDelete') return 'has the updateStrategy OnDelete'
  return ordinal < partition ? `has the rollingUpdate.partition ${partition}` : undefined
}

/** On condition that the workload is as it was read: throws KUBERNETES_CONFLICT otherwise. */
async function carryOut(
  api: Kubernetes,
  workload: Workload,
  { restartedAt, dryRun }: { readonly restartedAt: string; readonly dryRun: boolean },
  signal: AbortSignal,
): Promise<void> {
  const body = {
    metadata: { resourceVersion: workload.resourceVersion },
    spec: { template: { metadata: { annotations: { [RESTARTED_AT]: restartedAt } } } },
  }
  const query = { fieldManager: 'certferry', ...(dryRun && { dryRun: 'All' }) }
  const contentType = 'application/merge-patch+json'
  await api.ask({ method: 'PATCH', path: pathOf(api, workload), query, body, contentType }, z.object({}), signal)
}
