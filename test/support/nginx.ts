import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { chown, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { component } from './components.ts'
import { endServer, signalGroup } from './process-group.ts'

export interface NginxOptions {
  /** Paths of the certificate chain and the key; undefined when `server` brings its own `ssl_certificate` or an include. */
  readonly certificate?: string
  readonly key?: string
  readonly workers?: number
  /** More directives for the `server` block, the `http` block and the top level. */
  readonly server?: string
  readonly http?: string
  readonly main?: string
  /** Runs all of nginx as this user; takes root. By default the master runs as we do. */
  readonly user?: { readonly uid: number; readonly gid: number }
  /** Words to put before the command, such as `unshare --pid --fork`. */
  readonly before?: readonly string[]
  /** The port, where it must be known beforehand, or is that of an earlier instance. */
  readonly port?: number
  /** Where to put the pid file, where that must be known beforehand. */
  readonly pidFile?: string
}

export interface Nginx extends AsyncDisposable {
  readonly port: number
  readonly pid: number
  readonly pidFile: string
  /** The argument list that starts this nginx; with `-t` it tests the config, with `-s reload` it reloads. */
  readonly command: readonly [string, ...string[]]
  readonly configFile: string
  /** What is in the error log so far; level notice. */
  errorLog(): Promise<string>
  reload(): void
  /** SIGTERM, and the end of it; SIGKILL hits the workers too and leaves the pid file behind, as a crash of the container does. */
  stop(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>
}

/** A real nginx that serves TLS on a free port of 127.0.0.1, ready when this resolves. Disposing it removes its folder too. */
export async function startNginx(options: NginxOptions): Promise<Nginx> {
  const binary = await component('nginx')
  const folder = await mkdtemp(join(tmpdir(), 'certferry-nginx-'))
  const port = options.port ?? (await freePort())
  const files = {
    config: join(folder, 'nginx.conf'),
    pid: options.pidFile ?? join(folder, 'nginx.pid'),
    log: join(folder, 'error.log'),
  }
  await writeFile(files.config, render(options, port, folder, files))
  const { uid, gid } = options.user ?? {}
  if (uid !== undefined && gid !== undefined) await chown(folder, uid, gid)
  const command = [binary, '-e', files.log, '-p', folder, '-c', files.config] as const
  const [program, ...args] = [...(options.before ?? []), ...command]
  const child = spawn(program ?? binary, args, { stdio: 'ignore', detached: true, ...options.user })
  // Also when the tests end without disposing of it: a group of its own hears no Ctrl-C.
  const kill = () => signalGroup(child, 'SIGKILL')
  process.once('exit', kill)
  child.once('exit', () => process.removeListener('exit', kill))
  const errorLog = () => readFile(files.log, 'utf8').catch(() => '')
  const stop: Nginx['stop'] = (signal = 'SIGTERM') => endServer(child, signal)
  const nginx: Nginx = {
    port,
    pid: child.pid ?? 0,
    pidFile: files.pid,
    command: [...command],
    configFile: files.config,
    errorLog,
    reload: () => void child.kill('SIGHUP'),
    stop,
    [Symbol.asyncDispose]: async () => {
      await stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
  await untilReady(nginx, child)
  return nginx
}

function render(
  options: NginxOptions,
  port: number,
  folder: string,
  { pid, log }: { readonly pid: string; readonly log: string },
): string {
  const { certificate, key, workers = 2, server = '', http = '', main = '' } = options
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  return `
daemon off;
worker_processes ${workers};
pid ${pid};
error_log ${log} notice;
${main}
events { worker_connections 512; }
http {
  access_log off;
  ${temporary.map((kind) => `${kind}_temp_path ${folder}/${kind};`).join(' ')}
  ${http}
  server {
    listen 127.0.0.1:${port} ssl default_server;
    ${certificate === undefined ? '' : `ssl_certificate ${certificate};`}
    ${key === undefined ? '' : `ssl_certificate_key ${key};`}
    ${server}
    location / { return 200 "ok\\n"; }
  }
}
`
}

/** A port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  for (;;) {
    // Below those that Linux gives to connections, which come and go all the time.
    const server = createServer().listen(randomInt(10_000, 32_000), '127.0.0.1')
    try {
      await once(server, 'listening')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') continue
      throw error
    }
    const address = server.address()
    server.close()
    await once(server, 'close')
    return typeof address === 'object' && address ? address.port : 0
  }
}

/** nginx writes its pid file before it starts workers, and accepts from then on. */
async function untilReady(nginx: Nginx, child: ChildProcess): Promise<void> {
  for (;;) {
    if (child.exitCode !== null || child.signalCode !== null) {
      const log = await nginx.errorLog()
      await nginx[Symbol.asyncDispose]()
      throw new Error(`nginx did not start: ${log}`)
    }
    const hasPid = await readFile(nginx.pidFile, 'utf8').catch(() => '')
    if (hasPid !== '' && (await accepts(nginx.port))) return
    await sleep(10)
  }
}

const accepts = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
