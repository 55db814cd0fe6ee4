import * as z from 'zod'
import { delayMs } from '../core/backoff.ts'
import type { Bundle } from '../core/bundle.ts'
import { bundleOf, type Piece } from '../core/material.ts'
import { SidecarError, toSidecarError } from '../errors.ts'
import type { Kubernetes, KubernetesRequest } from '../kubernetes/client.ts'
import { Label, ObjectName } from '../kubernetes/options.ts'
import { poll } from '../vault/paths.ts'
import { heldSource } from './held.ts'
import { defineSource, type SourceDeps } from './source.ts'
import { warnOfUnrelated } from './unrelated.ts'

export const kubernetesSecret = defineSource({
  kind: 'kubernetes-secret',
  summary:
    'The certificate in a Secret of type kubernetes.io/tls, such as cert-manager writes, read through the API server and watched.',
  options: z.strictObject({
    name: ObjectName.describe('Name of the Secret'),
    namespace: Label.optional().describe('Its namespace; that of this pod unless given'),
    watch: z
      .boolean()
      .default(true)
      .describe('Has the API server tell of each change at once; takes the verb watch besides get'),
    poll,
  }),
  create: ({ name, namespace: given, watch, poll }, { kubernetes, clock, warn }) => {
    const api = kubernetes()
    const namespace = given ?? api.namespace
    const place = `Secret ${namespace}/${name}`
    const origin = `kubernetes-secret ${namespace}/${name}`
    const path = ['api', 'v1', 'namespaces', namespace, 'secrets']
    let last: { readonly version: string; readonly bundle: Bundle } | undefined
    const fetch = async (signal: AbortSignal): Promise<Bundle> => {
      const { metadata, data } = await api.ask({ method: 'GET', path: [...path, name] }, SecretObject, signal)
      const version = `${metadata.uid} ${metadata.resourceVersion}`
      if (last?.version === version) return last.bundle
      const piece = (field: string): Piece[] =>
        data[field] === undefined
          ? []
          : [{ place: `${field} of ${place}`, content: Buffer.from(data[field], 'base64') }]
      const [[certificate], [key], issuers] = [piece('tls.crt'), piece('tls.key'), piece('ca.crt')]
      if (!certificate || !key) {
        const there = Object.keys(data).join(', ') || 'nothing'
        throw new SidecarError('INPUT_INCOMPLETE', `${place} lacks tls.crt or tls.key; it has ${there}`)
      }
      try {
        const read = { origin, receivedAt: clock.now(), options: WORDS }
        const bundle = await bundleOf({ certificate, key, issuers, password: undefined }, read)
        warnOfUnrelated(bundle, place, warn)
        last = { version, bundle }
        return bundle
      } finally {
        key.content.fill(0)
      }
    }
    return heldSource({
      origin,
      place,
      poll,
      random: clock.random,
      fetch,
      watch: watch && ((ring) => watchSecret(api, watchOf(path, name), ring, { clock, warn })),
    })
  },
})

const WORDS = { key: 'tls.key', password: 'nothing: a Secret holds its key as it is', pkcs12: 'tls.crt and tls.key' }

const SecretObject = z.object({
  metadata: z.object({ uid: z.string(), resourceVersion: z.string() }),
  data: z.record(z.string(), z.string()).default({}),
})

const Event = z.object({
  type: z.string(),
  object: z.object({ metadata: z.object({ resourceVersion: z.string().optional() }).optional() }),
})

/**
 * Of one object (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes). Without a resourceVersion a
 * watch begins with what is there now, so none of its changes is lost between two watches, and none that is too old is asked for.
 */
const watchOf = (path: readonly string[], name: string): KubernetesRequest => ({
  method: 'GET',
  path,
  query: { watch: 'true', fieldSelector: `metadata.name=${name}`, timeoutSeconds: '240' },
})

/** What comes faster is one change. */
const APART_MS = 500
/** A watch that lasted as long was a good one. */
const LASTING_MS = 30_000

/** Rings at each change of the object, for as long as it takes; where it may not watch, poll is all there is, and a warning says so once. */
function watchSecret(
  api: Kubernetes,
  request: KubernetesRequest,
  ring: () => void,
  { clock: { random, sleep }, warn }: Pick<SourceDeps, 'clock' | 'warn'>,
): AsyncDisposable {
  const stop = new AbortController()
  let version: string | undefined
  let failures = 0
  const ended = run()

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      const pause = await follow().catch(afterFailure)
      await sleep(pause, stop.signal).catch(() => {})
    }
  }

  async function follow(): Promise<number> {
    const startedAt = performance.now()
    for await (const { type, object } of api.watch(request, Event, stop.signal)) {
      if (type === 'ERROR')
        throw new SidecarError('KUBERNETES_UNREACHABLE', 'the API server ended the watch with an error')
      const now = object.metadata?.resourceVersion
      if (now === version) continue
      version = now
      ring()
      await sleep(APART_MS, stop.signal)
    }
    // Somebody in between may end each one at once.
    failures = performance.now() - startedAt > LASTING_MS ? 0 : failures + 1
    return delayMs({ retry: 'transient', failures: Math.max(failures, 1) }, random)
  }

  function afterFailure(thrown: unknown): number {
    if (stop.signal.aborted) return 0
    failures += 1
    const { code, message, kind, retryAfterMs } = toSidecarError(thrown)
    if (code === 'KUBERNETES_DENIED' && failures === 1) warn(`${message}; until then it is read as often as poll says`)
    return delayMs({ retry: kind.retry, failures, retryAfterMs }, random)
  }

  return {
    [Symbol.asyncDispose]: () => {
      stop.abort(new DOMException('the source is not watched any more', 'AbortError'))
      return ended
    },
  }
}
