import { createSecureContext } from 'node:tls'
import * as z from 'zod'
import { quote } from '../core/secret.ts'
import { type ErrorCode, SidecarError, systemCode } from '../errors.ts'
import { type HttpAnswer, openHttp } from '../http-exchange.ts'
import { readPlainFile } from '../plain-file.ts'

/** An answer, as acme-client reads it. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** JSON parsed, or text. */
  readonly data: unknown
}

export interface Transport extends AsyncDisposable {
  /** Throws ACME_UNREACHABLE, ACME_TLS, ACME_RATE_LIMITED, BAD_RESPONSE, or the reason of the signal. */
  send(
    url: string,
    method: string,
    request: { readonly headers?: Record<string, string>; readonly data?: unknown },
  ): Promise<Answer>
}

/** A CA may take its time with an order. */
const LIMITS = { connectMs: 5_000, totalMs: 60_000, maxBytes: 1024 * 1024 }

/**
 * HTTPS to one ACME server, in place of the one acme-client brings: it stops when `signal` aborts, knows private CAs, trusts no
 * redirect and reads no more than a MiB. Problem documents (RFC 8555 §6.7) of rate limits become errors here; all others are answers.
 */
export async function openTransport(caFile: string | undefined, signal: AbortSignal): Promise<Transport> {
  const http = await openHttp(LIMITS, caFile === undefined ? undefined : createSecureContext({ ca: caOf(caFile) }))
  return {
    send: async (url, method, { headers = {}, data }) => {
      const body = data === undefined ? undefined : JSON.stringify(data)
      const type = data === undefined ? {} : { 'content-type': 'application/jose+json' }
      try {
        const request = { url, method: methodOf(method), headers: { ...type, ...headers }, body }
        return read(url, await http.send(request, signal))
      } catch (error) {
        signal.throwIfAborted()
        throw failure(url, error)
      }
    },
    [Symbol.asyncDispose]: () => http[Symbol.asyncDispose](),
  }
}

function caOf(file: string): Buffer {
  try {
    return readPlainFile(file)
  } catch (cause) {
    throw new SidecarError(
      'AUTH_SOURCE',
      `source.caFile ${file} cannot be read (${systemCode(cause) ?? String(cause)})`,
      { cause },
    )
  }
}

const methodOf = (method: string): 'GET' | 'HEAD' | 'POST' =>
  method.toUpperCase() === 'HEAD' ? 'HEAD' : method.toUpperCase() === 'GET' ? 'GET' : 'POST'

function read(url: string, { status, headers, content }: HttpAnswer): Answer {
  const text = content.toString('utf8')
  const isJson = /^application\/(?:\w+\+)?json\b/.test(headers['content-type'] ?? '')
  const answer = { status, headers, data: isJson ? parse(text, url) : text }
  const problem = problemOf(answer)
  if (problem?.type === 'rateLimited' || status === 429)
    throw new SidecarError('ACME_RATE_LIMITED', `${url}: ${problem?.detail ?? 'too many requests'}`, {
      retryAfterMs: retryAfterOf(headers['retry-after'], Date.now()),
    })
  if (status >= 500)
    throw new SidecarError('ACME_UNREACHABLE', `${url} answers ${status}: ${problem?.detail ?? 'without a reason'}`, {
      retryAfterMs: retryAfterOf(headers['retry-after'], Date.now()),
    })
  return answer
}

function parse(text: string, url: string): unknown {
  try {
    return text === '' ? '' : JSON.parse(text)
  } catch {
    throw new SidecarError('BAD_RESPONSE', `${url} answers with JSON that does not parse`)
  }
}

const Problem = z.object({
  type: z.string().default('about:blank'),
  detail: z.string().default(''),
  subproblems: z
    .array(
      z.object({
        type: z.string().default(''),
        detail: z.string().default(''),
        identifier: z.object({ value: z.string() }).optional(),
      }),
    )
    .default([]),
})

export interface AcmeProblem {
  /** Without `urn:ietf:params:acme:error:`. */
  readonly type: string
  /** One line, with what concerns each name. */
  readonly detail: string
}

/** What a problem document (RFC 7807, RFC 8555 §6.7) says; undefined for what is none. */
export function parseProblem(data: unknown): AcmeProblem | undefined {
  const found = Problem.safeParse(data).data
  if (!found || (found.detail === '' && found.type === 'about:blank')) return undefined
  const parts = found.subproblems.map(
    ({ detail, identifier }) => `${identifier ? `${identifier.value}: ` : ''}${detail}`,
  )
  return {
    type: found.type.replace(/^urn:ietf:params:acme:error:/, ''),
    detail: quote([found.detail, ...parts].filter((part) => part !== '').join('; '), 500),
  }
}

const problemOf = ({ status, data }: Answer): AcmeProblem | undefined =>
  status >= 400 ? parseProblem(data) : undefined

/** RFC 9110 §10.2.3: seconds, or a date. In ms. */
export function retryAfterOf(header: string | undefined, now: number): number | undefined {
  if (header === undefined || header === '') return undefined
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now
  return Number.isFinite(ms) ? Math.max(ms, 0) : undefined
}

function failure(url: string, error: unknown): SidecarError {
  if (error instanceof SidecarError) return error
  const code = systemCode(error) ?? ''
  const why = error instanceof Error ? quote(error.message, 200) : String(error)
  const kind: ErrorCode = /CERT|SELF_SIGNED|UNABLE_TO|ALTNAME/.test(code) ? 'ACME_TLS' : 'ACME_UNREACHABLE'
  return new SidecarError(kind, `${url}: ${why}${code === '' ? '' : ` (${code})`}`, { cause: error })
}
