import * as z from 'zod'
import { abortable } from '../abortable.ts'
import { quote } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import { defineLists } from './anchor.ts'
import { blocksOfLists } from './blocks.ts'

const MAX_BYTES = 16 * 1024 * 1024
const ANSWER_MS = 10_000

export const httpLists = defineLists({
  kind: 'http',
  summary:
    'A revocation list from a distribution point (RFC 5280 §4.2.1.13), DER or PEM; it is signed, so http is good enough.',
  options: z.strictObject({
    url: z
      .url({ protocol: /^https?$/, error: 'must be an http or https address' })
      .describe('Where the list is, as the distribution point in certificates says'),
    caFile: z
      .string()
      .regex(/^\/[^\0]*$/, 'must be an absolute path')
      .optional()
      .describe('PEM file of the CAs of the server itself, where it is a private one'),
  }),
  create: ({ url, caFile }) => {
    let last: { readonly etag: string; readonly content: Buffer } | undefined
    return {
      origin: `http ${url}`,
      read: async (signal) => {
        const limit = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)])
        const [{ default: sendRequest }, { default: Agent }] = await Promise.all([
          import('undici/lib/api/api-request.js'),
          import('undici/lib/dispatcher/agent.js'),
        ])
        const { origin, pathname, search } = new URL(url)
        const agent = new Agent({
          connect: { timeout: 5_000, ...(caFile !== undefined && { ca: readPlainFile(caFile) }) },
          maxResponseSize: MAX_BYTES,
          allowH2: false,
        })
        try {
          const headers = { 'user-agent': 'certferry', ...(last && { 'if-none-match': last.etag }) }
          const sent = sendRequest.call(agent, {
            origin,
            path: `${pathname}${search}`,
            method: 'GET',
            headers,
            signal: limit,
          })
          const { statusCode, headers: got, body } = await abortable(sent, limit)
          const content = Buffer.from(await body.arrayBuffer())
          if (statusCode === 304 && last) return blocksOfLists(last.content, url)
          if (statusCode !== 200) throw new SidecarError('CRL_UNREACHABLE', `${url} answers ${statusCode}`)
          const lists = blocksOfLists(content, url)
          const etag = got.etag
          last = typeof etag === 'string' ? { etag, content } : undefined
          return lists
        } catch (error) {
          signal.throwIfAborted()
          if (error instanceof SidecarError) throw error
          const why = limit.aborted
            ? 'no answer in time'
            : error instanceof Error
              ? quote(error.message, 200)
              : String(error)
          throw new SidecarError('CRL_UNREACHABLE', `${url}: ${why}`, { cause: error })
        } finally {
          await agent.destroy()
        }
      },
    }
  },
})
