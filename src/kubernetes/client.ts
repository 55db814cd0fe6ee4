import type * as z from 'zod'
import { abortable } from '../abortable.ts'
import { mask, quote, Secret } from '../core/secret.ts'
import { formatDuration } from '../core/units.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import { nameOf } from './names.ts'
import { findCluster, type KubernetesOptions } from './options.ts'
import type { Answer } from './replies.ts'
import type { Wire } from './wire.ts'

/** All that certferry asks of the Kubernetes API. */
export interface Kubernetes extends AsyncDisposable {
  /** Such as `https://10.96.0.1:443`. */
  readonly address: string
  /** Of this pod. */
  readonly namespace: string
  /** Name of this pod. */
  readonly pod: string
  /**
   * One request, with the token that the file holds now; nothing is tried twice. Throws KUBERNETES_* (`errors.ts`), or the reason of the
   * signal. Every message names verb, resource, namespace and name, the status and the API server's own reason.
   */
  ask<T>(request: KubernetesRequest, schema: z.ZodType<T>, signal: AbortSignal): Promise<T>
  /**
   * The events of a watch (`query.watch`), as they come, until the API server ends it: `timeoutSeconds` of the query says when at the latest,
   * and it must be less than five minutes. Throws as `ask` does, also in the middle.
   */
  watch<T>(request: KubernetesRequest, schema: z.ZodType<T>, signal: AbortSignal): AsyncIterable<T>
}

export interface KubernetesRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Segments, not yet encoded: `['apis', 'apps', 'v1', 'namespaces', 'default', 'deployments', 'web']`. */
  readonly path: readonly string[]
  readonly query?: Readonly<Record<string, string>>
  /** JSON; a Secret in it is sent as its value. */
  readonly body?: unknown
  /** Of the body: application/json unless given. */
  readonly contentType?:
    | 'application/json'
    | 'application/json-patch+json'
    | 'application/merge-patch+json'
    | 'application/apply-patch+yaml'
}

export interface KubernetesDeps {
  /** For what the options leave out: KUBERNETES_SERVICE_HOST, POD_NAMESPACE, POD_NAME and the like. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** Of each request, connecting included. */
  readonly timeoutMs?: number
}

/** Admission webhooks may take 10 s each before the API server answers. */
const TIMEOUT_MS = 30_000

/** One client per process. Opens nothing, and loads little, before the first request. Throws CONFIG_INVALID outside a cluster. */
export function createKubernetes(
  options: KubernetesOptions,
  { env, timeoutMs = TIMEOUT_MS }: KubernetesDeps,
): Kubernetes {
  const { address, caFile, tokenFile, namespace, pod } = findCluster(options, env)
  let wire: Promise<Wire> | undefined
  const open = () => {
    wire ??= import('./wire.ts').then(({ openWire }) => openWire({ address, caFile }))
    return wire
  }

  async function ask<T>(request: KubernetesRequest, schema: z.ZodType<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted()
    const name = nameOf(request)
    const token = readToken(tokenFile, name)
    const deadline = AbortSignal.timeout(timeoutMs)
    const either = AbortSignal.any([signal, deadline])
    const body = request.body === undefined ? undefined : JSON.stringify(revealed(request.body))
    const sending = open().then(({ send }) => send({ ...request, body, token, signal: either }))
    // What connects does not look at the signal.
    const answer: Answer = await abortable(sending, either).catch((error: unknown) => {
      signal.throwIfAborted()
      throw deadline.aborted
        ? new SidecarError(
            'KUBERNETES_UNREACHABLE',
            `cannot ${name}: ${address} did not answer within ${formatDuration(timeoutMs)}`,
          )
        : unreachable(error, `cannot ${name}: ${address}`, token)
    })
    const { accept } = await import('./replies.ts')
    return accept(answer, schema, { request, secrets: [token, ...secretsIn(request.body)] })
  }

  async function* watch<T>(request: KubernetesRequest, schema: z.ZodType<T>, signal: AbortSignal): AsyncGenerator<T> {
    signal.throwIfAborted()
    const name = nameOf(request)
    const token = readToken(tokenFile, name)
    const asked = { request, secrets: [token] }
    const { accept } = await import('./replies.ts')
    try {
      const { stream } = await open()
      const { status, body, retryAfter } = await abortable(
        stream({ ...request, body: undefined, token, signal }),
        signal,
      )
      if (status !== 200) accept({ status, text: await body.text(), retryAfter }, schema, asked)
      for await (const text of linesOf(body)) yield accept({ status, text, retryAfter }, schema, asked)
    } catch (error) {
      signal.throwIfAborted()
      throw unreachable(error, `cannot ${name}: ${address}`, token)
    }
  }

  return {
    address,
    namespace,
    pod,
    ask,
    watch,
    [Symbol.asyncDispose]: async () => (await wire)?.close(),
  }
}

/** No event is larger than an object may be, and what goes with it. */
const MAX_LINE_BYTES = 4 * 1024 * 1024

async function* linesOf(body: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0)
  for await (const part of body) {
    rest = Buffer.concat([rest, part])
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      yield rest.subarray(0, end).toString('utf8')
      rest = rest.subarray(end + 1)
    }
    if (rest.length > MAX_LINE_BYTES) throw new Error(`an event larger than ${MAX_LINE_BYTES} bytes`)
  }
}

function readToken(file: string, name: string): Secret {
  const say = (why: string, cause?: unknown) =>
    new SidecarError('KUBERNETES_UNAUTHORIZED', `cannot ${name}: the token file ${file} ${why}`, { cause })
  let text: string
  try {
    text = readPlainFile(file).toString('utf8').trim()
  } catch (cause) {
    throw say(`cannot be read (${systemCode(cause) ?? 'unknown'})`, cause)
  }
  // What a header can carry.
  if (!/^[\x21-\x7e]+$/.test(text)) throw say(text === '' ? 'is empty' : 'holds more than a token')
  return new Secret(text)
}

function unreachable(error: unknown, who: string, token: Secret): SidecarError {
  if (error instanceof SidecarError) return error
  const code = systemCode(error) ?? 'unknown'
  const text = error instanceof Error ? quote(mask(error.message, [token])) : ''
  return new SidecarError('KUBERNETES_UNREACHABLE', `${who}: ${text} (${code})`, { cause: error })
}

const secretsIn = (value: unknown): Secret[] => {
  if (value instanceof Secret) return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(secretsIn) : []
}

/** The same value with each Secret in it as its text. */
function revealed(value: unknown): unknown {
  if (value instanceof Secret) return value.reveal()
  if (Array.isArray(value)) return value.map(revealed)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, revealed(member)]))
}
