import { request as httpRequest, type IncomingMessage } from 'node:http'
import { text } from 'node:stream/consumers'
import * as z from 'zod'
import { SidecarError, systemCode } from '../errors.ts'
import { ReloadReply, RotateReply, type RotateRequest, WireError } from './control.ts'
import { SidecarStatus } from './status.ts'

/** Asks a running sidecar. Every call rejects with SIDECAR_UNREACHABLE, naming the socket, or with the error the sidecar answered. */
export interface ControlClient {
  status(signal?: AbortSignal): Promise<SidecarStatus>
  rotate(request: z.input<typeof RotateRequest>, signal?: AbortSignal): Promise<RotateReply>
  reloadConfig(signal?: AbortSignal): Promise<ReloadReply>
}

/** How long a sidecar may take to answer what it can answer at once, in ms. */
const PROMPT_MS = 5_000

export function createControlClient(socketPath: string): ControlClient {
  const ask = async <T extends z.ZodType>(call: Call, schema: T): Promise<z.output<T>> => {
    const { status, body } = await exchange(socketPath, call)
    const value = parseJson(body)
    if (status < 300) {
      const result = schema.safeParse(value)
      if (result.success) return result.data
    }
    const refusal = z.object({ error: WireError }).safeParse(value)
    if (refusal.success) throw new SidecarError(refusal.data.error.code, refusal.data.error.message)
    throw unreachable(socketPath, `what answers there is not certferry (${call.method} ${call.path}: ${status})`)
  }
  return {
    status: (signal) => ask({ method: 'GET', path: '/status', signal, timeoutMs: PROMPT_MS }, SidecarStatus),
    rotate: (request, signal) => {
      const timeoutMs = request.wait ? undefined : PROMPT_MS
      return ask({ method: 'POST', path: '/rotate', body: JSON.stringify(request), signal, timeoutMs }, RotateReply)
    },
    reloadConfig: (signal) =>
      ask({ method: 'POST', path: '/reload-config', signal, timeoutMs: undefined }, ReloadReply),
  }
}

interface Call {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly body?: string
  /** Of the caller: its reason is passed on when it aborts. */
  readonly signal: AbortSignal | undefined
  readonly timeoutMs: number | undefined
}

/** One request on a connection of its own. */
async function exchange(socketPath: string, { method, path, body = '', signal, timeoutMs }: Call) {
  const timeout = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs)
  const either = AbortSignal.any([signal, timeout].filter((each) => each !== undefined))
  try {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }
      const request = httpRequest({ socketPath, method, path, headers, agent: false, signal: either })
      request.once('response', resolve)
      request.once('error', reject)
      request.end(body)
    })
    return { status: response.statusCode ?? 0, body: await text(response) }
  } catch (cause) {
    if (signal?.aborted) throw signal.reason
    throw unreachable(socketPath, timeout?.aborted ? 'it does not answer' : explain(systemCode(cause)), cause)
  }
}

const unreachable = (socketPath: string, why: string, cause?: unknown) =>
  new SidecarError('SIDECAR_UNREACHABLE', `no answer from certferry at ${socketPath}: ${why}`, { cause })

const explain = (code: string | undefined): string =>
  ({
    ENOENT: 'there is no such socket',
    ECONNREFUSED: 'the process that made this socket has ended',
    EACCES: 'this user may not open it',
    ECONNRESET: 'it ended before it answered',
  })[code ?? ''] ?? `${code ?? 'the connection broke'}`

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}
