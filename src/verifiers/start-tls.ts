import type { Socket } from 'node:net'
import * as z from 'zod'
import { quote } from '../core/secret.ts'

/** How a protocol comes to TLS. */
interface Opening {
  /** Where it is listened for by default. */
  readonly port: number
  /** What the client says first; undefined where the server does. */
  readonly request?: Buffer
  /** What the answer means, as far as it came: undefined waits for more, `go` begins TLS, anything else is why there is none. */
  judge(answer: Buffer): string | undefined
}

const GO = 'go'

const OPENINGS = {
  /** SSLRequest, answered with one byte (PostgreSQL documentation, "Message Formats", "SSL Session Encryption"). */
  postgres: {
    port: 5432,
    request: Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]),
    judge: (answer) => {
      if (answer.length === 0) return undefined
      // Whatever follows the answer before TLS has come from somebody in between (CVE-2021-23222).
      if (answer.length === 1 && answer[0] === 0x53) return GO
      if (answer[0] === 0x4e) return 'PostgreSQL answers that TLS is off'
      return `the server is no PostgreSQL: it answers "${shown(answer)}"`
    },
  },
  /** The server sends one line of JSON, then waits for TLS (NATS documentation, "Client Protocol", INFO). */
  nats: {
    port: 4222,
    judge: (answer) => {
      const end = answer.indexOf('\r\n')
      if (end < 0) return undefined
      const line = answer.toString('latin1', 0, end)
      if (!line.startsWith('INFO ')) return `the server is no NATS: it says "${shown(answer)}"`
      if (!/"tls_(?:required|available)":\s*true/.test(line)) return 'NATS says that TLS is off'
      return answer.length === end + 2 ? GO : 'NATS says more than a line before TLS'
    },
  },
  /** StartTLS, an extended request (RFC 4511 §4.14); its result code is the one ENUMERATED of the answer. */
  ldap: {
    port: 389,
    request: Buffer.concat([
      Buffer.from([0x30, 0x1d, 0x02, 0x01, 0x01, 0x77, 0x18, 0x80, 0x16]),
      Buffer.from('1.3.6.1.4.1.1466.20037'),
    ]),
    judge: (answer) => {
      if (answer.length < 2 || answer.length < 2 + (answer[1] ?? 0)) return undefined
      const result = answer.indexOf(Buffer.from([0x0a, 0x01]))
      if (answer[0] !== 0x30 || result < 0) return `the server is no LDAP server: it answers "${shown(answer)}"`
      const code = answer[result + 2]
      return code === 0 ? GO : `LDAP refuses StartTLS with result ${code}`
    },
  },
} satisfies Record<string, Opening>

export type StartTls = keyof typeof OPENINGS

/** Protocols in which TLS is asked for first. */
export const START_TLS = ['postgres', 'nats', 'ldap'] as const satisfies readonly StartTls[]

/** Config: one of them. */
export const StartTls = z.enum(START_TLS)

export const defaultPort = (protocol: StartTls | undefined): number => (protocol ? OPENINGS[protocol].port : 443)

/** No greeting is longer; INFO of NATS names all servers of its cluster. */
const MAX_BYTES = 65_536

/**
 * Asks over a connection that is just being made. Resolves with undefined once TLS may begin over it, or with why it may not; rejects with
 * the error of the connection.
 */
export function askForTls(socket: Socket, protocol: StartTls): Promise<string | undefined> {
  const { request, judge }: Opening = OPENINGS[protocol]
  let answer: Buffer = Buffer.alloc(0)
  return new Promise((resolve, reject) => {
    const read = (chunk: Buffer) => {
      answer = Buffer.concat([answer, chunk])
      const verdict = answer.length > MAX_BYTES ? 'the server says too much before TLS' : judge(answer)
      if (verdict === undefined) return
      socket.removeListener('data', read).pause()
      resolve(verdict === GO ? undefined : verdict)
    }
    // Stays attached: the connection may fail at any time.
    socket.on('error', reject)
    socket.once('close', () => resolve('the connection was closed before TLS'))
    socket.on('data', read)
    if (request) socket.write(request)
  })
}

const shown = (answer: Buffer) => quote(answer.toString('latin1'), 60)
