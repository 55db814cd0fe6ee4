import { once } from 'node:events'
import type { Server } from 'node:net'
import { createSecureContext, createServer, type SecureContext, type TLSSocket, type TlsOptions } from 'node:tls'
import { type Clock, systemClock } from '../../src/clock.ts'
import type { Issued } from '../support/ca.ts'

export const never = new AbortController().signal

/** What a server presents: the leaf, and its intermediates unless `alone`. */
export const contextOf = ({ keyPem, certificatePem, chainPems }: Issued, { alone = false } = {}): SecureContext =>
  createSecureContext({ key: keyPem, cert: [certificatePem, ...(alone ? [] : chainPems.slice(0, -1))].join('') })

/** A TLS server that chooses the certificate anew for each handshake, given its number (from 1) and the name asked for. */
export async function tlsServer(
  choose: (handshake: number, serverName: string) => SecureContext,
  options: TlsOptions = {},
) {
  const seen = { handshakes: 0, names: [] as string[], sockets: [] as TLSSocket[] }
  const server = createServer(
    {
      ...options,
      SNICallback: (name, callback) => {
        seen.handshakes += 1
        seen.names.push(name)
        callback(null, choose(seen.handshakes, name))
      },
    },
    (socket) => {
      seen.sockets.push(socket)
      socket.on('error', () => {}).resume()
    },
  ).on('tlsClientError', () => {})
  const { port, [Symbol.asyncDispose]: dispose } = await listening(server)
  return { port, seen, [Symbol.asyncDispose]: dispose }
}

/** Listens on a port of 127.0.0.1 until the end of the scope. */
export async function listening(server: Server, port = 0) {
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    [Symbol.asyncDispose]: async () => {
      server.close()
      await once(server, 'close')
    },
  }
}

/** Time that passes only in sleeps: `onSleep` is told how long it is since the start. */
export function createTime(onSleep: (elapsed: number) => void | Promise<void> = () => {}) {
  let elapsed = 0
  const clock: Clock = {
    ...systemClock,
    elapsed: () => elapsed,
    sleep: async (ms, signal) => {
      signal?.throwIfAborted()
      elapsed += ms
      await onSleep(elapsed)
    },
  }
  return { clock, elapsed: () => elapsed }
}
