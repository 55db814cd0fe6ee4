import { chmod, mkdir, rename, unlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { SidecarError, systemCode } from '../errors.ts'
import { listenOn, takeTurn } from './listen.ts'
import type { Responder } from './responder.ts'

const PREFIX = '/.well-known/acme-challenge/'
/** RFC 8555 §8.1: base64url, so a name of a file as it is. */
const TOKEN = /^[\w-]{16,200}$/

/** A server for the time of the order (RFC 8555 §8.3). Says nothing but the answers it was given. */
export async function openHttp01(listen: string, signal: AbortSignal): Promise<Responder> {
  const endTurn = await takeTurn(listen, signal)
  const proofs = new Map<string, string>()
  const server = createServer(
    { headersTimeout: 5_000, requestTimeout: 10_000, connectionsCheckingInterval: 1_000 },
    (request, response) => {
      const [pathname = ''] = (request.url ?? '').split('?', 1)
      const proof = pathname.startsWith(PREFIX) ? proofs.get(pathname.slice(PREFIX.length)) : undefined
      response
        .writeHead(proof === undefined ? 404 : 200, { 'content-type': 'text/plain', connection: 'close' })
        .end(proof)
    },
  )
  server.maxConnections = 64
  await listenOn(server, listen).catch((error) => {
    endTurn()
    throw error
  })
  return {
    present: async ({ token, proof }) => {
      proofs.set(token, proof)
    },
    cleanup: async ({ token }) => {
      proofs.delete(token)
      return undefined
    },
    [Symbol.asyncDispose]: async () => {
      await new Promise((resolve) => {
        server.close(resolve)
        server.closeAllConnections()
      })
      endTurn()
    },
  }
}

/** Files for a server that is there already. Readable by all, whatever the umask, since that is what they are for. */
export async function openWebroot(webroot: string): Promise<Responder> {
  const folders = [join(webroot, '.well-known'), join(webroot, PREFIX)]
  const pathOf = (token: string) => join(webroot, PREFIX, token)
  return {
    present: async ({ token, proof }) => {
      if (!TOKEN.test(token)) throw new SidecarError('BAD_RESPONSE', 'the token of a challenge is no base64url text')
      const path = pathOf(token)
      try {
        for (const folder of folders) await makeReadable(folder)
        await writeFile(`${path}.tmp`, proof)
        await chmod(`${path}.tmp`, 0o644)
        await rename(`${path}.tmp`, path)
      } catch (cause) {
        await unlink(`${path}.tmp`).catch(() => {})
        const why = systemCode(cause) ?? String(cause)
        const message = `the answer to the challenge cannot be written to ${path} (${why})`
        throw new SidecarError('ACME_CHALLENGE_SETUP', message, { cause })
      }
    },
    cleanup: async ({ token }) => {
      if (!TOKEN.test(token)) return undefined
      return unlink(pathOf(token)).then(
        () => undefined,
        (error: unknown) =>
          systemCode(error) === 'ENOENT' ? undefined : `${pathOf(token)} cannot be removed (${systemCode(error)})`,
      )
    },
    [Symbol.asyncDispose]: async () => {},
  }
}

/** A folder that was there before keeps its mode. */
async function makeReadable(folder: string): Promise<void> {
  try {
    await mkdir(folder)
    await chmod(folder, 0o755)
  } catch (error) {
    if (systemCode(error) !== 'EEXIST') throw error
  }
}
