import type { ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2'
import { connect as connectTo } from 'node:net'
import { quote } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'

/** Where a Workload API listens: SPIFFE_Workload_Endpoint.md §4 knows a unix socket, and TCP by address. */
export type Endpoint = { readonly path: string } | { readonly host: string; readonly port: number }

/** More than any answer needs; the usual limit of gRPC. */
const MAX_BYTES = 4 * 1024 * 1024
/** An empty X509SVIDRequest: not compressed, no bytes. */
const REQUEST = Buffer.alloc(5)

/**
 * The X509SVIDResponse messages of FetchX509SVID (SPIFFE_Workload_API.md §5.2.1), each when it comes; ends when the server ends the stream.
 * gRPC is HTTP/2 with five bytes before each message and a status in the trailers (PROTOCOL-HTTP2.md of grpc); one call with one empty
 * request needs no more than node:http2. Throws SPIFFE_UNREACHABLE, SPIFFE_DENIED, BAD_RESPONSE, or the reason of `signal`.
 */
export async function* streamX509Svids(endpoint: Endpoint, signal: AbortSignal): AsyncGenerator<Buffer> {
  const { connect } = await import('node:http2')
  signal.throwIfAborted()
  const name = nameOf(endpoint)
  const session = connect('http://localhost', { createConnection: () => connectTo(endpoint) })
  let broken: unknown
  session.on('error', (error) => {
    broken = error
  })
  const stop = () => session.destroy()
  signal.addEventListener('abort', stop, { once: true })
  try {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/SpiffeWorkloadAPI/FetchX509SVID',
      'content-type': 'application/grpc',
      te: 'trailers',
      // Without it the server must refuse: it shows that nobody was talked into making the request (SPIFFE_Workload_Endpoint.md §4).
      'workload.spiffe.io': 'true',
    })
    const status = statusOf(stream)
    stream.end(REQUEST)
    yield* messagesOf(stream, name)
    assertOk(await status, name)
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof SidecarError) throw error
    const cause = broken ?? error
    const why = cause instanceof Error ? quote(cause.message) : 'the connection broke'
    throw new SidecarError('SPIFFE_UNREACHABLE', `the Workload API at ${name} cannot be reached: ${why}`, { cause })
  } finally {
    signal.removeEventListener('abort', stop)
    session.destroy()
  }
}

export const nameOf = (endpoint: Endpoint): string =>
  'path' in endpoint ? `unix://${endpoint.path}` : `tcp://${endpoint.host}:${endpoint.port}`

async function* messagesOf(stream: ClientHttp2Stream, name: string): AsyncGenerator<Buffer> {
  let rest = Buffer.alloc(0)
  for await (const chunk of stream) {
    if (!Buffer.isBuffer(chunk)) continue
    const joined = Buffer.concat([rest, chunk])
    // Keys are in there.
    rest.fill(0)
    chunk.fill(0)
    rest = joined
    while (rest.length >= REQUEST.length) {
      const length = rest.readUInt32BE(1)
      if (rest[0] !== 0) throw malformed(name, 'is compressed, which was not offered')
      if (length > MAX_BYTES) throw malformed(name, `has ${length} bytes; at most ${MAX_BYTES} are read`)
      if (rest.length < REQUEST.length + length) break
      const message = rest.subarray(REQUEST.length, REQUEST.length + length)
      rest = rest.subarray(REQUEST.length + length)
      yield message
    }
  }
  if (rest.length > 0) throw malformed(name, 'was cut off')
}

const malformed = (name: string, trouble: string) =>
  new SidecarError('BAD_RESPONSE', `a message of the Workload API at ${name} ${trouble}`)

/** The trailers; where there was no message, all of it is in the headers. */
function statusOf(stream: ClientHttp2Stream): Promise<IncomingHttpHeaders> {
  return new Promise((resolve) => {
    let headers: IncomingHttpHeaders = {}
    stream.once('response', (given) => {
      headers = given
    })
    stream.once('trailers', (given) => resolve({ ...headers, ...given }))
    stream.once('close', () => resolve(headers))
  })
}

/** PERMISSION_DENIED of gRPC: no registration entry is for this process (SPIFFE_Workload_Endpoint.md §6). */
const DENIED = '7'

function assertOk(headers: IncomingHttpHeaders, name: string): void {
  const status = headers['grpc-status']
  if (status === '0') return
  const said = decoded(headers['grpc-message'])
  if (status === DENIED)
    throw new SidecarError('SPIFFE_DENIED', `the Workload API at ${name} has no identity for this process${said}`)
  const http = headers[':status']
  const what = status === undefined ? `HTTP ${http ?? 'without an answer'}` : `gRPC status ${quote(String(status))}`
  throw new SidecarError('SPIFFE_UNREACHABLE', `the Workload API at ${name} ended the answer with ${what}${said}`)
}

/** Percent-encoded UTF-8. */
function decoded(message: string | string[] | undefined): string {
  if (message === undefined || message.length === 0) return ''
  try {
    return `: ${quote(decodeURIComponent(String(message)))}`
  } catch {
    return `: ${quote(String(message))}`
  }
}
