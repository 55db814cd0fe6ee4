import { X509Certificate } from 'node:crypto'
import type { SecureContext } from 'node:tls'
import type { buildConnector } from 'undici'
import createConnector from 'undici/lib/core/connect.js'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import type { VaultOptions } from './options.ts'
import { socketPathOf } from './unix-socket.ts'

type Options = Pick<
  VaultOptions,
  'addresses' | 'caFile' | 'caPem' | 'clientCertFile' | 'clientKeyFile' | 'serverName' | 'timeouts'
>
type Socket = NonNullable<Parameters<buildConnector.Callback>[1]>

/**
 * A new connection for undici; the files are read for each, so that a replaced CA or client certificate needs no restart. Rejects with
 * VAULT_TLS or VAULT_CLIENT_CERT when a file is of no use, otherwise with the error of the system.
 */
export async function openConnection(target: buildConnector.Options, options: Options): Promise<Socket> {
  const isListed = options.addresses.some((address) => new URL(address).hostname === target.hostname)
  const serverName = isListed ? options.serverName : undefined
  const socketPath = socketPathOf(target.hostname, options.addresses)
  const connect = createConnector({
    secureContext: target.protocol === 'https:' ? await secureContext(options) : undefined,
    ...(serverName === undefined ? {} : { servername: serverName }),
    ...(socketPath === undefined ? {} : { socketPath }),
    rejectUnauthorized: true,
    timeout: options.timeouts.connect,
    // A resumed session would skip the check of the certificate.
    maxCachedSessions: 0,
    allowH2: false,
  })
  return new Promise<Socket>((resolve, reject) =>
    connect(target, (...[error, socket]) => {
      if (error) return reject(error)
      // With TLS 1.3 a server refuses our certificate after the handshake. Node reports the alert, then the end of the stream, by which
      // undici would forget the alert.
      socket.once('error', (alert) => socket.destroy(alert))
      resolve(socket)
    }),
  )
}

async function secureContext({ caFile, caPem, clientCertFile, clientKeyFile }: Options): Promise<SecureContext> {
  const trust = { ca: caFile === undefined ? caPem : await readCa(caFile), minVersion: 'TLSv1.2' } as const
  const { createSecureContext } = await import('node:tls')
  if (clientCertFile === undefined || clientKeyFile === undefined) return createSecureContext(trust)
  const cert = await read(clientCertFile, 'VAULT_CLIENT_CERT')
  const key = await read(clientKeyFile, 'VAULT_CLIENT_CERT')
  try {
    return createSecureContext({ ...trust, cert, key })
  } catch {
    // The cause is dropped on purpose: OpenSSL errors may quote the input.
    const trouble = `${clientCertFile} and ${clientKeyFile} are not a certificate and its key`
    throw new SidecarError('VAULT_CLIENT_CERT', trouble)
  }
}

/** OpenSSL takes a file without any certificate for "trust nobody", and reports it as a fault of the server. */
async function readCa(path: string): Promise<string> {
  const text = await read(path, 'VAULT_TLS')
  try {
    new X509Certificate(text)
    return text
  } catch (cause) {
    throw new SidecarError('VAULT_TLS', `${path} does not begin with a certificate in PEM`, { cause })
  }
}

async function read(path: string, code: 'VAULT_TLS' | 'VAULT_CLIENT_CERT'): Promise<string> {
  try {
    return readPlainFile(path).toString('utf8')
  } catch (cause) {
    throw new SidecarError(code, `cannot read ${path} (${systemCode(cause) ?? 'unknown'})`, { cause })
  }
}
