import * as z from 'zod'
import type { Clock } from '../clock.ts'
import { delayMs } from '../core/backoff.ts'
import { quote } from '../core/secret.ts'
import { toSidecarError } from '../errors.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import type { Emit } from '../observe/events.ts'

/** https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/: on by default since. */
const SINCE_MINOR = 29
/** How often a cluster is asked again: it may be upgraded while this process runs. */
const AGAIN_MS = 3_600_000
const MOST_MS = 60_000

/** Some distributions write the minor version as `29+`. */
const Version = z.object({
  major: z.string().regex(/^\d+/),
  minor: z.string().regex(/^\d+/),
  gitVersion: z.string().default(''),
})

/** Whether the cluster knows native sidecars, as far as it could be asked yet; until then it is assumed to. */
export interface NativeSidecars extends AsyncDisposable {
  readonly areKnown: boolean
}

/** Asks the API server for its version until it answers, and every hour. */
export function watchNativeSidecars(
  api: Pick<Kubernetes, 'ask'>,
  { clock, emit }: { readonly clock: Clock; readonly emit: Emit },
): NativeSidecars {
  const stop = new AbortController()
  let version: string | undefined
  let areKnown = true
  const watching = watch().catch(() => {})
  return {
    get areKnown() {
      return areKnown
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort(new DOMException('certferry stops', 'AbortError'))
      await watching
    },
  }

  async function watch(): Promise<never> {
    for (let failures = 0; ; ) {
      const failure = await look().catch(toSidecarError)
      stop.signal.throwIfAborted()
      failures = failure ? failures + 1 : 0
      const waitMs = failure
        ? Math.min(
            delayMs({ retry: failure.kind.retry, failures, retryAfterMs: failure.retryAfterMs }, clock.random),
            MOST_MS,
          )
        : AGAIN_MS
      // What was known once is still so, most likely.
      if (failure && failures === 1 && version === undefined)
        emit('injector.cluster-unknown', { code: failure.code, message: failure.message, nextAt: clock.now() + waitMs })
      await clock.sleep(waitMs, stop.signal)
    }
  }

  async function look(): Promise<undefined> {
    const { major, minor, gitVersion } = await api.ask({ method: 'GET', path: ['version'] }, Version, stop.signal)
    areKnown = Number.parseInt(major, 10) > 1 || Number.parseInt(minor, 10) >= SINCE_MINOR
    const now = quote(gitVersion || `${major}.${minor}`, 60)
    if (now !== version) emit('injector.cluster', { version: now, nativeSidecars: areKnown })
    version = now
  }
}
