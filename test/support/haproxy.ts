import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { component } from './components.ts'
import { endServer, signalGroup } from './process-group.ts'
import { until } from './until.ts'

export interface HaproxyOptions {
  readonly port: number
  /** The combined PEM file, or a directory of such. */
  readonly certificate: string
  /** More words of the `bind` line, such as `strict-sni` or `verify required ca-file /ca.pem`. */
  readonly bind?: string
  /** Where its master keeps its pid, and where the stats socket is to be. */
  readonly pidFile: string
  readonly socket: string
  /** Where the socket of its master is to be, if it is to have one. */
  readonly master?: string
}

export interface Haproxy extends AsyncDisposable {
  readonly configFile: string
  /** A command to the stats socket (level admin) of the worker that serves, and its answer. */
  ask(command: string): Promise<string>
  /** What it wrote to standard error so far. */
  log(): string
  stop(signal?: NodeJS.Signals): Promise<void>
}

/** A real HAProxy (master and worker, so that SIGUSR2 reloads it) that ends TLS on a port of 127.0.0.1. Ready when this resolves. */
export async function startHaproxy(options: HaproxyOptions): Promise<Haproxy> {
  const { port, certificate, bind = '', pidFile, socket, master } = options
  const binary = await component('haproxy')
  const folder = await mkdtemp(join(tmpdir(), 'certferry-haproxy-'))
  const configFile = join(folder, 'haproxy.cfg')
  await writeFile(
    configFile,
    `
global
  stats socket ${socket} mode 600 level admin expose-fd listeners
  hard-stop-after 2s
defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
frontend web
  bind 127.0.0.1:${port} ssl crt ${certificate} ${bind}
  http-request return status 200 content-type text/plain string "ok"
`,
  )
  const child = spawn(
    binary,
    ['-W', '-db', '-p', pidFile, '-f', configFile, ...(master ? ['-S', `${master},mode,600`] : [])],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    },
  )
  let log = ''
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    log = (log + chunk).slice(-50_000)
  })
  const kill = () => signalGroup(child, 'SIGKILL')
  // Also when the tests end without disposing of it: a group of its own hears no Ctrl-C.
  process.once('exit', kill)
  child.once('exit', () => process.removeListener('exit', kill))
  const ask = async (command: string) => {
    const connection = connect(socket)
    connection.end(`${command}\n`)
    return text(connection)
  }
  const stop = (signal: NodeJS.Signals = 'SIGTERM') => endServer(child, signal)
  const haproxy: Haproxy = {
    configFile,
    ask,
    log: () => log,
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
  try {
    await until('HAProxy serves', async () => {
      if (child.exitCode !== null) throw new Error(`it ended: ${log}`)
      // With -db the master writes no pid file itself in every version; the pid of the master is ours to know.
      await readFile(pidFile, 'utf8').catch(() => writeFile(pidFile, `${child.pid}\n`))
      return (await ask('show info')).includes('Uptime')
    })
  } catch (error) {
    await haproxy[Symbol.asyncDispose]()
    throw error
  }
  return haproxy
}
