import type { Dispatcher } from 'undici'
import sendRequest from 'undici/lib/api/api-request.js'
import Agent from 'undici/lib/dispatcher/agent.js'
import { abortable } from '../abortable.ts'
import { mask, quote, type Secret } from '../core/secret.ts'
import { formatDuration } from '../core/units.ts'
import { SidecarError } from '../errors.ts'
import { openConnection } from './connection.ts'
import { connectionFailure, notConnected } from './failures.ts'
import type { VaultOptions } from './options.ts'
import { isSocket, targetOf } from './unix-socket.ts'

/** No answer of the PKI or auth endpoints comes near it. */
const MAX_BODY_BYTES = 1024 * 1024
/** A connection idle for longer is closed, so that Vault's address and certificates are looked at anew; also when Vault offers to keep it longer. */
const IDLE_MS = 10_000
const MAX_IDLE_MS = 60_000

export interface TransportRequest {
  readonly method: Dispatcher.HttpMethod
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly json?: unknown
  /** What no message may repeat, though the answer does. */
  readonly secrets?: readonly Secret[]
  readonly signal: AbortSignal
}

export interface Reply {
  readonly status: number
  /** Parsed JSON; undefined where the body is empty or something else. */
  readonly body: unknown
  readonly contentType: string
  /** The header, as it came. */
  readonly date: string | undefined
  readonly retryAfter: string | undefined
}

export interface Transport {
  /**
   * One request, with at most one redirect. Any status is an answer. Throws VAULT_DNS, VAULT_UNREACHABLE, VAULT_TLS, VAULT_CLIENT_CERT,
   * VAULT_TIMEOUT, REDIRECT_REFUSED or BAD_RESPONSE, or the reason of the signal.
   */
  request(request: TransportRequest): Promise<Reply>
  /** From here on requests go over new connections; those under way end on the old ones. */
  reconnect(): void
  close(): Promise<void>
}

type Options = Pick<
  VaultOptions,
  | 'addresses'
  | 'caFile'
  | 'caPem'
  | 'clientCertFile'
  | 'clientKeyFile'
  | 'serverName'
  | 'redirectHosts'
  | 'concurrency'
  | 'timeouts'
>

/** HTTP/1.1 over a pool of undici connections. Ignores proxies, NODE_TLS_REJECT_UNAUTHORIZED and VAULT_SKIP_VERIFY. */
export function createTransport(options: Options): Transport {
  const { timeouts } = options
  let agent = openAgent(options)
  const closed = new AbortController()
  return {
    request: async (request) => {
      const deadline = AbortSignal.timeout(timeouts.total)
      const signal = AbortSignal.any([request.signal, deadline, closed.signal])
      // undici looks at the signal only once the connection stands.
      const reply = abortable(
        follow(() => agent, { ...request, signal }, options),
        signal,
      )
      return reply.catch((error: unknown) => {
        request.signal.throwIfAborted()
        if (!deadline.aborted) throw error
        throw new SidecarError('VAULT_TIMEOUT', `${nameOf(request)} took longer than ${formatDuration(timeouts.total)}`)
      })
    },
    reconnect: () => {
      const last = agent
      agent = openAgent(options)
      void last.close()
    },
    close: () => {
      // An agent that was told to close knows no longer what it has under way.
      closed.abort(new SidecarError('VAULT_UNREACHABLE', 'the Vault client was closed'))
      return agent.destroy()
    },
  }
}

const openAgent = (options: Options) =>
  new Agent({
    connect: (target, callback) => {
      openConnection(target, options).then(
        (socket) => callback(null, socket),
        (error: Error) => callback(notConnected(error), null),
      )
    },
    connections: options.concurrency,
    headersTimeout: options.timeouts.headers,
    bodyTimeout: options.timeouts.body,
    keepAliveTimeout: IDLE_MS,
    keepAliveMaxTimeout: MAX_IDLE_MS,
    maxResponseSize: MAX_BODY_BYTES,
    allowH2: false,
  })

/** Redirects are followed by hand, because the token must go to no host but those allowed; and once, as a standby node does (307). */
async function follow(agent: () => Agent, request: TransportRequest, options: Options): Promise<Reply> {
  const first = await exchange(agent(), request, options)
  if (!isRedirect(first.status)) return first
  const url = redirectTarget(first, request, options)
  const second = await exchange(agent(), { ...request, url }, options)
  if (isRedirect(second.status))
    throw new SidecarError(
      'REDIRECT_REFUSED',
      `${nameOf(request)} was redirected twice, the second time by ${new URL(url).host}`,
    )
  return second
}

const isRedirect = (status: number) => status >= 300 && status < 400 && status !== 304

function redirectTarget({ status, location }: Received, request: TransportRequest, options: Options): string {
  const { url, secrets = [] } = request
  const from = new URL(url)
  const refuse = (why: string) =>
    new SidecarError('REDIRECT_REFUSED', `${nameOf(request)} was redirected (${status}) ${why}`)
  // The others change the method to GET.
  if (status !== 307 && status !== 308) throw refuse('with a status that is not followed; only 307 and 308 are')
  if (location === undefined || !URL.canParse(location, from.href)) throw refuse('without a usable Location')
  const to = new URL(location, from)
  if (to.protocol !== 'https:') throw refuse(`to ${quote(mask(to.origin, secrets))}, which is not https`)
  const allowed = [...options.addresses.map((address) => new URL(address).host), ...options.redirectHosts]
  if (!allowed.includes(to.host) && !options.redirectHosts.includes(to.hostname))
    throw refuse(`to ${quote(mask(to.host, secrets))}, which is not in vault.redirectHosts`)
  return to.href
}

type Received = Reply & { readonly location: string | undefined }

async function exchange(agent: Agent, request: TransportRequest, { addresses }: Options): Promise<Received> {
  const target = targetOf(request.url, addresses)
  const { method, signal, secrets = [] } = request
  const body = request.json === undefined ? null : JSON.stringify(request.json)
  const headers = { ...request.headers, ...(body === null ? {} : { 'content-type': 'application/json' }) }
  const options = { ...target, method, headers, body, signal }
  const response = await sendRequest.call(agent, options).catch((error: unknown) => {
    throw connectionFailure(error, { request: nameOf(request), phase: 'connecting', secrets })
  })
  const text = await response.body.text().catch((error: unknown) => {
    throw connectionFailure(error, { request: nameOf(request), phase: 'reading', secrets })
  })
  const header = (name: string) => [response.headers[name]].flat()[0]
  return {
    status: response.statusCode,
    body: parseJson(text),
    contentType: header('content-type') ?? 'no content type',
    date: header('date'),
    retryAfter: header('retry-after'),
    location: header('location'),
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const nameOf = ({ method, url, secrets = [] }: TransportRequest) => {
  if (isSocket(url)) return `${method} ${quote(mask(url, secrets))}`
  const { origin, pathname } = new URL(url)
  return `${method} ${origin}${quote(mask(pathname, secrets))}`
}
