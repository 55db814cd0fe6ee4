import { connect as connectTcp } from 'node:net'
import { Duplex } from 'node:stream'
import { type ConnectionOptions, connect } from 'node:tls'
import { fingerprintOf, isIssuedBy, parseCertificates } from '../core/bundle.ts'
import { quote } from '../core/secret.ts'
import type { TrustSet } from '../core/trust.ts'
import { formatDuration } from '../core/units.ts'
import { systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import type { Address } from './address.ts'

interface Endpoint extends Address {
  readonly serverName: string | undefined
  readonly timeoutMs: number
}

/** `missing` says in words what of the set is not in force. */
export type Answer =
  | { readonly up: true; readonly missing: string | undefined }
  | { readonly up: false; readonly why: string }

export interface ClientCertificate {
  readonly certFile: string
  readonly keyFile: string
}

/**
 * Which CAs the target names when it asks for a certificate (RFC 5246 §7.4.4), of a TLS 1.2 handshake, where that is not encrypted. Two CAs of the same
 * name look alike by that. Rejects only with the reason of `signal`.
 */
export async function askNames(endpoint: Endpoint, { anchors }: TrustSet, signal: AbortSignal): Promise<Answer> {
  const seen: Buffer[] = []
  const end = await converse(endpoint, { maxVersion: 'TLSv1.2' }, seen, signal)
  const names = authoritiesIn(handshakeOf(Buffer.concat(seen)))
  if (!names) {
    const why = end.ok ? 'it asks for no client certificate' : end.why
    return end.ok ? { up: true, missing: why } : { up: false, why }
  }
  const { subjectOf } = await loadSubjects()
  const missing = anchors.filter(({ certificate }) => !names.some((name) => name.equals(subjectOf(certificate.raw))))
  const subjects = missing.map(({ certificate }) => `"${quote(certificate.subject)}"`)
  return { up: true, missing: subjects.length === 0 ? undefined : `it does not name ${subjects.join(', ')}` }
}

/** Whether the target takes a certificate that chains to the set. One that does not is no proof of anything, and is told as such. */
export async function showCertificate(
  endpoint: Endpoint,
  { certFile, keyFile }: ClientCertificate,
  { anchors }: TrustSet,
  signal: AbortSignal,
): Promise<Answer> {
  const files = read(certFile, keyFile)
  if ('why' in files) return { up: false, why: files.why }
  const [leaf, ...issuers] = parseCertificates(files.cert.toString('latin1'))
  const chain = leaf ? [leaf, ...issuers] : []
  const isOfOurs = anchors.some(({ certificate }) =>
    chain.some((one) => fingerprintOf(one) === fingerprintOf(certificate) || isIssuedBy(one, certificate)),
  )
  if (!isOfOurs) return { up: false, why: `${certFile} chains to none of the CAs of the set` }
  const end = await converse(endpoint, files, [], signal)
  files.key.fill(0)
  if (end.ok) return { up: true, missing: undefined }
  return end.refused
    ? { up: true, missing: `it refuses the certificate of ${certFile}: ${end.why}` }
    : { up: false, why: end.why }
}

function read(certFile: string, keyFile: string) {
  try {
    return { cert: readPlainFile(certFile), key: readPlainFile(keyFile) }
  } catch (error) {
    return { why: `${certFile} or ${keyFile} cannot be read (${systemCode(error) ?? String(error)})` }
  }
}

async function loadSubjects() {
  await import('reflect-metadata')
  const { X509Certificate } = await import('@peculiar/x509')
  return { subjectOf: (raw: Buffer) => Buffer.from(new X509Certificate(raw).subjectName.toArrayBuffer()) }
}

type End = { readonly ok: true } | { readonly ok: false; readonly refused: boolean; readonly why: string }

const REQUEST = 'GET / HTTP/1.0\r\n\r\n'
/** A server that speaks no HTTP says nothing to the request; with TLS 1.3 its refusal would have come by now. */
const SILENCE_MS = 300

/**
 * A handshake and a request, since with TLS 1.3 a refusal follows the handshake, and nginx tells it in its answer only (status 400). What comes
 * in over the wire is kept in `seen`.
 */
function converse(
  { host, port, serverName, timeoutMs }: Endpoint,
  options: ConnectionOptions,
  seen: Buffer[],
  signal: AbortSignal,
): Promise<End> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const tcp = connectTcp({ host, port })
    const socket = connect({
      socket: tapped(tcp, seen),
      rejectUnauthorized: false,
      ca: [],
      ...(serverName !== undefined && { servername: serverName }),
      ...options,
    })
    const settle = (end: End) => {
      clearTimeout(timer)
      signal.removeEventListener('abort', stop)
      socket.destroy()
      tcp.destroy()
      resolve(end)
    }
    const stop = () => {
      settle({ ok: true })
      reject(signal.reason)
    }
    let timer = setTimeout(
      () => settle({ ok: false, refused: false, why: `no answer within ${formatDuration(timeoutMs)}` }),
      timeoutMs,
    )
    signal.addEventListener('abort', stop, { once: true })
    let isSecure = false
    socket.once('secureConnect', () => {
      isSecure = true
      clearTimeout(timer)
      timer = setTimeout(() => settle({ ok: true }), Math.min(SILENCE_MS, timeoutMs))
      socket.write(REQUEST)
    })
    socket.once('data', (chunk: Buffer) => {
      const status = /^HTTP\/1\.[01] (\d{3})/.exec(chunk.toString('latin1'))?.[1]
      settle(status === '400' ? { ok: false, refused: true, why: 'it answers 400' } : { ok: true })
    })
    const onError = (error: Error) => {
      const code = systemCode(error) ?? ''
      const isAlert = /ALERT|TLSV1|SSLV3/i.test(code)
      settle({ ok: false, refused: isAlert || isSecure, why: quote(error.message, 200) })
    }
    socket.on('error', onError)
    tcp.on('error', onError)
    // Some servers, such as Node, tell no more than that when they refuse.
    const onEnd = () => settle({ ok: false, refused: isSecure, why: 'it closed the connection' })
    socket.once('end', onEnd)
    socket.once('close', onEnd)
  })
}

