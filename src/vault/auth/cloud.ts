import sendRequest from 'undici/lib/api/api-request.js'
import Agent from 'undici/lib/dispatcher/agent.js'
import * as z from 'zod'
import { abortable } from '../../abortable.ts'
import { mask, quote, type Secret } from '../../core/secret.ts'
import { SidecarError, systemCode } from '../../errors.ts'

/** A metadata service is on this host, or nowhere. */
const CONNECT_MS = 2_000
const TOTAL_MS = 10_000
/** No identity token or set of credentials comes near it. */
const MAX_BODY_BYTES = 64 * 1024

export interface CloudRequest {
  readonly method?: 'GET' | 'POST' | 'PUT'
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** What no message may repeat of the answer. */
  readonly secrets?: readonly Secret[]
}

/**
 * One request to a service of the cloud that this machine runs in, over a connection of its own: no proxy, no redirect. Gives the body. Throws
 * AUTH_SOURCE when the service is away or refuses, for then there is no credential; or the reason of the signal.
 */
export async function askCloud(request: CloudRequest, signal: AbortSignal): Promise<string> {
  const deadline = AbortSignal.timeout(TOTAL_MS)
  const either = AbortSignal.any([signal, deadline])
  const agent = new Agent({
    connect: { timeout: CONNECT_MS, rejectUnauthorized: true, maxCachedSessions: 0 },
    maxResponseSize: MAX_BODY_BYTES,
    allowH2: false,
  })
  try {
    // undici looks at the signal only once the connection stands.
    const { status, text } = await abortable(exchange(agent, request, either), either)
    if (status >= 200 && status < 300) return text
    throw refused(request, `${status} ${text}`)
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof SidecarError) throw error
    const why = deadline.aborted ? `no answer within ${TOTAL_MS / 1000} s` : (systemCode(error) ?? String(error))
    throw refused(request, why, error)
  } finally {
    await agent.destroy()
  }
}

/** The same, of an answer in JSON. */
export async function askCloudFor<T>(schema: z.ZodType<T>, request: CloudRequest, signal: AbortSignal): Promise<T> {
  const text = await askCloud(request, signal)
  const { data, error } = z.string().transform(parseJson).pipe(schema).safeParse(text)
  if (error === undefined) return data
  const [issue] = error.issues
  throw refused(request, `the answer is not as documented at "${issue?.path.join('.')}": ${issue?.message}`)
}

async function exchange(agent: Agent, { method = 'GET', url, headers = {}, body }: CloudRequest, signal: AbortSignal) {
  const { origin, pathname, search } = new URL(url)
  const options = { origin, path: `${pathname}${search}`, method, headers, body: body ?? null, signal }
  const response = await sendRequest.call(agent, options)
  return { status: response.statusCode, text: await response.body.text() }
}

function refused({ method = 'GET', url, secrets = [] }: CloudRequest, why: string, cause?: unknown): SidecarError {
  const { origin, pathname } = new URL(url)
  const told = quote(mask(`${method} ${origin}${pathname}: ${why}`, secrets), 400)
  return new SidecarError('AUTH_SOURCE', told, { cause })
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
