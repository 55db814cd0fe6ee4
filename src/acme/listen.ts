import type { Server } from 'node:net'
import { abortable } from '../abortable.ts'
import { SidecarError, systemCode } from '../errors.ts'

/** Resolves once `server` listens. Throws ACME_CHALLENGE_SETUP where it cannot. */
export function listenOn(server: Server, address: string): Promise<void> {
  const host = address.slice(0, address.lastIndexOf(':')).replace(/^\[|\]$/g, '')
  const port = Number(address.slice(address.lastIndexOf(':') + 1))
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const why = WHY[systemCode(cause) ?? ''] ?? cause.message
      reject(new SidecarError('ACME_CHALLENGE_SETUP', `challenge.listen ${address}: ${why}`, { cause }))
    })
    server.listen({ host, port }, () => resolve())
  })
}

const WHY: Readonly<Record<string, string>> = {
  EADDRINUSE: 'somebody else listens there; let that server pass the challenge on, or use webroot',
  EACCES: 'this user may not listen there; ports below 1024 need CAP_NET_BIND_SERVICE',
  EADDRNOTAVAIL: 'this machine has no such address',
}

/** By address, until when somebody of this process listens there. */
const turns = new Map<string, Promise<void>>()

/** Certificates whose challenges are answered at one address take turns. Resolves with what ends the turn; rejects with the reason of `signal`. */
export async function takeTurn(address: string, signal: AbortSignal): Promise<() => void> {
  const before = turns.get(address) ?? Promise.resolve()
  const { promise, resolve } = Promise.withResolvers<void>()
  const until = before.then(() => promise)
  turns.set(address, until)
  const end = () => {
    if (turns.get(address) === until) turns.delete(address)
    resolve()
  }
  try {
    await abortable(before, signal)
    return end
  } catch (error) {
    end()
    throw error
  }
}
