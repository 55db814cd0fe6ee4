import * as z from 'zod'
import { mask, quote, type Secret } from '../core/secret.ts'
import { type ErrorCode, SidecarError } from '../errors.ts'
import type { Reply } from './transport.ts'

const LONGEST_RETRY_AFTER_MS = 300_000

/** A reply together with the secrets told to Vault up to now: none of them is in what is quoted of the reply, though it may echo them. */
export interface Answer extends Reply {
  readonly secrets: readonly Secret[]
}

/** A reply that is not what was asked for, as an error. `request` is what was asked, such as `POST pki/sign/web`. */
export function refusal(reply: Answer, request: string, now: number): SidecarError {
  const code = codeOf(reply)
  return new SidecarError(code, sentence(reply, request, code), {
    retryAfterMs: code === 'RATE_LIMITED' ? retryAfterMs(reply.retryAfter, now) : undefined,
  })
}

function sentence(reply: Answer, request: string, code: ErrorCode): string {
  if (code === 'BAD_RESPONSE' && !isVaults(reply)) return `${request} (${reply.status}): ${notVault(reply)}`
  const said = errorsOf(reply)
  const start = reply.status >= 500 ? 'Vault failed at' : 'Vault refused'
  return `${start} ${request} (${reply.status})${said && `: ${said}`}`
}

function codeOf(reply: Reply): ErrorCode {
  const fixed = BY_STATUS.get(reply.status)
  if (fixed) return fixed
  const said = textOf(reply)
  if (reply.status === 503 && /\bsealed\b/i.test(said)) return 'VAULT_SEALED'
  if (NO_ISSUER.test(said)) return 'ISSUER_MISSING'
  if (reply.status >= 500) return 'VAULT_5XX'
  if (!isVaults(reply)) return 'BAD_RESPONSE'
  switch (reply.status) {
    case 400:
      return BY_TEXT.find(([pattern]) => pattern.test(said))?.[1] ?? 'REQUEST_REJECTED'
    case 403:
      return 'PERMISSION_DENIED'
    // Vault gives no reason where the path is served but the thing is not there: reading a role.
    case 404:
      return said === '' && !isKeyValue(reply) ? 'ROLE_MISSING' : 'MOUNT_MISSING'
    // Another engine is mounted there.
    case 405:
      return 'MOUNT_MISSING'
    default:
      return 'BAD_RESPONSE'
  }
}

/** 473 is a performance standby and 472 a disaster-recovery secondary, which `sys/health` tells; see the API docs of it. */
const BY_STATUS = new Map<number, ErrorCode>([
  [412, 'VAULT_NOT_REPLICATED'],
  [429, 'RATE_LIMITED'],
  [472, 'VAULT_UNUSABLE'],
  [473, 'VAULT_UNUSABLE'],
  [501, 'VAULT_UNUSABLE'],
])

/** Vault answers 500 to these, though it is the set-up that lacks something. */
const NO_ISSUER = /unable to find PKI issuer|no default issuer/

const BY_TEXT: [RegExp, ErrorCode][] = [
  [/^unknown role/, 'ROLE_MISSING'],
  [/beyond the expiration of the CA/, 'CA_EXPIRING'],
]

const Errors = z.object({ errors: z.array(z.string()) })

/** The sentences of `errors` in one line, safe to print; empty where there are none. */
export const errorsOf = (reply: Answer): string => quoted(reply, textOf(reply))

function textOf({ body }: Reply): string {
  const { data } = Errors.safeParse(body)
  const plain = (text: string) =>
    text
      .replace(/^\d+ errors? occurred:\s*/, '')
      .split(/\s*\n\s*\*?\s*|^\*\s*/)
      .filter((line) => line !== '')
      .join('; ')
  return (data?.errors ?? []).map(plain).join('; ')
}

/** What Vault adds to what it granted, each safe to print. */
export function warningsOf(reply: Answer): string[] {
  const { data } = Warnings.safeParse(reply.body)
  return (data?.warnings ?? []).map((text) => quoted(reply, text))
}

const Warnings = z.object({ warnings: z.array(z.string()).min(1) })

/** Foreign text of the reply, safe to print. */
const quoted = ({ secrets }: Answer, text: string, limit?: number): string => quote(mask(text, secrets), limit)

/** An answer of Vault is a JSON object; pages of proxies are not. */
export const isVaults = ({ body }: Pick<Reply, 'body'>) =>
  typeof body === 'object' && body !== null && !Array.isArray(body)
/** The key-value engine answers a path it does not know with 404 and a warning instead of errors. */
const isKeyValue = ({ body }: Reply) => Warnings.safeParse(body).success

/**
 * Whether this node serves nobody, and has done nothing: it is sealed, not initialised, a disaster-recovery secondary, or a standby that
 * knows no leader.
 */
export function isUnable(reply: Reply): boolean {
  if (reply.status === 472 || reply.status === 501) return true
  if (reply.status === 503) return /\bsealed\b/i.test(textOf(reply)) || Sealed.safeParse(reply.body).success
  return reply.status === 500 && /\bactive cluster node not found\b/.test(textOf(reply))
}

/** What `sys/health` answers. */
const Sealed = z.object({ sealed: z.literal(true) })

const notVault = (reply: Answer) => `the answer is not Vault's (${quoted(reply, reply.contentType, 60)})`

export const isSuccess = ({ status }: Reply) => status >= 200 && status < 300

/** Parses what Vault promises to answer. Throws BAD_RESPONSE that names the field, never its value. */
export function parseReply<T>(reply: Answer, schema: z.ZodType<T>, request: string): T {
  // 204 has no body, and promises none.
  const body = reply.status === 204 ? {} : reply.body
  if (!isVaults({ body })) throw new SidecarError('BAD_RESPONSE', `${request} (${reply.status}): ${notVault(reply)}`)
  const result = schema.safeParse(body)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const place = quoted(reply, issue?.path.join('.') ?? '', 60)
  const why = quoted(reply, issue?.message ?? '', 120)
  throw new SidecarError(
    'BAD_RESPONSE',
    `${request} (${reply.status}): the answer is not as documented at "${place}": ${why}`,
  )
}

/** Retry-After (RFC 9110 §10.2.3) in ms, at most 5 min: seconds, or a date. */
function retryAfterMs(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), LONGEST_RETRY_AFTER_MS)
}
