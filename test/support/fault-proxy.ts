import {
  createServer as createHttpServer,
  request as httpRequest,
  type IncomingMessage,
  type RequestOptions,
  type ServerResponse,
} from 'node:http'
import { createServer as createHttpsServer, Server as HttpsServer, request as httpsRequest } from 'node:https'
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TlsOptions } from 'node:tls'
import { gzipSync } from 'node:zlib'

/** What happens to one request instead of, or before, its way to the target. */
export type Fault =
  | {
      readonly kind: 'answer'
      readonly status: number
      readonly body?: unknown
      readonly headers?: Record<string, string>
    }
  /** Forwarded after this long. */
  | { readonly kind: 'delay'; readonly ms: number }
  /** TCP RST before any answer. */
  | { readonly kind: 'reset' }
  /** Forwarded, and TCP RST in place of the answer. */
  | { readonly kind: 'lose' }
  /** Forwarded, and the answer replaced by what this makes of it. */
  | { readonly kind: 'edit'; readonly edit: (body: string) => string }
  /** Accepted, never answered: a half-open connection. */
  | { readonly kind: 'silence' }
  /** Head and the first bytes of this answer, then nothing more, with the connection left open, closed in good order, or reset. */
  | {
      readonly kind: 'part'
      readonly body: string
      readonly length: number
      readonly end: 'silence' | 'close' | 'reset'
    }
  /** 200 and a body without end. */
  | { readonly kind: 'flood'; readonly headers?: Record<string, string> }

