import { createHash, createPublicKey, randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import { createSecureContext, createServer, type SecureContext } from 'node:tls'
import { keyPem } from '../core/bundle.ts'
import { isIP } from '../core/ip.ts'
import { generateKey } from '../core/key.ts'
import { listenOn, takeTurn } from './listen.ts'
import type { Responder, Wanted } from './responder.ts'

/** RFC 8737 §3. */
const PROTOCOL = 'acme-tls/1'
const ACME_IDENTIFIER = '1.3.6.1.5.5.7.1.31'
const DAY_MS = 86_400_000

/** A TLS server for the time of the order, which shows nothing but certificates of challenges. */
export async function openTlsAlpn01(listen: string, signal: AbortSignal): Promise<Responder> {
  const endTurn = await takeTurn(listen, signal)
  const contexts = new Map<string, SecureContext>()
  const server = createServer(
    {
      ALPNProtocols: [PROTOCOL],
      SNICallback: (name, done) => {
        const context = contexts.get(name.toLowerCase())
        done(context ? null : new Error('no challenge of this name'), context)
      },
      handshakeTimeout: 10_000,
    },
    (socket) => socket.end(),
  )
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.on('error', () => {})
  })
  // Whoever is no CA is refused; that is no event.
  server.on('tlsClientError', () => {})
  server.maxConnections = 64
  await listenOn(server, listen).catch((error) => {
    endTurn()
    throw error
  })
  return {
    present: async (wanted) => {
      contexts.set(sniOf(wanted.name), await contextOf(wanted))
    },
    cleanup: async ({ name }) => {
      contexts.delete(sniOf(name))
      return undefined
    },
    [Symbol.asyncDispose]: async () => {
      await new Promise((resolve) => {
        server.close(resolve)
        for (const socket of sockets) socket.destroy()
      })
      endTurn()
    },
  }
}

/** RFC 8738 §6: an address is asked for by its reverse name. */
function sniOf(name: string): string {
  if (isIP(name) === 4) return `${name.split('.').toReversed().join('.')}.in-addr.arpa`
  if (isIP(name) === 0) return name.toLowerCase()
  const [head = '', tail = ''] = new URL(`http://[${name}]`).hostname.replace(/^\[|\]$/g, '').split('::')
  const groups = (text: string) => (text === '' ? [] : text.split(':'))
  const missing = 8 - groups(head).length - groups(tail).length
  const all = [...groups(head), ...Array<string>(missing).fill('0'), ...groups(tail)]
  const digits = all.map((group) => group.padStart(4, '0')).join('')
  return `${[...digits].toReversed().join('.')}.ip6.arpa`
}

/** A self-signed certificate with the digest of the key authorization in a critical extension. */
async function contextOf({ name, proof }: Wanted): Promise<SecureContext> {
  await import('reflect-metadata')
  const x509 = await import('@peculiar/x509')
  const key = await generateKey('ecdsa-p256')
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' })
  const now = Date.now()
  const digest = createHash('sha256').update(proof).digest()
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: `4${randomBytes(16).toString('hex').slice(1)}`,
    subject: 'CN=ACME challenge',
    issuer: 'CN=ACME challenge',
    notBefore: new Date(now - DAY_MS),
    notAfter: new Date(now + DAY_MS),
    publicKey: new x509.PublicKey(spki),
    signingKey: key.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']),
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    extensions: [
      new x509.SubjectAlternativeNameExtension([{ type: isIP(name) === 0 ? 'dns' : 'ip', value: name }]),
      // An OCTET STRING of 32 bytes.
      new x509.Extension(ACME_IDENTIFIER, true, Buffer.concat([Buffer.of(0x04, 32), digest])),
    ],
  })
  const secret = keyPem(key)
  try {
    return createSecureContext({ key: secret, cert: certificate.toString('pem') })
  } finally {
    secret.fill(0)
  }
}
