import * as z from 'zod'
import { mask, quote, type Secret } from '../../core/secret.ts'
import { SidecarError, systemCode } from '../../errors.ts'
import { type HttpRequest, HttpTimeout, openHttp } from '../../http-exchange.ts'

/** A metadata service is on this host, or nowhere; no identity token or set of credentials comes near the size. */
const LIMITS = { connectMs: 2_000, totalMs: 10_000, maxBytes: 64 * 1024 }

export interface CloudRequest extends HttpRequest {
  /** What no message may repeat of the answer. */
  readonly secrets?: readonly Secret[]
}

/**
 * One request to a service of the cloud that this machine runs in, over a connection of its own: no proxy, no redirect. Gives the body. Throws
 * AUTH_SOURCE when the service is away or refuses, for then there is no credential; or the reason of the signal.
 */
export async function askCloud(request: CloudRequest, signal: AbortSignal): Promise<string> {
  await using http = await openHttp(LIMITS)
  try {
    const { status, content } = await http.send(request, signal)
    const text = content.toString('utf8')
    if (status >= 200 && status < 300) return text
    throw refused(request, `${status} ${text}`)
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof SidecarError) throw error
    const why = error instanceof HttpTimeout ? error.message : (systemCode(error) ?? String(error))
    throw refused(request, why, error)
  }
}

/** The same, of an answer in JSON. */
export async function askCloudFor<T>(schema: z.ZodType<T>, request: CloudRequest, signal: AbortSignal): Promise<T> {
  const text = await askCloud(request, signal)
  const { data, error } = z.string().transform(parseJson).pipe(schema).safeParse(text)
  if (error === undefined) return data
  const [issue] = error.issues
  throw refused(request, `the answer is not as documented at "${issue?.path.join('.')}": ${issue?.message}`)
}

function refused({ method = 'GET', url, secrets = [] }: CloudRequest, why: string, cause?: unknown): SidecarError {
  const { origin, pathname } = new URL(url)
  const told = quote(mask(`${method} ${origin}${pathname}: ${why}`, secrets), 400)
  return new SidecarError('AUTH_SOURCE', told, { cause })
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
