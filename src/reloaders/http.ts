import { connect } from 'node:net'
import * as z from 'zod'
import { mask, quote, type Secret } from '../core/secret.ts'
import { formatDuration, Timeout } from '../core/units.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import { testOptions, withTest } from './config-test.ts'
import { AbsolutePath, SecretText } from './options.ts'
import { defineReloader } from './reloader.ts'

const Url = z
  .url({ protocol: /^https?$/, error: 'must be an http or https URL', abort: true })
  .refine((url) => new URL(url).username === '' && new URL(url).password === '', {
    error: 'must not hold a user or password; send credentials with headers',
  })
  .meta({ description: 'What to call', examples: ['http://127.0.0.1:2019/load'] })

const Options = z.strictObject({
  url: Url,
  socket: AbsolutePath.optional().meta({ description: 'Unix socket to connect to instead of the host of the URL' }),
  method: z
    .enum(['POST', 'PUT', 'PATCH', 'GET', 'DELETE'])
    .default('POST')
    .meta({ description: 'Method of the request' }),
  headers: z
    .record(z.string().regex(/^[\w!#$%&'*+.^`|~-]+$/, 'must be a header name'), SecretText)
    .prefault({})
    .meta({ description: 'Headers to send; their values are never printed' }),
  bodyFile: AbsolutePath.optional().meta({
    description:
      'A file to send as the body, such as the configuration that the target is to load again; read anew each time',
  }),
  expectStatus: z.array(z.int().min(100).max(599)).min(1).optional().meta({
    description: 'Status codes that mean success; by default all from 200 to 299. Redirects are not followed',
  }),
  timeout: Timeout.prefault('10s').meta({ description: 'For the whole exchange' }),
  caFile: AbsolutePath.optional().meta({ description: 'CA certificates to trust, in PEM; read anew each time' }),
  ...testOptions,
})
type Options = z.output<typeof Options>

export const http = defineReloader({
  kind: 'http',
  summary: 'Sends an HTTP request, over TCP or a unix socket.',
  options: Options,
  create: (options, deps) => {
    const { origin, pathname } = new URL(options.url)
    const call = `${options.method} ${origin}${pathname}${options.socket ? ` over ${options.socket}` : ''}`
    return withTest(options, deps, {
      kind: 'http',
      description: call,
      inspect: async () => {
        await reach(options).catch((error: unknown) => fail(error, call, options.timeout))
        return `${call}: accepts connections`
      },
      reload: async (_context, signal) => {
        const content = bodyOf(options, call)
        const answer = await send(options, content, signal).catch((error: unknown) => {
          signal.throwIfAborted()
          return fail(error, call, options.timeout)
        })
        const { expectStatus: expected } = options
        if (expected ? expected.includes(answer.status) : answer.status >= 200 && answer.status < 300) return
        const body = answer.body && `: ${answer.body}`
        // Service Unavailable (RFC 9110 §15.6.4) is nobody's refusal: whoever answers speaks for a target that is not there now.
        const code = answer.status === 503 ? 'RELOAD_TARGET_MISSING' : 'RELOAD_FAILED'
        throw new SidecarError(code, `${call} answered with status ${answer.status}${body}`)
      },
    })
  },
})

/** Connects, and says nothing. */
function reach({ url, socket, timeout }: Options): Promise<void> {
  const { protocol, hostname, port } = new URL(url)
  const place = socket
    ? { path: socket }
    : { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) || (protocol === 'https:' ? 443 : 80) }
  return new Promise((resolve, reject) => {
    const tcp = connect({ ...place, signal: AbortSignal.timeout(timeout) })
    tcp.once('error', reject)
    tcp.once('connect', () => {
      tcp.destroy()
      resolve()
    })
  })
}

function bodyOf({ bodyFile }: Options, call: string): Buffer | null {
  try {
    return bodyFile === undefined ? null : readPlainFile(bodyFile)
  } catch (cause) {
    const why = systemCode(cause) ?? (cause instanceof Error ? cause.message : String(cause))
    throw new SidecarError('RELOAD_FAILED', `${call}: its body, ${bodyFile}, cannot be read: ${why}`, { cause })
  }
}

/** A connection of its own each time: a kept one may lead to a worker that is shutting down. */
async function send(
  { url, method, headers, socket, caFile, timeout }: Options,
  body: Buffer | null,
  signal: AbortSignal,
) {
  const ca = caFile === undefined ? {} : { ca: readPlainFile(caFile) }
  const [{ default: Agent }, { default: sendRequest }] = await Promise.all([
    import('undici/lib/dispatcher/agent.js'),
    import('undici/lib/api/api-request.js'),
  ])
  const agent = new Agent({ connect: { ...ca, ...(socket ? { socketPath: socket } : {}) }, pipelining: 0 })
  try {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(timeout)])
    const { origin, pathname, search } = new URL(url)
    const call = { origin, path: `${pathname}${search}`, method, headers: reveal(headers), body, signal: limit }
    const answer = await sendRequest.call(agent, call)
    return { status: answer.statusCode, body: await beginningOf(answer.body, Object.values(headers)) }
  } finally {
    await agent.destroy()
  }
}

const reveal = (headers: Readonly<Record<string, Secret>>) =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.reveal()]))

/** The first 300 characters of a body, without what we sent in confidence; not much more is read. */
async function beginningOf(body: AsyncIterable<Buffer>, secrets: readonly Secret[]): Promise<string> {
  // More than is told, so that a secret is seen whole before the text is cut.
  const enough = 300 + Math.max(0, ...secrets.map((secret) => secret.reveal().length))
  let text = ''
  for await (const chunk of body) {
    text += chunk.toString()
    if (text.length > enough) break
  }
  return quote(mask(text, secrets).trim())
}

/** Without an answer nobody was told: that is no refusal. */
function fail(cause: unknown, call: string, timeoutMs: number): never {
  const code = systemCode(cause)
  const isTimeout =
    (cause instanceof Error && cause.name === 'TimeoutError') || /^UND_ERR_\w+_TIMEOUT$/.test(code ?? '')
  if (isTimeout)
    throw new SidecarError('RELOAD_TIMEOUT', `${call} was not answered within ${formatDuration(timeoutMs)}`, { cause })
  const why = cause instanceof Error && cause.message !== '' ? quote(cause.message) : String(code)
  throw new SidecarError(code === 'EACCES' ? 'RELOAD_EPERM' : 'RELOAD_TARGET_MISSING', `${call} failed: ${why}`, {
    cause,
  })
}
