import * as z from 'zod'
import { type Bundle, newerOf } from '../core/bundle.ts'
import { bundleOf, isPkcs12, type Password, passwordIn } from '../core/material.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import { isLoopback } from '../vault/loopback.ts'
import { poll } from '../vault/paths.ts'
import { heldSource } from './held.ts'
import type { Validators } from './http-client.ts'
import { defineSource } from './source.ts'
import { warnOfUnrelated } from './unrelated.ts'

const File = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path')
const Url = z
  .url({ error: 'must be an address such as https://certs.example.com/web.pem', abort: true })
  .refine((url) => isSafe(new URL(url)), { error: 'must use https; http is accepted on a loopback address only' })
  .refine((url) => new URL(url).username === '' && new URL(url).password === '', {
    error: 'must not hold a user or password; use tokenFile or headerFiles',
  })

const isSafe = ({ protocol, hostname }: URL) => protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname))

const Options = z
  .strictObject({
    url: Url.describe('Where the certificate, its issuers and its key are: PEM in one answer, or a PKCS#12 file'),
    passwordFile: File.optional().describe('Its first line is the password of the private key, or of the PKCS#12 file'),
    caFile: File.optional().describe(
      'PEM file of the CAs that may sign for the server; those of the system unless given',
    ),
    clientCertFile: File.optional().describe('Client certificate (mTLS), PEM with its issuers'),
    clientKeyFile: File.optional().describe('Its private key'),
    tokenFile: File.optional().describe('A token, sent as Authorization: Bearer'),
    headerFiles: z
      .record(z.string().regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/, 'must be the name of a header'), File)
      .prefault({})
      .describe('Further headers, each with the file that holds its value'),
    poll,
  })
  .refine(({ clientCertFile, clientKeyFile }) => (clientCertFile === undefined) === (clientKeyFile === undefined), {
    error: 'needs both clientCertFile and clientKeyFile, or neither',
  })

export const http = defineSource({
  kind: 'http',
  summary:
    'A certificate and its key from an https address, PEM or PKCS#12, asked for again with ETag or If-Modified-Since.',
  options: Options,
  create: ({ url, passwordFile, poll, ...more }, { clock: { now, random }, warn }) => {
    const { origin: server, pathname } = new URL(url)
    const place = `${server}${pathname}`
    const origin = `http ${place}`
    const { caFile, clientCertFile, clientKeyFile, tokenFile, headerFiles } = more
    const from = { url, caFile, clientCertFile, clientKeyFile, tokenFile, headerFiles }
    let last: (Validators & { readonly bundle: Bundle }) | undefined
    const fetch = async (signal: AbortSignal): Promise<Bundle> => {
      signal.throwIfAborted()
      const { download } = await import('./http-client.ts')
      const found = await download(from, last ?? { etag: undefined, lastModified: undefined }, signal)
      if (!found && last) return last.bundle
      if (!found) throw new SidecarError('URL_REFUSED', `${place} says that nothing is new, and was not asked that`)
      const piece = { place, content: found.content }
      const password = passwordFile === undefined ? undefined : readPassword(passwordFile)
      const material = isPkcs12(piece)
        ? { pkcs12: piece, issuers: [], password }
        : { certificate: piece, key: undefined, issuers: [], password }
      try {
        const fresh = await bundleOf(material, { origin, receivedAt: now(), options: WORDS })
        const bundle = last ? newerOf(last.bundle, fresh) : fresh
        if (bundle !== last?.bundle) warnOfUnrelated(bundle, place, warn)
        last = { bundle, etag: found.etag, lastModified: found.lastModified }
        return bundle
      } finally {
        piece.content.fill(0)
      }
    }
    return heldSource({ origin, place, poll, random, fetch })
  },
})

const WORDS = { key: 'a URL that holds both', password: 'passwordFile', pkcs12: 'it stands' }

function readPassword(place: string): Password {
  try {
    return passwordIn({ place, content: readPlainFile(place) })
  } catch (cause) {
    throw new SidecarError('INPUT_MISSING', `${place} cannot be read (${systemCode(cause) ?? 'unknown'})`, { cause })
  }
}
