import { createSecureContext } from 'node:tls'
import * as z from 'zod'
import { quote } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'
import { openHttp } from '../http-exchange.ts'
import { readPlainFile } from '../plain-file.ts'
import { defineLists } from './anchor.ts'
import { blocksOfLists } from './blocks.ts'

const LIMITS = { connectMs: 5_000, totalMs: 10_000, maxBytes: 16 * 1024 * 1024 }

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
        try {
          const ca = caFile === undefined ? undefined : createSecureContext({ ca: readPlainFile(caFile) })
          await using http = await openHttp(LIMITS, ca)
          const headers = last ? { 'if-none-match': last.etag } : {}
          const { status, headers: got, content } = await http.send({ url, headers }, signal)
          if (status === 304 && last) return blocksOfLists(last.content, url)
          if (status !== 200) throw new SidecarError('CRL_UNREACHABLE', `${url} answers ${status}`)
          const lists = blocksOfLists(content, url)
          last = got.etag === undefined ? undefined : { etag: got.etag, content }
          return lists
        } catch (error) {
          signal.throwIfAborted()
          if (error instanceof SidecarError) throw error
          const why = error instanceof Error ? quote(error.message, 200) : String(error)
          throw new SidecarError('CRL_UNREACHABLE', `${url}: ${why}`, { cause: error })
        }
      },
    }
  },
})
