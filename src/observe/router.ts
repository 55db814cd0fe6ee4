import type { IncomingMessage } from 'node:http'

export interface Reply {
  readonly status: number
  readonly type: string
  readonly body: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface Question {
  readonly query: URLSearchParams
  /** Whole, of at most `maxBodyBytes`; empty for GET. */
  readonly body: string
  /** The media type of the body in lower case, without parameters; empty where none is given. */
  readonly mediaType: string
  /** Aborts when the client has gone or the server stops. */
  readonly signal: AbortSignal
}

export type Handler = (question: Question) => Reply | Promise<Reply>
export type Method = 'GET' | 'POST'
/** By path. HEAD is answered as GET. */
export type Routes = ReadonlyMap<string, Readonly<Partial<Record<Method, Handler>>>>

export const text = (status: number, line: string): Reply => ({
  status,
  type: 'text/plain; charset=utf-8',
  body: `${line}\n`,
})
export const json = (status: number, value: unknown): Reply => ({
  status,
  type: 'application/json',
  body: `${JSON.stringify(value)}\n`,
})

/** How many bytes of bodies may be held at the same time. */
export interface BodyRoom {
  /** False where there is no room for so many more. */
  take(bytes: number): boolean
  give(bytes: number): void
}

export function createBodyRoom(limit: number): BodyRoom {
  let held = 0
  return {
    take: (bytes) => {
      if (held + bytes > limit) return false
      held += bytes
      return true
    },
    give: (bytes) => {
      held -= bytes
    },
  }
}

export interface AnswerOptions {
  readonly maxBodyBytes: number
  /** Shared by all connections of a server. */
  readonly room: BodyRoom
  readonly signal: AbortSignal
  /** Judges the Host header, port included; by default any name will do. */
  readonly isOurName?: ((host: string) => boolean) | undefined
}

/** Answers a request, or refuses it before anything of its body beyond `maxBodyBytes` is read. Rejects only with what a handler throws. */
export async function answer(
  request: IncomingMessage,
  routes: Routes,
  { maxBodyBytes, room, signal, isOurName = () => true }: AnswerOptions,
): Promise<Reply> {
  const refusal = refuseForm(request, isOurName)
  if (refusal) return refusal
  if (Number(request.headers['content-length'] ?? 0) > maxBodyBytes) return tooLarge(maxBodyBytes)
  const [path = '', query = ''] = (request.url ?? '').split('?', 2)
  const route = routes.get(path)
  if (!route) return text(404, 'not found')
  const method = request.method === 'HEAD' ? 'GET' : request.method
  const handler = method === 'GET' || method === 'POST' ? route[method] : undefined
  if (!handler) return { ...text(405, 'method not allowed'), headers: { Allow: allowed(route) } }
  if (method === 'GET' && hasBody(request)) return text(400, `${request.method} takes no body`)
  const body = await readBody(request, maxBodyBytes, room)
  if (body === 'too large') return tooLarge(maxBodyBytes)
  if (body === 'no room') return text(503, 'too many bodies at the same time')
  const mediaType = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  return handler({ query: new URLSearchParams(query), body: body.text, mediaType, signal })
}

/** What the parser lets through and RFC 9110 and 9112 do not. */
function refuseForm(
  { headers, headersDistinct, httpVersion }: IncomingMessage,
  isOurName: (host: string) => boolean,
): Reply | undefined {
  const hosts = headersDistinct.host?.length ?? 0
  if (hosts > 1 || (hosts === 0 && httpVersion !== '1.0')) return text(400, 'one Host header is needed')
  if (headers.host !== undefined && !isOurName(headers.host)) return text(421, 'this server has no such name')
  // The parser takes any list that ends in chunked; what stands before would stay in the body.
  if ((headers['transfer-encoding'] ?? 'chunked').toLowerCase() !== 'chunked')
    return text(501, 'the only transfer coding understood is chunked')
  if ((headers.expect ?? '100-continue').toLowerCase() !== '100-continue') return text(417, 'cannot be expected')
  return undefined
}

const tooLarge = (limit: number) => text(413, `the body may have ${limit} bytes at most`)

const allowed = (route: Readonly<Partial<Record<Method, Handler>>>) =>
  [...(route.GET ? ['GET', 'HEAD'] : []), ...(route.POST ? ['POST'] : [])].join(', ')

const hasBody = ({ headers }: IncomingMessage) =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0

/** What does not fit is not kept. Rejects when the client goes away. */
function readBody(
  request: IncomingMessage,
  limit: number,
  room: BodyRoom,
): Promise<{ readonly text: string } | 'too large' | 'no room'> {
  return new Promise((resolve, reject) => {
    let chunks: Buffer[] = []
    let length = 0
    const letGo = () => {
      room.give(length)
      length = 0
      chunks = []
    }
    const refuse = (why: 'too large' | 'no room') => {
      letGo()
      request.off('data', keep)
      resolve(why)
    }
    const keep = (chunk: Buffer) => {
      if (length + chunk.length > limit) return refuse('too large')
      if (!room.take(chunk.length)) return refuse('no room')
      length += chunk.length
      chunks.push(chunk)
    }
    request.on('data', keep)
    request.once('end', () => {
      const text = Buffer.concat(chunks).toString('utf8')
      letGo()
      resolve({ text })
    })
    request.once('error', reject)
    request.once('close', letGo)
  })
}
