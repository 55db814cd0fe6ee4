import type { SecureContext } from 'node:tls'
import { abortable } from './abortable.ts'

export interface HttpLimits {
  /** In ms, for the connection with its handshake. */
  readonly connectMs: number
  /** In ms, from the request to the last byte of the body. */
  readonly totalMs: number
  /** Of the body. */
  readonly maxBytes: number
}

export interface HttpRequest {
  readonly url: string
  readonly method?: 'GET' | 'HEAD' | 'POST' | 'PUT'
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer | undefined
}

export interface HttpAnswer {
  readonly status: number
  /** By name in small letters; several of one name are joined by commas (RFC 9110 §5.2). */
  readonly headers: Readonly<Record<string, string>>
  readonly content: Buffer
}

export interface Http extends AsyncDisposable {
  /** Throws HttpTimeout, what undici and TLS throw, or the reason of the signal. */
  send(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer>
}

/** No whole answer within `totalMs`. */
export class HttpTimeout extends Error {
  override readonly name = 'HttpTimeout'
}

/**
 * Connections for a few requests, closed with this object; by `secureContext` where the roots of Node are not meant. Follows no redirect,
 * ignores proxies and NODE_TLS_REJECT_UNAUTHORIZED, resumes no session. A status is no error.
 */
export async function openHttp(
  { connectMs, totalMs, maxBytes }: HttpLimits,
  secureContext?: SecureContext,
): Promise<Http> {
  // Loaded with the first request: a start asks nobody.
  const [{ default: sendRequest }, { default: createConnector }, { default: Agent }] = await Promise.all([
    import('undici/lib/api/api-request.js'),
    import('undici/lib/core/connect.js'),
    import('undici/lib/dispatcher/agent.js'),
  ])
  const connect = createConnector({
    ...(secureContext && { secureContext }),
    rejectUnauthorized: true,
    timeout: connectMs,
    maxCachedSessions: 0,
    allowH2: false,
  })
  const agent = new Agent({
    connect: (target, callback) =>
      connect(target, (...[error, socket]) => {
        if (error) return callback(error, null)
        // With TLS 1.3 a server refuses our certificate after the handshake: the alert, then the end, by which undici would forget the alert.
        socket.once('error', (alert) => socket.destroy(alert))
        callback(null, socket)
      }),
    maxResponseSize: maxBytes,
    allowH2: false,
  })
  const exchange = async ({ url, method = 'GET', headers = {}, body }: HttpRequest, signal: AbortSignal) => {
    const { origin, pathname, search } = new URL(url)
    const response = await sendRequest.call(agent, {
      origin,
      path: `${pathname}${search}`,
      method,
      headers: { 'user-agent': 'certferry', ...headers },
      body: body ?? null,
      signal,
    })
    const content = Buffer.from(await response.body.arrayBuffer())
    const joined = Object.entries(response.headers).map(([name, value]) => [name, [value ?? []].flat().join(', ')])
    return { status: response.statusCode, headers: Object.fromEntries(joined), content }
  }
  return {
    send: async (request, signal) => {
      const deadline = AbortSignal.timeout(totalMs)
      const either = AbortSignal.any([signal, deadline])
      try {
        // What connects does not look at the signal.
        return await abortable(exchange(request, either), either)
      } catch (error) {
        signal.throwIfAborted()
        throw deadline.aborted ? new HttpTimeout(`no answer within ${totalMs / 1000} s`, { cause: error }) : error
      }
    },
    [Symbol.asyncDispose]: () => agent.destroy(),
  }
}
