import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startServerAlone } from './alone.ts'
import { component } from './components.ts'
import type { Credentials } from './postgres.ts'
import { freePort } from './vault.ts'

/** A real RabbitMQ with its management plugin, on free loopback ports. */
export interface TestRabbitmq extends AsyncDisposable {
  /** Of the management API. */
  readonly url: string
  /** The administrator. */
  readonly admin: Credentials
  /** Whether they may log in now, by a real request to the management API. Throws when the server does not answer. */
  canLogIn(credentials: Credentials): Promise<boolean>
}

export async function startRabbitmq(): Promise<TestRabbitmq> {
  const program = await component('rabbitmq-server')
  const folder = await mkdtemp(join(tmpdir(), 'certferry-rabbitmq-'))
  const admin = { username: 'admin', password: 'admin' }
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const canLogIn = async ({ username, password }: Credentials) => {
    const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
    const { status } = await fetch(`${url}/api/whoami`, { headers: { authorization } })
    if (status === 200 || status === 401) return status === 200
    throw new Error(`RabbitMQ answers ${status}`)
  }
  const remove = () => rm(folder, { recursive: true, force: true })
  try {
    const env = await writeSettings(folder, port, admin)
    const server = await startServerAlone([program], { title: 'RabbitMQ', env, isReady: () => canLogIn(admin) })
    return {
      url,
      admin,
      canLogIn,
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

/** The environment that makes it use nothing outside this folder. */
async function writeSettings(folder: string, managementPort: number, admin: Credentials) {
  const [config, plugins] = [join(folder, 'rabbitmq.conf'), join(folder, 'plugins')]
  const lines = [
    `listeners.tcp.1 = 127.0.0.1:${await freePort()}`,
    'management.tcp.ip = 127.0.0.1',
    `management.tcp.port = ${managementPort}`,
    `default_user = ${admin.username}`,
    `default_pass = ${admin.password}`,
  ]
  await writeFile(config, `${lines.join('\n')}\n`)
  await writeFile(plugins, '[rabbitmq_management].\n')
  return {
    HOME: folder,
    RABBITMQ_NODENAME: `certferry-${randomBytes(4).toString('hex')}@localhost`,
    RABBITMQ_CONFIG_FILE: config,
    RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
    RABBITMQ_MNESIA_BASE: folder,
    RABBITMQ_LOG_BASE: folder,
    RABBITMQ_LOGS: '-',
    // Its nodes, and their register, would listen on all addresses.
    RABBITMQ_DIST_PORT: `${await freePort()}`,
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
    ERL_EPMD_PORT: `${await freePort()}`,
    ERL_EPMD_ADDRESS: '127.0.0.1',
  }
}
