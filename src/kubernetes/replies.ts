import * as z from 'zod'
import { mask, quote, type Secret } from '../core/secret.ts'
import { type ErrorCode, SidecarError } from '../errors.ts'
import type { KubernetesRequest } from './client.ts'
import { nameOf, ruleFor } from './names.ts'

export interface Answer {
  readonly status: number
  readonly text: string
  /** The header, as it came. */
  readonly retryAfter: string | undefined
}

interface Asked {
  readonly request: KubernetesRequest
  /** What no message may repeat, though the answer does. */
  readonly secrets: readonly Secret[]
}

/** The object in an answer. Throws KUBERNETES_* for a refusal, and for an answer that is not as the API documents it. */
export function accept<T>(answer: Answer, schema: z.ZodType<T>, asked: Asked): T {
  const { status, text } = answer
  const body = parseJson(text)
  if (status < 200 || status > 299) throw refusal(answer, body, asked)
  const result = schema.safeParse(body)
  if (result.success) return result.data
  const [issue] = result.error.issues
  // Where it is wrong, not what is there: it may be a Secret.
  const where = body === undefined ? 'it is no JSON' : `${issue?.path.join('.') || 'it'}: ${issue?.message}`
  throw new SidecarError(
    'KUBERNETES_INVALID',
    `cannot ${nameOf(asked.request)}: the answer (${status}) is not what the Kubernetes API documents: ${where}`,
  )
}

/** What the API server says with each refusal (meta/v1 Status). */
const Status = z.object({
  kind: z.literal('Status'),
  message: z.string().optional(),
  reason: z.string().optional(),
  details: z.object({ retryAfterSeconds: z.number().optional() }).optional(),
})

function refusal({ status, text, retryAfter }: Answer, body: unknown, { request, secrets }: Asked): SidecarError {
  const said = Status.safeParse(body).data
  const code = codeOf(status)
  const own = quote(mask(said?.message ?? text, secrets).trim())
  const reason = said?.reason ? `${status} ${quote(said.reason, 60)}` : String(status)
  const lacks =
    code === 'KUBERNETES_DENIED' ? `; what it takes is a rule in a ${ruleFor(request, verbIn(said?.message))}` : ''
  return new SidecarError(code, `cannot ${nameOf(request)} (${reason})${own && `: ${own}`}${lacks}`, {
    retryAfterMs: waitOf(retryAfter) ?? secondsAsMs(said?.details?.retryAfterSeconds),
  })
}

const verbIn = (message = '') => / cannot ([a-z]+) resource /.exec(message)?.[1]

function codeOf(status: number): ErrorCode {
  if (status >= 500 || status === 429 || status === 408) return 'KUBERNETES_UNREACHABLE'
  return BY_STATUS.get(status) ?? 'KUBERNETES_INVALID'
}

const BY_STATUS = new Map<number, ErrorCode>([
  [401, 'KUBERNETES_UNAUTHORIZED'],
  [403, 'KUBERNETES_DENIED'],
  [404, 'KUBERNETES_NOT_FOUND'],
  [409, 'KUBERNETES_CONFLICT'],
  [410, 'KUBERNETES_CONFLICT'],
])

/** The API server gives seconds. */
const waitOf = (header: string | undefined): number | undefined =>
  header !== undefined && /^\d{1,6}$/.test(header) ? Number(header) * 1000 : undefined

const secondsAsMs = (seconds: number | undefined) =>
  seconds === undefined || !(seconds > 0) ? undefined : seconds * 1000

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
