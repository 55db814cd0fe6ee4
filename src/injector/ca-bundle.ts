import { X509Certificate } from 'node:crypto'
import * as z from 'zod'
import { abortable } from '../abortable.ts'
import type { Clock } from '../clock.ts'
import { delayMs } from '../core/backoff.ts'
import { certificatePem, fingerprintOf } from '../core/bundle.ts'
import { toSidecarError } from '../errors.ts'
import type { Kubernetes } from '../kubernetes/client.ts'
import type { Emit } from '../observe/events.ts'

export interface CaBundleOptions {
  /** Name of the MutatingWebhookConfiguration. */
  readonly webhookConfiguration: string
  /** How long API servers may take to hear of a change. */
  readonly settleMs?: number
  /** Between two looks. */
  readonly checkMs?: number
}

export interface CaBundle extends AsyncDisposable {
  /**
   * Resolves once every webhook of the configuration trusts these roots; from then on that is looked after. Throws KUBERNETES_*; then the
   * roots of before stay looked after.
   */
  trust(roots: readonly X509Certificate[], signal: AbortSignal): Promise<void>
}

const SETTLE_MS = 2_000
const CHECK_MS = 60_000
/** Tries against others who change the configuration at the same time. */
const TRIES = 5

/**
 * Keeps `caBundle` of every webhook current: adds what is missing, drops what has expired, and leaves what others put there, such as replicas
 * with another CA. Whatever empties it, as an upgrade by Helm or a sync of a GitOps controller does, is put right at the next look.
 */
export function keepCaBundle(
  api: Kubernetes,
  { webhookConfiguration: name, settleMs = SETTLE_MS, checkMs = CHECK_MS }: CaBundleOptions,
  { clock, emit }: { readonly clock: Clock; readonly emit: Emit },
): CaBundle {
  const stop = new AbortController()
  let wanted: readonly X509Certificate[] = []
  let told: string | undefined
  let turn: Promise<unknown> = Promise.resolve()
  const watching = watch()
  return {
    trust: async (roots, signal) => {
      if (await abortable(putRight(roots), signal)) await clock.sleep(settleMs, signal)
      wanted = roots
    },
    [Symbol.asyncDispose]: async () => {
      stop.abort(new DOMException('certferry stops', 'AbortError'))
      await watching
      await turn
    },
  }

  /** One after the other: two at once would only conflict. Resolves with whether anything had to be changed. */
  function putRight(roots: readonly X509Certificate[]): Promise<boolean> {
    const next = turn.then(async () => {
      const change = await ensureTrusted(api, { name, roots, now: clock.now() }, clock, stop.signal)
      if (change) emit('injector.ca-bundle-updated', { webhookConfiguration: name, ...change })
      return change !== undefined
    })
    turn = next.catch(() => {})
    return next
  }

  async function watch(): Promise<void> {
    let failures = 0
    let waitMs = checkMs
    while (await slept(waitMs)) {
      waitMs = checkMs
      if (wanted.length === 0) continue
      try {
        await putRight(wanted)
        failures = 0
        told = undefined
      } catch (thrown) {
        if (stop.signal.aborted) return
        const { code, message, kind, retryAfterMs } = toSidecarError(thrown)
        failures += 1
        waitMs = Math.min(delayMs({ retry: kind.retry, failures, retryAfterMs }, clock.random), checkMs)
        if (message !== told)
          emit('injector.ca-bundle-failed', { webhookConfiguration: name, code, message, nextAt: clock.now() + waitMs })
        told = message
      }
    }
  }

  function slept(ms: number): Promise<boolean> {
    return clock.sleep(ms, stop.signal).then(
      () => true,
      () => false,
    )
  }
}

const Configuration = z.object({
  metadata: z.object({ resourceVersion: z.string() }),
  webhooks: z
    .array(z.object({ clientConfig: z.object({ caBundle: z.string().default('') }).prefault({}) }))
    .default([]),
})
type Configuration = z.output<typeof Configuration>

interface Wanted {
  readonly name: string
  readonly roots: readonly X509Certificate[]
  readonly now: number
}

interface BundleChange {
  readonly added: number
  readonly dropped: number
}

/** Resolves with what was changed, in the webhook with the most of it; undefined where all was as it should be. */
async function ensureTrusted(
  api: Kubernetes,
  { name, roots, now }: Wanted,
  clock: Clock,
  signal: AbortSignal,
): Promise<BundleChange | undefined> {
  const path = ['apis', 'admissionregistration.k8s.io', 'v1', 'mutatingwebhookconfigurations', name]
  const read = () => api.ask({ method: 'GET', path }, Configuration, signal)
  let found = await read()
  for (let tries = 1; ; tries += 1) {
    const { operations, change } = repairOf(found, roots, now)
    if (!change) return undefined
    const body = [{ op: 'test', path: '/metadata/resourceVersion', value: versionOf(found) }, ...operations]
    const contentType = 'application/json-patch+json'
    try {
      await api.ask(
        { method: 'PATCH', path, query: { fieldManager: 'certferry' }, body, contentType },
        z.object({}),
        signal,
      )
      return change
    } catch (error) {
      // A test that fails is answered with 422, as is much else: only another version tells them apart.
      const next = await read()
      if (versionOf(next) === versionOf(found) || tries === TRIES) throw error
      found = next
    }
    await clock.sleep(clock.random() * 100 * tries, signal)
  }
}

const versionOf = ({ metadata }: Configuration) => metadata.resourceVersion

function repairOf({ webhooks }: Configuration, roots: readonly X509Certificate[], now: number) {
  const repairs = webhooks.flatMap(({ clientConfig }, index) => {
    const { pem, change } = withRoots(Buffer.from(clientConfig.caBundle, 'base64').toString('latin1'), roots, now)
    if (!change) return []
    const path = `/webhooks/${index}/clientConfig/caBundle`
    return [{ change, operation: { op: 'add', path, value: Buffer.from(pem).toString('base64') } }]
  })
  const [largest] = repairs.map(({ change }) => change).toSorted((a, b) => sizeOf(b) - sizeOf(a))
  return { operations: repairs.map(({ operation }) => operation), change: largest }
}

const sizeOf = ({ added, dropped }: BundleChange) => added + dropped

/** The clock here may be ahead of that of others. */
const EXPIRED_SINCE_MS = 86_400_000

/** The bundle with these roots in it, and without what is of no use to anybody; `change` is undefined where nothing is to be done. */
export function withRoots(
  bundle: string,
  roots: readonly X509Certificate[],
  now: number,
): { readonly pem: string; readonly change: BundleChange | undefined } {
  const blocks = bundle.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  const present = blocks.flatMap((block) => parse(block) ?? [])
  const known = new Map(present.map((certificate) => [fingerprintOf(certificate), certificate]))
  const kept = [...known.values()].filter(({ validToDate }) => validToDate.getTime() > now - EXPIRED_SINCE_MS)
  const missing = roots.filter((root) => !kept.some((one) => fingerprintOf(one) === fingerprintOf(root)))
  const [added, dropped] = [missing.length, blocks.length - kept.length]
  return {
    pem: [...kept, ...missing].map(certificatePem).join(''),
    change: added + dropped === 0 ? undefined : { added, dropped },
  }
}

function parse(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem)
  } catch {
    return undefined
  }
}
