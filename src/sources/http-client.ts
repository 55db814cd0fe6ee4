import { X509Certificate } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import { mask, quote, Secret } from '../core/secret.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { HttpTimeout, openHttp } from '../http-exchange.ts'
import { readPlainFile } from '../plain-file.ts'

/** A certificate with its chain and key has some kB. */
const LIMITS = { connectMs: 3_000, totalMs: 30_000, maxBytes: 1024 * 1024 }

export interface HttpPlace {
  readonly url: string
  readonly caFile: string | undefined
  readonly clientCertFile: string | undefined
  readonly clientKeyFile: string | undefined
  /** Sent as `Authorization: Bearer`. */
  readonly tokenFile: string | undefined
  /** By header, the file that holds its value. */
  readonly headerFiles: Readonly<Record<string, string>>
}

/** What tells an answer from an earlier one (RFC 9110 §8.8). */
export interface Validators {
  readonly etag: string | undefined
  readonly lastModified: string | undefined
}

export interface Download extends Validators {
  readonly content: Buffer
}

/** For messages: a query may hold a token. */
export const nameOf = (url: string): string => {
  const { origin, pathname } = new URL(url)
  return quote(`${origin}${pathname}`)
}

/**
 * GET over a connection of its own, so that CA, client certificate and headers are as their files are now. Undefined for 304. Follows no
 * redirect; ignores proxies, and NODE_TLS_REJECT_UNAUTHORIZED. Throws URL_UNREACHABLE, URL_REFUSED or URL_CREDENTIALS, or the reason of the
 * signal.
 */
export async function download(
  place: HttpPlace,
  { etag, lastModified }: Validators,
  signal: AbortSignal,
): Promise<Download | undefined> {
  const name = `GET ${nameOf(place.url)}`
  const { protocol } = new URL(place.url)
  const secrets = secretHeaders(place)
  const secureContext = protocol === 'https:' ? contextOf(place) : undefined
  await using http = await openHttp(LIMITS, secureContext)
  const headers = {
    accept: '*/*',
    // A cache in between asks anew.
    'cache-control': 'no-cache',
    ...(etag !== undefined && { 'if-none-match': etag }),
    ...(lastModified !== undefined && { 'if-modified-since': lastModified }),
    ...Object.fromEntries(secrets.map(([header, value]) => [header, value.reveal()])),
  }
  try {
    const { status, headers: got, content } = await http.send({ url: place.url, headers }, signal)
    if (status === 304 && (etag ?? lastModified) !== undefined) return undefined
    if (status !== 200) throw refusal(name, status, { location: got.location, retryAfter: got['retry-after'] })
    return { content, etag: got.etag, lastModified: got['last-modified'] }
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof SidecarError) throw error
    if (error instanceof HttpTimeout)
      throw new SidecarError('URL_UNREACHABLE', `${name}: ${error.message}`, { cause: error })
    const values = secrets.map(([, value]) => value)
    throw failureOf(error, name, values)
  }
}

function refusal(
  name: string,
  status: number,
  { location, retryAfter }: { location: string | undefined; retryAfter: string | undefined },
): SidecarError {
  if (status >= 300 && status < 400 && location !== undefined) {
    const to = URL.canParse(location, 'https://relative') ? nameOf(new URL(location, 'https://relative').href) : '?'
    const shown = to.replace(/^https:\/\/relative/, '')
    return new SidecarError(
      'URL_REFUSED',
      `${name} (${status}) leads to ${shown}; redirects are not followed, give that`,
    )
  }
  const isTemporary = status >= 500 || status === 429 || status === 408
  const retryAfterMs = /^\d{1,6}$/.test(retryAfter ?? '') ? Number(retryAfter) * 1000 : undefined
  return new SidecarError(isTemporary ? 'URL_UNREACHABLE' : 'URL_REFUSED', `${name} was answered with ${status}`, {
    retryAfterMs,
  })
}

function failureOf(error: unknown, name: string, secrets: readonly Secret[]): SidecarError {
  const code = systemCode(error) ?? 'unknown'
  if (code === 'UND_ERR_RES_EXCEEDED_MAX_SIZE')
    return new SidecarError('URL_REFUSED', `${name}: the answer is larger than 1 MiB`, { cause: error })
  // An alert is what the other side says of our certificate.
  const isOurs = /ALERT_(?:\w+_)?(?:CERTIFICATE|CERT|CA)(?:_|$)/.test(code)
  const text = error instanceof Error ? quote(mask(error.message, secrets)) : ''
  return new SidecarError(isOurs ? 'URL_CREDENTIALS' : 'URL_UNREACHABLE', `${name}: ${text} (${code})`, {
    cause: error,
  })
}

/** Each header with what its file holds now. */
function secretHeaders({ tokenFile, headerFiles }: HttpPlace): [string, Secret][] {
  const value = (file: string) => {
    const text = read(file).toString('utf8').trim()
    // What a header can carry.
    if (/^[\x20-\x7e]+$/.test(text)) return text
    throw new SidecarError(
      'URL_CREDENTIALS',
      `${file} ${text === '' ? 'is empty' : 'holds more than a header can carry'}`,
    )
  }
  return [
    ...(tokenFile === undefined
      ? []
      : [['authorization', new Secret(`Bearer ${value(tokenFile)}`)] as [string, Secret]]),
    ...Object.entries(headerFiles).map(([name, file]): [string, Secret] => [
      name.toLowerCase(),
      new Secret(value(file)),
    ]),
  ]
}

function contextOf({ caFile, clientCertFile, clientKeyFile }: HttpPlace): SecureContext {
  const ca = caFile === undefined ? undefined : read(caFile)
  // OpenSSL takes a file without any certificate for "trust nobody", and reports it as a fault of the server.
  if (ca) assertCertificate(ca, caFile ?? '')
  const trust = { ...(ca && { ca }), minVersion: 'TLSv1.2' } as const
  if (clientCertFile === undefined || clientKeyFile === undefined) return createSecureContext(trust)
  const [cert, key] = [read(clientCertFile), read(clientKeyFile)]
  try {
    return createSecureContext({ ...trust, cert, key })
  } catch {
    // The cause is dropped on purpose: OpenSSL errors may quote the input.
    const trouble = `${clientCertFile} and ${clientKeyFile} are not a certificate and its key`
    throw new SidecarError('URL_CREDENTIALS', trouble)
  } finally {
    key.fill(0)
  }
}

function assertCertificate(pem: Buffer, path: string): void {
  try {
    new X509Certificate(pem)
  } catch (cause) {
    throw new SidecarError('URL_CREDENTIALS', `${path} does not begin with a certificate in PEM`, { cause })
  }
}

function read(path: string): Buffer {
  try {
    return readPlainFile(path)
  } catch (cause) {
    throw new SidecarError('URL_CREDENTIALS', `cannot read ${path} (${systemCode(cause) ?? 'unknown'})`, { cause })
  }
}
