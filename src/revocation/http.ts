import { quote } from '../core/secret.ts'
import { type ErrorCode, SidecarError, systemCode } from '../errors.ts'

const TIMEOUT_MS = 5_000

export interface Download {
  readonly url: string
  /** Sent by POST. */
  readonly body?: { readonly type: string; readonly bytes: Buffer }
  readonly maxBytes: number
  /** Of the error where it does not work. */
  readonly code: ErrorCode
}

/** The body of one answer with status 200. Follows no redirect, ignores proxies. Throws `code`, and the reason of `signal`. */
export async function download({ url, body, maxBytes, code }: Download, signal: AbortSignal): Promise<Buffer> {
  // Loaded at the first request: a start asks nobody.
  const [{ default: sendRequest }, { default: Agent }] = await Promise.all([
    import('undici/lib/api/api-request.js'),
    import('undici/lib/dispatcher/agent.js'),
  ])
  const agent = new Agent({
    connect: { timeout: TIMEOUT_MS },
    connections: 1,
    maxResponseSize: maxBytes,
    allowH2: false,
  })
  const { origin, pathname, search } = new URL(url)
  try {
    const response = await sendRequest.call(agent, {
      origin,
      path: pathname + search,
      method: body ? 'POST' : 'GET',
      headers: { 'user-agent': 'certferry', ...(body && { 'content-type': body.type }) },
      body: body?.bytes ?? null,
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    })
    const bytes = Buffer.from(await response.body.arrayBuffer())
    if (response.statusCode === 200) return bytes
    throw new SidecarError(code, `${url} answered ${response.statusCode}`)
  } catch (thrown) {
    signal.throwIfAborted()
    if (thrown instanceof SidecarError) throw thrown
    const why = systemCode(thrown) ?? (thrown instanceof Error ? thrown.message : String(thrown))
    throw new SidecarError(code, `${url} did not answer: ${quote(why)}`, { cause: thrown })
  } finally {
    await agent.destroy()
  }
}
