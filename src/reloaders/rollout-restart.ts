import * as z from 'zod'
import { Duration, formatDuration, Timeout } from '../core/units.ts'
import { SidecarError } from '../errors.ts'
import { ObjectName } from '../kubernetes/options.ts'
import { testOptions, withTest } from './config-test.ts'
import { defineReloader } from './reloader.ts'

const Workload = z.strictObject({
  kind: z.enum(['Deployment', 'StatefulSet', 'DaemonSet']),
  name: ObjectName,
})

/**
 * For applications that read their certificate only when they start. The workload of this pod is restarted as by `kubectl rollout restart`;
 * how many replicas cause one restart is told in `kubernetes/restart.ts`.
 *
 * The reload lasts until this pod is ended by the restart: there is nothing to verify in it any more, and the process stops in the middle of
 * its pass, which counts as no failure. The proof is brought by the pods that come. Where this pod outlives `timeout` the rollout does not
 * get on: RELOAD_TIMEOUT, told and tried again, but never a reason to go back.
 */
export const rolloutRestart = defineReloader({
  kind: 'rollout-restart',
  summary:
    'Restarts the Deployment, StatefulSet or DaemonSet that this pod belongs to, as kubectl rollout restart does; once for all its replicas. For applications that cannot reload.',
  options: z.strictObject({
    workload: Workload.optional().meta({
      description: 'What is restarted, in the namespace of this pod; the workload this pod belongs to unless given',
    }),
    minInterval: Duration.optional().meta({
      description:
        "No restart sooner after the last one; a third of the certificate's lifetime unless given, which is what the old one is good for yet",
    }),
    timeout: Timeout.prefault('15m').meta({
      description: 'How long this pod may take to be replaced before that counts as trouble',
    }),
    ...testOptions,
  }),
  create: (options, deps) => {
    const { workload, minInterval, timeout } = options
    const { clock } = deps
    const api = deps.kubernetes()
    const load = () => import('../kubernetes/restart.ts')
    return withTest(options, deps, {
      kind: 'rollout-restart',
      description: `restart of ${workload ? `${workload.kind} ${workload.name}` : 'the workload of this pod'}`,
      readsCopies: workload !== undefined,
      inspect: async () => {
        const { inspectRestart } = await load()
        return inspectRestart(api, clock, { workload, minIntervalMs: 0, certificates: [] }, AbortSignal.timeout(30_000))
      },
      reload: async ({ isFirst, lifetimeMs, certificates }, signal) => {
        if (isFirst) return
        const { restart } = await load()
        const minIntervalMs = minInterval ?? lifetimeMs / 3
        const { name, endsPod } = await restart(api, clock, { workload, minIntervalMs, certificates }, signal)
        if (!endsPod) return
        await clock.sleep(timeout, signal).catch(() => {})
        if (signal.aborted) return
        throw new SidecarError(
          'RELOAD_TIMEOUT',
          `${name} is being restarted, but has not replaced this pod, ${api.pod}, within ${formatDuration(timeout)}; see kubectl rollout status`,
        )
      },
    })
  },
})
