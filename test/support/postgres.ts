import { execFile } from 'node:child_process'
import { mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { aloneAs, NOBODY, type Server, startServerAlone } from './alone.ts'
import { component } from './components.ts'
import { freePort } from './vault.ts'

export interface Credentials {
  readonly username: string
  readonly password: string
}

/** A real PostgreSQL with one database, `postgres`, on a free loopback port. Users log in by password. */
export interface TestPostgres extends AsyncDisposable {
  readonly port: number
  /** The superuser. */
  readonly admin: Credentials
  /** Whether they may log in now, by a real query. Throws when the server does not answer. */
  canLogIn(credentials: Credentials): Promise<boolean>
  /** What the superuser is answered: a line for each row, `|` between its columns. */
  query(sql: string): Promise<string>
  /** SIGKILL. What is in it stays for the next start. */
  stop(): Promise<void>
  /** Again, on the same port. */
  start(): Promise<void>
}

export async function startPostgres(): Promise<TestPostgres> {
  // What belongs to it is beside it; on PATH there are wrappers at best.
  const programs = dirname(await realpath(await component('postgres')))
  const folder = await mkdtemp(join(tmpdir(), 'certferry-postgres-'))
  const cluster: Cluster = { programs, folder, port: await freePort(), admin: { username: 'admin', password: 'admin' } }
  const { port, admin } = cluster
  const query = (sql: string) => ask(cluster, admin, sql)
  const remove = () => rm(folder, { recursive: true, force: true })
  const start = () => startServer(cluster, async () => (await query('SELECT 1')) === '1')
  try {
    await initialise(cluster)
    let server = await start()
    return {
      port,
      admin,
      query,
      canLogIn: async (credentials) => {
        try {
          return (await ask(cluster, credentials, 'SELECT current_user')) === credentials.username
        } catch (error) {
          if (error instanceof Error && error.message.includes('password authentication failed')) return false
          throw error
        }
      },
      stop: () => server.stop(),
      start: async () => {
        server = await start()
      },
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

interface Cluster {
  /** The folder of initdb, postgres and psql. */
  readonly programs: string
  readonly folder: string
  readonly port: number
  readonly admin: Credentials
}

const run = promisify(execFile)

async function initialise({ programs, folder, admin }: Cluster): Promise<void> {
  const passwordFile = join(folder, 'password')
  await writeFile(passwordFile, admin.password, { mode: 0o600 })
  const settings = ['--auth=scram-sha-256', '--no-sync', '--encoding=UTF8', '--locale=C']
  const user = [`--username=${admin.username}`, `--pwfile=${passwordFile}`]
  const [command = '', ...args] = [...aloneAs(NOBODY), join(programs, 'initdb')]
  await run(command, [...args, `--pgdata=${join(folder, 'data')}`, ...user, ...settings])
}

function startServer({ programs, folder, port }: Cluster, isReady: () => Promise<boolean>): Promise<Server> {
  const place = ['-h', '127.0.0.1', '-p', `${port}`, '-k', '']
  // Without fsync: nobody takes the power away.
  const command = [join(programs, 'postgres'), '-D', join(folder, 'data'), ...place, '-F']
  return startServerAlone(command, { title: 'PostgreSQL', isReady })
}

/** Throws with what the server, or psql, has against it. */
async function ask({ programs, folder, port }: Cluster, { username, password }: Credentials, sql: string) {
  const env = { HOME: folder, PGPASSWORD: password, PGCONNECT_TIMEOUT: '10' }
  const address = ['-h', '127.0.0.1', '-p', `${port}`, '-U', username, '-d', 'postgres']
  const { stdout } = await run(join(programs, 'psql'), [...address, '-X', '-w', '-A', '-t', '-c', sql], { env })
  return stdout.trim()
}
