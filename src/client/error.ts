export type TlsErrorCode =
  | 'TLS_SET_MISSING'
  | 'TLS_SET_UNREADABLE'
  | 'TLS_CERTIFICATE_INVALID'
  | 'TLS_KEY_INVALID'
  | 'TLS_PAIR_MISMATCH'
  | 'TLS_CA_INVALID'
  | 'TLS_CONTEXT_REFUSED'

/** Why a set could not be taken; the message names the file. */
export class TlsContextError extends Error {
  override readonly name = 'TlsContextError'
  readonly code: TlsErrorCode

  constructor(code: TlsErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