export interface SeenRequest {
  readonly method: string
  /** Path and query. */
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

export interface FaultProxy extends AsyncDisposable {
  readonly address: string
  /** All requests so far, oldest first. */
  readonly requests: SeenRequest[]
  /** TCP connections accepted so far. */
  readonly connections: () => number
  /** Bytes sent on those that are closed. */
  readonly bytesSent: () => number
  /** The most requests that were under way at the same time. */
  readonly busiest: () => number
  /** Decides about each request; undefined forwards it. */
  onRequest: (request: SeenRequest) => Fault | undefined | Promise<Fault | undefined>
  /** Headers that are added to each request on its way. */
  headers: Readonly<Record<string, string>>
  /** Shows another certificate from now on, and ends the connections that saw the last one. */
  showCertificate(tls: TlsOptions): void
}

export interface ProxyOptions {
  /** Where requests go; without one the proxy answers by itself. */
  readonly target?: string
  /** PEM of the CA to trust where the target is https. */
  readonly targetCa?: string
  /** Makes it https. */
  readonly tls?: TlsOptions
  /** By default 127.0.0.1, and a free port. */
  readonly host?: string
  readonly port?: number
}

/** An HTTP server on a free loopback port that forwards to `target`, or answers by itself; `tls` makes it https. */
export async function startFaultProxy(
  onRequest: FaultProxy['onRequest'] = () => undefined,
  { target, targetCa, tls, host = '127.0.0.1', port = 0 }: ProxyOptions = {},
): Promise<FaultProxy> {
  let running = 0
  let busiest = 0
  let bytesSent = 0
  let connections = 0
  const handle = async (incoming: IncomingMessage, answer: ServerResponse) => {
    running += 1
    busiest = Math.max(busiest, running)
    answer.once('close', () => {
      running -= 1
    })
    const { method = '', url = '', headers } = incoming
    const seen = { method, url, headers, body: String(await buffer(incoming)) }
    proxy.requests.push(seen)
    const fault = (await proxy.onRequest(seen)) ?? (target === undefined ? NOT_FOUND : undefined)
    if (fault) await apply(fault, answer)
    if (target === undefined) return
    const onward = { target, headers: proxy.headers, ...(targetCa !== undefined && { ca: targetCa }) }
    if (fault === undefined || fault.kind === 'delay') await forward(onward, seen, answer)
    if (fault?.kind === 'edit') await forwardEdited(onward, seen, answer, fault.edit)
    if (fault?.kind === 'lose') await forwardInVain(onward, seen, answer)
  }
  const listener = (incoming: IncomingMessage, answer: ServerResponse) => {
    // A client that goes away is part of the game.
    handle(incoming, answer).catch(() => answer.destroy())
  }
  const server = tls ? createHttpsServer(tls, listener) : createHttpServer(listener)
  server.on('connection', (socket: Socket) => {
    connections += 1
    socket.once('close', () => {
      bytesSent += socket.bytesWritten
    })
  })
  await new Promise<void>((resolve) => server.listen(port, host, resolve))
  const place = server.address()
  if (place === null || typeof place === 'string') throw new Error('no port')
  const proxy: FaultProxy = {
    address: `${tls ? 'https' : 'http'}://${host}:${place.port}`,
    requests: [],
    connections: () => connections,
    bytesSent: () => bytesSent,
    busiest: () => busiest,
    onRequest,
    headers: {},
    showCertificate: (shown) => {
      if (server instanceof HttpsServer) server.setSecureContext(shown)
      server.closeAllConnections()
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return proxy
}

/** An answer in JSON. */
export const answer = (status: number, body?: unknown, headers?: Record<string, string>): Fault => ({
  kind: 'answer',
  status,
  body,
  ...(headers ? { headers } : {}),
})

/** A hundred mebibytes of zeros, which take a thousandth of that on the way. */
export const gzipBomb = (): Fault =>
  answer(200, gzipSync(Buffer.alloc(100 * 1024 * 1024)), {
    'content-type': 'application/json',
    'content-encoding': 'gzip',
  })

const NOT_FOUND = answer(404, { errors: ['no handler for route "x". route entry not found.'] })

async function apply(fault: Fault, answer: ServerResponse): Promise<void> {
  switch (fault.kind) {
    case 'delay':
      await sleep(fault.ms)
      return
    case 'reset':
      answer.socket?.resetAndDestroy()
      return
    case 'silence':
    case 'lose':
    case 'edit':
      return
    case 'answer': {
      const { status, body, headers } = fault
      const isRaw = typeof body === 'string' || Buffer.isBuffer(body)
      answer.writeHead(status, {
        ...(isRaw || body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      })
      answer.end(isRaw ? body : body === undefined ? undefined : JSON.stringify(body))
      return
    }
    case 'part':
      answer.writeHead(200, { 'content-type': 'application/json', 'content-length': fault.length })
      answer.write(fault.body, () => {
        if (fault.end === 'reset') answer.socket?.resetAndDestroy()
        if (fault.end === 'close') answer.socket?.end()
      })
      return
    case 'flood':
      answer.writeHead(200, { 'content-type': 'application/json', ...fault.headers })
      // It ends when the client has had enough.
      await pipeline(Readable.from(endless()), answer).catch(() => undefined)
  }
}

function* endless() {
  for (const piece = Buffer.alloc(64 * 1024, '['); ; ) yield piece
}

async function forwardInVain(onward: Onward, seen: SeenRequest, answer: ServerResponse): Promise<void> {
  const reply = await send(onward, seen)
  await buffer(reply)
  answer.socket?.resetAndDestroy()
}

async function forward(onward: Onward, seen: SeenRequest, answer: ServerResponse): Promise<void> {
  const reply = await send(onward, seen)
  answer.writeHead(reply.statusCode ?? 502, reply.headers)
  await pipeline(reply, answer)
}

async function forwardEdited(
  onward: Onward,
  seen: SeenRequest,
  answer: ServerResponse,
  edit: (body: string) => string,
) {
  const reply = await send(onward, seen)
  const body = edit(await text(reply))
  answer.writeHead(reply.statusCode ?? 502, { 'content-type': 'application/json' })
  answer.end(body)
}

interface Onward {
  readonly target: string
  readonly ca?: string
  readonly headers: Readonly<Record<string, string>>
}

function send({ target, ca, headers: more }: Onward, { method, url, headers, body }: SeenRequest) {
  return new Promise<IncomingMessage>((resolve, reject) => {
    const to = new URL(url, target)
    const options: RequestOptions = { method, headers: { ...headers, host: to.host, ...more } }
    const onward = to.protocol === 'https:' ? httpsRequest(to, { ...options, ca }) : httpRequest(to, options)
    onward.on('error', reject)
    onward.on('response', resolve)
    onward.end(body)
  })
}
