import { X509Certificate } from 'node:crypto'
import { createSecureContext } from 'node:tls'
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
  close(): Promise<void>
}

interface Sent extends Omit<KubernetesRequest, 'body'> {
  /** JSON. */
  readonly body: string | undefined
  readonly token: Secret
  readonly signal: AbortSignal
}

/** HTTP/1.1 over a pool of its own. Follows no redirect; ignores proxies, and NODE_TLS_REJECT_UNAUTHORIZED. */
export function openWire({ address, caFile }: { readonly address: string; readonly caFile: string }): Wire {
  const agent = new Agent({
    connect: (target, callback) => {
      try {
        connector(caFile)(target, callback)
      } catch (error) {
        callback(error instanceof Error ? error : new Error(String(error)), null)
      }
    },
    connections: 4,
    keepAliveTimeout: IDLE_MS,
    keepAliveMaxTimeout: IDLE_MS,
    maxResponseSize: MAX_BODY_BYTES,
    allowH2: false,
  })
  return {
    send: async ({ method, path, query = {}, body, contentType = 'application/json', token, signal }) => {
      const search = new URLSearchParams(query).toString()
      const response = await sendRequest.call(agent, {
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
      return {
        status: response.statusCode,
        text: await response.body.text(),
        retryAfter: [response.headers['retry-after']].flat()[0],
      }
    },
    close: () => agent.destroy(),
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
