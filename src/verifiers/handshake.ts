import { X509Certificate } from 'node:crypto'
import { connect as connectTcp, type Socket } from 'node:net'
import {
  connect,
  createSecureContext,
  type DetailedPeerCertificate,
  type SecureContext,
  type TLSSocket,
} from 'node:tls'
import { quote } from '../core/secret.ts'
import { formatDuration } from '../core/units.ts'
import { systemCode } from '../errors.ts'
import type { Address } from './address.ts'
import { askForTls, type StartTls } from './start-tls.ts'

export interface Endpoint extends Address {
  /** Server name to ask for (SNI, RFC 6066 §3); undefined sends none, as clients do that connect to an IP address. */
  readonly serverName: string | undefined
  readonly alpn?: readonly string[] | undefined
  /** The protocol in which TLS is asked for first; undefined where a connection begins with TLS. */
  readonly startTls?: StartTls | undefined
  /**
   * PEM roots to judge the chain by, for `distrust`. The judgement changes nothing about the handshake. With them a look costs memory for
   * good (see `wayUp`), so they are for commands that end.
   */
  readonly ca?: readonly string[] | undefined
  readonly timeoutMs: number
  /** Asks for an OCSP response as well (status_request, RFC 6066 §8). */
  readonly staple?: boolean
}

/** The leaf first; then, with `ca`, whatever else the server sent, in its order; without, its issuers as far as they were sent. */
export type Chain = readonly [X509Certificate, ...X509Certificate[]]

/** What one fresh connection showed. */
export type Look =
  | {
      readonly up: true
      readonly chain: Chain
      /** `TLSv1.3`; undefined when the server refused us after it had shown its certificate. */
      readonly protocol: string | undefined
      /** OpenSSL's verdict on the chain, such as CERT_HAS_EXPIRED; undefined when it trusts it, or never got to judge. */
      readonly distrust: string | undefined
      /** The OCSP response that was shown, where one was asked for. */
      readonly staple?: Buffer | undefined
    }
  | { readonly up: false; readonly why: string }

/**
 * One TLS handshake over a new TCP connection, without a session to resume: a resumed one shows no certificate. Any certificate is
 * accepted; the caller judges. A server that wants a client certificate has shown its own by the time it refuses ours: that counts as
 * an answer. Rejects only with the reason of `signal`.
 */
export function handshake(endpoint: Endpoint, signal: AbortSignal): Promise<Look> {
  const { host, port, serverName, alpn, startTls, ca = [], timeoutMs, staple: requestOCSP = false } = endpoint
  const [secureContext, chainOf] =
    ca.length > 0 ? [createSecureContext({ ca: [...ca] }), allSent] : [trustingNobody(), wayUp]
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const options = {
      rejectUnauthorized: false,
      ...(serverName === undefined ? {} : { servername: serverName }),
      ...(alpn && { ALPNProtocols: [...alpn] }),
      secureContext,
      requestOCSP,
    }
    let socket: Socket | undefined
    const settle = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
    }
    const stop = () => {
      settle()
      socket?.destroy()
      reject(signal.reason)
    }
    const fail = (why: string) => {
      settle()
      socket?.destroy()
      resolve({ up: false, why })
    }
    const timer = setTimeout(() => fail(`no TLS handshake within ${formatDuration(timeoutMs)}`), timeoutMs)
    signal.addEventListener('abort', stop, { once: true })
    const lookOver = (secured: TLSSocket) => {
      socket = secured
      let staple: Buffer | undefined
      secured.on('OCSPResponse', (response: Buffer | null) => {
        staple = response?.length ? response : undefined
      })
      const seen = () => {
        const look = lookAt(secured, chainOf)
        return look?.up && requestOCSP ? { ...look, staple } : look
      }
      secured.once('secureConnect', () => {
        settle()
        resolve(seen() ?? { up: false, why: 'the server presented no certificate' })
        secured.destroySoon()
      })
      // Stays attached: an error may follow after we have seen enough.
      secured.on('error', (error) => {
        settle()
        resolve(seen() ?? { up: false, why: explain(error) })
      })
    }
    try {
      if (startTls === undefined) return lookOver(connect({ host, port, ...options }))
      const plain = connectTcp({ host, port })
      socket = plain
      askForTls(plain, startTls).then(
        (refusal) => (refusal === undefined ? lookOver(connect({ socket: plain, ...options })) : fail(refusal)),
        (error) => fail(explain(error)),
      )
    } catch (error) {
      // A defect; nothing of this must go on.
      settle()
      reject(error)
    }
  })
}

let nobody: SecureContext | undefined

/**
 * One for all connections: a context holds memory that V8 does not know of and so is in no hurry to free, and a rotation looks ten times.
 * The empty list keeps Node from loading all its roots.
 */
function trustingNobody(): SecureContext {
  nobody ??= createSecureContext({ ca: [] })
  return nobody
}

function lookAt(socket: TLSSocket, chainOf: (socket: TLSSocket) => X509Certificate[]): Look | undefined {
  const [leaf, ...others] = chainOf(socket)
  if (!leaf) return undefined
  // Node's types say Error; it is the code of OpenSSL as a string, or null.
  const error: unknown = socket.authorizationError
  return {
    up: true,
    chain: [leaf, ...others],
    protocol: socket.getProtocol() ?? undefined,
    distrust: typeof error === 'string' ? error : systemCode(error),
  }
}

/**
 * The way up from the leaf, as far as it was sent; the context trusts nobody, so Node adds nothing. Goes through DER, because each call of
 * `getPeerX509Certificate` leaks the issuers that were sent, some 15 kB: it takes them out of OpenSSL's list and frees only copies
 * (nodejs/node, src/crypto/crypto_x509.cc, X509Certificate::New).
 */
function wayUp(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = []
  // Node's types know neither null, for a socket that is closed, nor the empty object, for one without a certificate.
  let next: Partial<DetailedPeerCertificate> | null | undefined = socket.getPeerCertificate(true)
  for (let last: unknown; next?.raw && next !== last; next = next.issuerCertificate) {
    chain.push(new X509Certificate(next.raw))
    last = next
  }
  return chain
}

/** All that was sent. `issuerCertificate` is simply the next certificate, related or not. For a command that ends soon, see `wayUp`. */
function allSent(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = []
  for (let next = socket.getPeerX509Certificate(); next; next = next.issuerCertificate) chain.push(next)
  return chain
}

function explain(error: Error): string {
  const code = systemCode(error) ?? ''
  const reason = 'reason' in error && typeof error.reason === 'string' ? error.reason : error.message
  return EXPLAINED[code] ?? quote(reason === '' ? code : reason)
}

const EXPLAINED: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection was closed during the handshake',
  ENOTFOUND: 'the host name does not resolve',
  EAI_AGAIN: 'the host name does not resolve at the moment',
  ERR_SSL_WRONG_VERSION_NUMBER: 'the server does not speak TLS on this port',
}
