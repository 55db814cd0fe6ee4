import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod'

const READY_MS = 20_000
const MONTH = '720h'

/** A real Vault in development mode with one PKI mount and one role, all in memory. */
export interface BenchVault extends AsyncDisposable {
  readonly address: string
  /** A token that may only issue from the role, as a sidecar would have. */
  readonly token: string
  /** Certificates issued so far. */
  issued(): Promise<number>
}

const TokenReply = z.object({ auth: z.object({ client_token: z.string() }) })
const ListReply = z.object({ data: z.object({ keys: z.array(z.string()) }) })

export async function startVault(program: string, role: string): Promise<BenchVault> {
  const port = await freePort()
  const address = `http://127.0.0.1:${port}`
  const root = 'bench-root'
  const flags = [`-dev-root-token-id=${root}`, '-dev-no-store-token', `-dev-listen-address=127.0.0.1:${port}`]
  const server = spawn(program, ['server', '-dev', ...flags], { stdio: 'ignore' })
  const ended = once(server, 'exit')
  const call = (method: string, path: string, body?: object) => request(`${address}/v1/${path}`, root, method, body)
  const close = async () => {
    server.kill('SIGTERM')
    await ended
  }
  try {
    await waitUntilReady(address, ended)
    await call('POST', 'sys/mounts/pki', { type: 'pki', config: { max_lease_ttl: '8760h' } })
    await call('POST', 'pki/root/generate/internal', {
      common_name: 'bench root',
      key_type: 'ec',
      key_bits: 256,
      ttl: '8760h',
    })
    await call('POST', `pki/roles/${role}`, {
      allow_any_name: true,
      key_type: 'ec',
      key_bits: 256,
      ttl: MONTH,
      max_ttl: MONTH,
    })
    const rules = `path "pki/issue/${role}" { capabilities = ["update"] }\npath "pki/sign/${role}" { capabilities = ["update"] }`
    await call('POST', 'sys/policies/acl/bench', { policy: rules })
    const { auth } = TokenReply.parse(await call('POST', 'auth/token/create', { policies: ['bench'], period: '24h' }))
    return {
      address,
      token: auth.client_token,
      issued: async () => ListReply.parse(await call('LIST', 'pki/certs')).data.keys.length,
      [Symbol.asyncDispose]: close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

async function waitUntilReady(address: string, ended: Promise<unknown>) {
  const stopped = ended.then(() => true)
  for (const deadline = Date.now() + READY_MS; Date.now() < deadline; ) {
    const response = await fetch(`${address}/v1/sys/health`).catch(() => undefined)
    if (response?.ok) return
    if (await Promise.race([stopped, sleep(50, false)])) throw new Error('Vault ended while starting')
  }
  throw new Error(`Vault does not answer at ${address}`)
}

async function request(url: string, token: string, method: string, body?: object): Promise<unknown> {
  const init = { method, headers: { 'x-vault-token': token }, ...(body && { body: JSON.stringify(body) }) }
  const response = await fetch(url, init)
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${await response.text()}`)
  return response.status === 204 ? undefined : response.json()
}

/** Vault takes no port 0; another process could take this one in between, which ends the run with a clear error. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no free port')
  return address.port
}
