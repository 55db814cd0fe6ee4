import { mask, quote, type Secret } from '../core/secret.ts'
import { type ErrorCode, SidecarError, systemCode } from '../errors.ts'

/** What a system, TLS or undici error of `request` means: while connecting and sending, or while reading the answer. */
export function connectionFailure(
  error: unknown,
  { request, phase, secrets }: { request: string; phase: 'connecting' | 'reading'; secrets: readonly Secret[] },
): SidecarError {
  if (error instanceof SidecarError) return error
  const code = systemCode(error) ?? 'unknown'
  const found = codeOf(code)
  const kept = phase === 'connecting' || found === 'VAULT_TIMEOUT'
  const text =
    error instanceof Error && error.message !== '' ? `${quote(mask(error.message, secrets))} (${code})` : code
  return new SidecarError(kept ? found : 'BAD_RESPONSE', `${request}: ${text}`, { cause: error })
}

/** Marks why no connection came about; undici hands the same error to each request that waited for it. */
export function notConnected(error: Error): Error {
  unconnected.add(error)
  return error
}

const unconnected = new WeakSet<object>()

/** Whether nothing of a request that ended so left this process: it may be sent elsewhere. */
export function wasNeverSent(error: SidecarError): boolean {
  const { code, cause } = error
  if (unconnected.has(error) || (cause instanceof Error && unconnected.has(cause))) return true
  // With TLS 1.3 a server refuses our certificate after the handshake; what was sent by then it does not look at.
  return code === 'VAULT_CLIENT_CERT'
}

/** Whether a request that ended so may have reached Vault, and been carried out. */
export const mayHaveArrived = (error: SidecarError): boolean => LOST.has(error.code) && !wasNeverSent(error)

const LOST: ReadonlySet<ErrorCode> = new Set(['VAULT_UNREACHABLE', 'VAULT_TIMEOUT', 'BAD_RESPONSE'])

function codeOf(code: string): ErrorCode {
  const known = BY_CODE.get(code)
  if (known) return known
  if (code.startsWith('EAI_')) return 'VAULT_DNS'
  if (code.startsWith('HPE_')) return 'BAD_RESPONSE'
  // An alert is what the other side says of us.
  if (/ALERT_(?:\w+_)?(?:CERTIFICATE|CERT|CA)(?:_|$)/.test(code)) return 'VAULT_CLIENT_CERT'
  if (/^(?:ERR_TLS_|ERR_SSL_|ERR_OSSL_|CERT_|UNABLE_TO_|INVALID_|PATH_LENGTH_|CRL_)/.test(code)) return 'VAULT_TLS'
  return 'VAULT_UNREACHABLE'
}

const BY_CODE = new Map<string, ErrorCode>([
  ['ENOTFOUND', 'VAULT_DNS'],
  ['ETIMEDOUT', 'VAULT_TIMEOUT'],
  ['UND_ERR_CONNECT_TIMEOUT', 'VAULT_TIMEOUT'],
  ['UND_ERR_HEADERS_TIMEOUT', 'VAULT_TIMEOUT'],
  ['UND_ERR_BODY_TIMEOUT', 'VAULT_TIMEOUT'],
  ['UND_ERR_HEADERS_OVERFLOW', 'BAD_RESPONSE'],
  ['UND_ERR_RES_EXCEEDED_MAX_SIZE', 'BAD_RESPONSE'],
  ['UND_ERR_RES_CONTENT_LENGTH_MISMATCH', 'BAD_RESPONSE'],
  ['EPROTO', 'VAULT_TLS'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'VAULT_TLS'],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'VAULT_TLS'],
  ['HOSTNAME_MISMATCH', 'VAULT_TLS'],
])

/** The answer, or undefined where the policy does not allow the question: for what nobody has to be allowed. */
export async function unlessDenied<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof SidecarError && error.code === 'PERMISSION_DENIED') return undefined
    throw error
  }
}
