import { once } from 'node:events'
import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Server as HttpsServer, ServerOptions as TlsOptions } from 'node:https'
import type { Socket } from 'node:net'
import { SidecarError, systemCode, toSidecarError } from '../errors.ts'
import { wireError } from './control.ts'
import type { Emit } from './events.ts'
import { type AnswerOptions, answer, type BodyRoom, createBodyRoom, json, type Reply, type Routes } from './router.ts'

/** What a client may take of the server. Times in ms. */
export interface Limits {
  /** From the start of a connection, or of the next request on it, to the end of the headers. */
  readonly headersMs: number
  /** To the end of the body. */
  readonly requestMs: number
  /** Between two requests. */
  readonly idleMs: number
  /** Without any traffic while a reply is due or being sent; 0: none, for replies that take their time. */
  readonly stallMs: number
  /** At the same time; one more takes the place of the one that has been there longest without a request under way. */
  readonly connections: number
  readonly headerBytes: number
  readonly bodyBytes: number
  /** Of all bodies at the same time. */
  readonly bodiesBytes: number
  /** How long requests under way may take to end when the server stops. */
  readonly drainMs: number
  /**
   * Before that, how long clients that hold connections open may still ask on them: each answer tells them to let go. Closing a connection
   * at rest instead can cross a request on its way, which is then lost. 0: not at all.
   */
  readonly lingerMs: number
}

export const PUBLIC_LIMITS: Limits = {
  headersMs: 5_000,
  requestMs: 10_000,
  idleMs: 5_000,
  stallMs: 30_000,
  connections: 64,
  headerBytes: 16 * 1024,
  bodyBytes: 1024,
  bodiesBytes: 64 * 1024,
  drainMs: 500,
  lingerMs: 0,
}
export const CONTROL_LIMITS: Limits = { ...PUBLIC_LIMITS, stallMs: 0, bodyBytes: 16 * 1024, bodiesBytes: 1024 * 1024 }

export interface HttpServerOptions {
  readonly routes: Routes
  readonly limits: Limits
  readonly emit: Emit
  readonly isOurName?: AnswerOptions['isOurName']
  /** Given: serves TLS. */
  readonly tls?: TlsOptions | undefined
}

export interface HttpServer extends AsyncDisposable {
  readonly server: Server | HttpsServer
}

/** An HTTP server that slow, greedy and broken clients cannot hold up. The caller makes it listen. */
export function createServer({ routes, limits, emit, isOurName, tls }: HttpServerOptions): HttpServer {
  const stop = new AbortController()
  const room = createBodyRoom(limits.bodiesBytes)
  const retire = new AbortController()
  let empty = () => {}
  /** In the order they came. */
  const sockets = new Set<Socket>()
  const taken = new WeakSet<Socket>()
  const options = {
    headersTimeout: limits.headersMs,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.idleMs,
    maxHeaderSize: limits.headerBytes,
    // Nothing to look at yet; see createLook.
    connectionsCheckingInterval: NEVER_MS,
    // Else NODE_OPTIONS could make it lenient.
    insecureHTTPParser: false,
    // The router does, so that what follows on the connection is not obeyed either.
    requireHostHeader: false,
  }
  const listener = oneAtATime(taken, (request, response, isLast) =>
    respond(request, response, {
      routes,
      limits,
      emit,
      room,
      isOurName,
      stop: stop.signal,
      isLast: () => retire.signal.aborted || isLast(),
    }),
  )
  const server = tls
    ? // TLS is loaded where it is asked for: 9 ms, and a megabyte.
      process
        .getBuiltinModule('node:https')
        .createServer({ ...options, ...tls, handshakeTimeout: limits.headersMs }, listener)
    : createHttpServer(options, listener)
  // Node would answer by itself, and go on with the connection.
  server.on('checkExpectation', listener)
  server.timeout = limits.stallMs
  const lookEvery = createLook(server)
  // Before Node's own listener, which begins to count the time.
  server.prependListener('connection', (socket: Socket) => {
    if (sockets.size === 0) lookEvery(Math.min(500, limits.headersMs))
    if (sockets.size >= limits.connections) makeRoom(sockets, taken)
    sockets.add(socket)
    socket.once('close', () => {
      if (!sockets.delete(socket) || sockets.size > 0) return
      lookEvery(NEVER_MS)
      empty()
    })
  })
  return {
    server,
    async [Symbol.asyncDispose]() {
      retire.abort()
      if (limits.lingerMs > 0 && sockets.size > 0)
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, limits.lingerMs)
          empty = () => {
            clearTimeout(timer)
            resolve()
          }
        })
      stop.abort(new SidecarError('SIDECAR_UNREACHABLE', 'certferry stops'))
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeIdleConnections()
      // Also those that never sent a request, or are still shaking hands: the server does not count them as its connections.
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy()
      }, limits.drainMs)
      await closed
      clearTimeout(timer)
    },
  }
}