/** A socket that keeps what it reads. */
function tapped(tcp: ReturnType<typeof connectTcp>, seen: Buffer[]): Duplex {
  const tap = new Duplex({
    read: () => tcp.resume(),
    write: (chunk, _encoding, done) => tcp.write(chunk, done),
    final: (done) => tcp.end(done),
    destroy: (error, done) => {
      tcp.destroy()
      done(error)
    },
  })
  tcp.on('data', (chunk: Buffer) => {
    seen.push(chunk)
    if (!tap.push(chunk)) tcp.pause()
  })
  tcp.once('end', () => tap.push(null))
  return tap
}

const HANDSHAKE = 22
const CERTIFICATE_REQUEST = 13

/** The plain messages of the records (RFC 5246 §6.2.1) up to the first that is something else. */
function handshakeOf(bytes: Buffer): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at + 5 <= bytes.length && bytes[at] === HANDSHAKE; ) {
    const length = bytes.readUInt16BE(at + 3)
    parts.push(bytes.subarray(at + 5, at + 5 + length))
    at += 5 + length
  }
  return Buffer.concat(parts)
}

/** The names in the CertificateRequest, DER each; undefined where none came. */
function authoritiesIn(messages: Buffer): Buffer[] | undefined {
  for (let at = 0; at + 4 <= messages.length; ) {
    const length = messages.readUIntBE(at + 1, 3)
    if (messages[at] === CERTIFICATE_REQUEST) return namesIn(messages.subarray(at + 4, at + 4 + length))
    at += 4 + length
  }
  return undefined
}

/** Certificate types, signature algorithms, then the names, each after its length. */
function namesIn(body: Buffer): Buffer[] {
  let at = 1 + (body[0] ?? 0)
  at += 2 + body.readUInt16BE(at)
  const end = at + 2 + body.readUInt16BE(at)
  const names: Buffer[] = []
  for (at += 2; at + 2 <= end; ) {
    const length = body.readUInt16BE(at)
    names.push(body.subarray(at + 2, at + 2 + length))
    at += 2 + length
  }
  return names
}
