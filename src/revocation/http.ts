import { quote } from '../core/secret.ts'
import { type ErrorCode, SidecarError, systemCode } from '../errors.ts'
import { openHttp } from '../http-exchange.ts'

const LIMITS = { connectMs: 5_000, totalMs: 5_000 }

export interface Download {
  readonly url: string
  /** Sent by POST. */
  readonly body?: { readonly type: string; readonly bytes: Buffer }
  readonly maxBytes: number
  /** Of the error where it does not work. */
  readonly code: ErrorCode
}

/** The body of one answer with status 200. Throws `code`, and the reason of `signal`. */
export async function download({ url, body, maxBytes, code }: Download, signal: AbortSignal): Promise<Buffer> {
  await using http = await openHttp({ ...LIMITS, maxBytes })
  const posted = body && ({ method: 'POST', headers: { 'content-type': body.type }, body: body.bytes } as const)
  try {
    const { status, content } = await http.send({ url, ...posted }, signal)
    if (status === 200) return content
    throw new SidecarError(code, `${url} answered ${status}`)
  } catch (thrown) {
    signal.throwIfAborted()
    if (thrown instanceof SidecarError) throw thrown
    const why = systemCode(thrown) ?? (thrown instanceof Error ? thrown.message : String(thrown))
    throw new SidecarError(code, `${url} did not answer: ${quote(why)}`, { cause: thrown })
  }
}
