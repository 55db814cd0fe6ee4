import { X509Certificate } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import type { buildConnector } from 'undici'
import sendRequest from 'undici/lib/api/api-request.js'
import createConnector from 'undici/lib/core/connect.js'
import Agent from 'undici/lib/dispatcher/agent.js'
import type { Secret } from '../core/secret.ts'
import { encodePath } from '../core/url-path.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import type { KubernetesRequest } from './client.ts'
import type { Answer } from './replies.ts'

/** etcd stores no object beyond 1.5 MiB; what is answered carries the managed fields as well. */
const MAX_BODY_BYTES = 4 * 1024 * 1024
const CONNECT_MS = 5_000
/** A connection idle for longer is closed, so that address and certificates are looked at anew. */
const IDLE_MS = 10_000

export interface Wire {
  /** Any status is an answer. Rejects with KUBERNETES_UNREACHABLE when the CA file is of no use, or with the error of the system. */
  send(request: Sent): Promise<Answer>
  /** The same, with a body that is read as it comes. */
  stream(request: Sent): Promise<Streamed>
  close(): Promise<void>
}

export interface Streamed extends Pick<Answer, 'status' | 'retryAfter'> {
  readonly body: AsyncIterable<Buffer> & { text(): Promise<string> }
}

interface Sent extends Omit<KubernetesRequest, 'body'> {
  /** JSON. */
  readonly body: string | undefined
  readonly token: Secret
  readonly signal: AbortSignal
}

/** HTTP/1.1 over a pool of its own. Follows no redirect; ignores proxies, and NODE_TLS_REJECT_UNAUTHORIZED. */
export function openWire({ address, caFile }: { readonly address: string; readonly caFile: string }): Wire {
  const settings = {
    connect: (target: buildConnector.Options, callback: buildConnector.Callback) => {
      try {
        connector(caFile)(target, callback)
      } catch (error) {
        callback(error instanceof Error ? error : new Error(String(error)), null)
      }
    },
    keepAliveTimeout: IDLE_MS,
    keepAliveMaxTimeout: IDLE_MS,
    allowH2: false,
  } satisfies Agent.Options
  const agent = new Agent({ ...settings, connections: 4, maxResponseSize: MAX_BODY_BYTES })
  // What lasts must not take the connections of what does not.
  const lasting = new Agent(settings)

  async function stream(
    on: Agent,
    { method, path, query = {}, body, contentType = 'application/json', token, signal }: Sent,
  ): Promise<Streamed> {
    const search = new URLSearchParams(query).toString()
    const response = await sendRequest.call(on, {
      origin: address,
      path: `/${encodePath(path, 'of the Kubernetes API')}${search && `?${search}`}`,
      method,
      headers: {
        accept: 'application/json',
        'user-agent': 'certferry',
        authorization: `Bearer ${token.reveal()}`,
        ...(body === undefined ? {} : { 'content-type': contentType }),
      },
      body: body ?? null,
      signal,
    })
    const retryAfter = [response.headers['retry-after']].flat()[0]
    return { status: response.statusCode, body: response.body, retryAfter }
  }

  return {
    send: async (request) => {
      const { status, body, retryAfter } = await stream(agent, request)
      return { status, text: await body.text(), retryAfter }
    },
    stream: (request) => stream(lasting, request),
    close: async () => {
      await Promise.all([agent.destroy(), lasting.destroy()])
    },
  }
}

/** The file is read for each connection, so that a replaced CA needs no restart. */
const connector = (caFile: string) =>
  createConnector({
    secureContext: createSecureContext({ ca: readCa(caFile), minVersion: 'TLSv1.2' }),
    rejectUnauthorized: true,
    timeout: CONNECT_MS,
    // A resumed session would skip the check of the certificate.
    maxCachedSessions: 0,
    allowH2: false,
  })

/** OpenSSL takes a file without any certificate for "trust nobody", and reports it as a fault of the server. */
function readCa(path: string): string {
  let text: string
  try {
    text = readPlainFile(path).toString('utf8')
  } catch (cause) {
    const why = `kubernetes.caFile ${path} cannot be read (${systemCode(cause) ?? 'unknown'})`
    throw new SidecarError('KUBERNETES_UNREACHABLE', why, { cause })
  }
  try {
    new X509Certificate(text)
    return text
  } catch (cause) {
    const why = `kubernetes.caFile ${path} does not begin with a certificate in PEM`
    throw new SidecarError('KUBERNETES_UNREACHABLE', why, { cause })
  }
}
