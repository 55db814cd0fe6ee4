import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startServerAlone } from './alone.ts'
import { component } from './components.ts'
import { freePort } from './vault.ts'

/** A constant, because the programs that tests and helpers ask for by name are built before the tests start. */
export const CONSUL = 'consul'

/** A real Consul, a cluster of one in memory, that denies whatever no token allows. */
export interface TestConsul extends AsyncDisposable {
  /** Host and port. */
  readonly address: string
  /** Of the one who may do everything. */
  readonly token: string
  /** Whether Consul knows this token now. Throws when it does not answer. */
  knows(token: string): Promise<boolean>
}

export async function startConsul(): Promise<TestConsul> {
  const program = await component(CONSUL)
  const folder = await mkdtemp(join(tmpdir(), 'certferry-consul-'))
  const remove = () => rm(folder, { recursive: true, force: true })
  const [port, token] = [await freePort(), 'management']
  const address = `127.0.0.1:${port}`
  const knows = async (asked: string) => {
    const reply = await fetch(`http://${address}/v1/acl/token/self`, { headers: { 'X-Consul-Token': asked } })
    if (reply.status === 200 || reply.status === 403) return reply.status === 200
    throw new Error(`Consul answers ${reply.status}: ${await reply.text()}`)
  }
  try {
    const config = join(folder, 'consul.json')
    const acl = { enabled: true, default_policy: 'deny', tokens: { initial_management: token } }
    await writeFile(config, JSON.stringify({ acl, ports: await ports(port) }), { mode: 0o600 })
    const place = ['-bind=127.0.0.1', '-client=127.0.0.1', `-config-file=${config}`]
    const isReady = () => knows(token)
    const server = await startServerAlone([program, 'agent', '-dev', ...place], { title: 'Consul', isReady })
    return {
      address,
      token,
      knows,
      [Symbol.asyncDispose]: async () => {
        await server.stop()
        await remove()
      },
    }
  } catch (error) {
    await remove()
    throw error
  }
}

/** None but those that it cannot do without. */
const ports = async (http: number) => ({
  http,
  server: await freePort(),
  serf_lan: await freePort(),
  serf_wan: -1,
  dns: -1,
  grpc: -1,
  grpc_tls: -1,
})