/** Resolves with `host:port` as it is listened on; `option` of the config is what errors name. */
export async function listenOnPort(server: Server | HttpsServer, listen: string, option: string): Promise<string> {
  const [, host = '', port = ''] = /^\[?(.*?)\]?:(\d{1,5})$/.exec(listen) ?? []
  if (host === '' || Number(port) > 65_535)
    throw new SidecarError('CONFIG_INVALID', `${option} "${listen}" is not host:port`)
  try {
    server.listen({ host, port: Number(port) })
    await once(server, 'listening')
  } catch (cause) {
    const code = systemCode(cause)
    if (code === 'EADDRINUSE')
      throw new SidecarError('ADDRESS_IN_USE', `cannot listen on ${listen}: another process does already`, { cause })
    const why = code === 'EACCES' ? 'this user may not (ports below 1024 need CAP_NET_BIND_SERVICE)' : code
    throw new SidecarError('CONFIG_INVALID', `${option}: cannot listen on ${listen}: ${why}`, { cause })
  }
  const address = server.address()
  return listen.replace(/\d+$/, String(typeof address === 'object' && address ? address.port : port))
}

/** A connection that cannot be accepted (ENFILE, ENOBUFS) is no reason to end, which an 'error' that nobody hears would be. */
export const outlive = (server: Server | HttpsServer) => void server.on('error', () => {})

/** The longest that Node's timers keep. */
const NEVER_MS = 2 ** 31 - 1

/**
 * Sets how often Node looks which of its connections are over time: the timeouts become as much longer, and by default it is every 30 s. But
 * it looks all the time, also while there are no connections, which would be most of the wake-ups of a process at rest. Where Node starts to
 * look, it takes the interval anew.
 */
function createLook(server: Server | HttpsServer): (ms: number) => void {
  const [start] = server.listeners('listening')
  return (ms) => {
    Object.assign(server, { connectionsCheckingInterval: ms })
    start?.call(server)
  }
}

/** Refusing the newcomer instead would let whoever holds connections open keep liveness probes out. */
function makeRoom(sockets: Set<Socket>, taken: WeakSet<Socket>): void {
  const longest = sockets.values().find((socket) => !taken.has(socket)) ?? sockets.values().next().value
  if (!longest) return
  sockets.delete(longest)
  longest.destroy()
}

type Respond = (request: IncomingMessage, response: ServerResponse, isLast: () => boolean) => void

/**
 * Hands on one request of a connection at a time, and none after one that closes it. What follows in the same breath (pipelining, which
 * no client here does) is neither answered nor obeyed, since it may be the end of a message that another parser cuts elsewhere; the
 * connection is then closed after the answer under way. `taken` holds the connections that take no further request now.
 */
function oneAtATime(taken: WeakSet<Socket>, respond: Respond) {
  const crowded = new WeakSet<Socket>()
  return (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request
    if (taken.has(socket)) return void crowded.add(socket)
    taken.add(socket)
    response.once('finish', () => {
      if (crowded.has(socket)) socket.destroySoon()
      else if (response.shouldKeepAlive) taken.delete(socket)
    })
    respond(request, response, () => crowded.has(socket))
  }
}

interface RespondOptions extends Pick<HttpServerOptions, 'routes' | 'limits' | 'emit' | 'isOurName'> {
  readonly room: BodyRoom
  readonly stop: AbortSignal
  /** Whether the connection is closed after this answer in any case. */
  readonly isLast: () => boolean
}

/** Never rejects. */
async function respond(
  request: IncomingMessage,
  response: ServerResponse,
  { routes, limits, emit, room, isOurName, stop, isLast }: RespondOptions,
): Promise<void> {
  const gone = new AbortController()
  response.once('close', () => gone.abort(new DOMException('the client has gone', 'AbortError')))
  const signal = AbortSignal.any([stop, gone.signal])
  const reply = await answer(request, routes, { maxBodyBytes: limits.bodyBytes, room, signal, isOurName }).catch(
    (error: unknown) => {
      if (gone.signal.aborted || request.errored) return undefined
      return failed(toSidecarError(stop.aborted ? stop.reason : error), emit)
    },
  )
  if (reply) send(request, response, { ...reply, close: stop.aborted || isLast() || isRefusal(reply) })
}

/** 503 is an answer about certferry, not about the request. */
const isRefusal = ({ status }: Reply) => status >= 400 && status !== 503

function failed(error: SidecarError, emit: Emit): Reply {
  if (error.code === 'BUG') emit('internal.error', { code: error.code, message: error.message, error })
  return json(STATUS_OF[error.code] ?? 500, { error: wireError(error) })
}

const STATUS_OF: Readonly<Partial<Record<SidecarError['code'], number>>> = {
  USAGE: 400,
  CONFIG_INVALID: 422,
  CONFIG_UNREADABLE: 422,
  CONFIG_UNSAFE: 422,
  SIDECAR_UNREACHABLE: 503,
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  { status, type, body, headers, close }: Reply & { close: boolean },
): void {
  // What is left of a body that was refused is thrown away unread.
  request.resume()
  if (close) response.shouldKeepAlive = false
  response.writeHead(status, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    ...headers,
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}
