import { connect } from 'node:tls'

/** What the client has seen so far. */
export interface Tally {
  made: number
  failed: number
  /** Serial numbers in the order in which they were first seen. */
  readonly serials: string[]
  lastFailure: string | undefined
}

const BETWEEN_MS = 5

/** Opens one TLS connection after the other, each fresh and fully verified against `ca`, until `signal` aborts. */
export async function hammer(
  port: number,
  serverName: string,
  ca: string,
  tally: Tally,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      const serial = await handshake(port, serverName, ca)
      tally.made += 1
      if (tally.serials.at(-1) !== serial) tally.serials.push(serial)
    } catch (error) {
      if (signal.aborted) return
      tally.failed += 1
      tally.lastFailure = error instanceof Error ? error.message : String(error)
    }
    await new Promise((resolve) => setTimeout(resolve, BETWEEN_MS))
  }
}

function handshake(port: number, servername: string, ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, servername, ca, rejectUnauthorized: true, timeout: 2_000 })
    socket.once('secureConnect', () => {
      // Not getPeerX509Certificate, which leaks (see `wayUp` in verifiers/handshake.ts).
      const { serialNumber } = socket.getPeerCertificate()
      socket.destroy()
      if (serialNumber !== undefined) resolve(serialNumber.toLowerCase())
      else reject(new Error('the server showed no certificate'))
    })
    socket.once('timeout', () => socket.destroy(new Error('no handshake within 2 s')))
    socket.once('error', reject)
  })
}
