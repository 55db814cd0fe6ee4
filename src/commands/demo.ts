import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { systemClock } from '../clock.ts'
import { loadConfig } from '../config/config.ts'
import { formatDuration } from '../core/units.ts'
import { hammer, type Tally } from '../demo/client.ts'
import { serveDemo } from '../demo/server.ts'
import { drawScene, rotations, type Scene, short } from '../demo/view.ts'
import { SidecarError } from '../errors.ts'
import type { Control } from '../observe/control.ts'
import { openService } from '../service.ts'
import { type Io, print } from './io.ts'

export interface DemoOptions {
  readonly seconds?: number
  /** Lifetime of the certificates, ms. */
  readonly ttl: number
  /** Internal: be the server, with the files of this directory. */
  readonly serve?: string
  readonly port?: number
}

const NAME = 'web.demo.internal'
const FRAME_MS = 250

/** Rotates under a live server until interrupted, or for some seconds. Throws when a handshake failed, or nothing rotated although it should have. */
export async function demo({ seconds, ttl, serve, port }: DemoOptions, io: Io): Promise<void> {
  if (serve !== undefined && port !== undefined) return serveDemo(serve, port)
  const end = seconds === undefined ? io.signal : AbortSignal.any([io.signal, AbortSignal.timeout(seconds * 1000)])
  await using scratch = await makeScratch(ttl)
  await using service = await openService(loadConfig(scratch.config, {}), {
    clock: systemClock,
    env: io.env,
    destination: nowhere,
  })
  await Promise.race([firstSet(service.control, end), service.failed])
  if (end.aborted) return
  await using _server = await startServer(scratch, io)
  const tally: Tally = { made: 0, failed: 0, serials: [], lastFailure: undefined }
  const ca = await readFile(join(scratch.directory, 'ca.crt'), 'utf8')
  const hammering = hammer(scratch.port, NAME, ca, tally, end)
  const scene = (): Scene | undefined => {
    const [certificate] = service.control.snapshot().certificates
    return (
      certificate && {
        certificate,
        tally,
        now: systemClock.now(),
        admin: service.admin.url ?? '',
        directory: scratch.directory,
      }
    )
  }
  await show(scene, io, end)
  await hammering
  summarise(tally, { seconds, ttl }, io)
}

/** A folder with a config that anyone could write; gone at the end. */
async function makeScratch(ttl: number) {
  const root = await mkdtemp(join(tmpdir(), 'certferry-demo-'))
  const directory = join(root, 'tls')
  const pidFile = join(root, 'server.pid')
  const port = await freePort()
  const config = join(root, 'certferry.yaml')
  await writeFile(
    config,
    `admin: { listen: '127.0.0.1:0' }
certificates:
  - name: web
    source:  { kind: dev-ca, directory: ${join(root, 'ca')}, commonName: ${NAME}, ttl: ${ttl}ms }
    renew:   { after: 1/3 }
    outputs: [{ kind: pem, directory: ${directory} }]
    reload:  [{ kind: signal, pidFile: ${pidFile}, signal: SIGHUP }]
    verify:  [{ kind: tls, address: '127.0.0.1:${port}', serverName: ${NAME} }]
`,
    { mode: 0o600 },
  )
  return { config, directory, pidFile, port, [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }) }
}

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address ? address.port : 0
}

/** The log has no place beside the picture. */
const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })

async function firstSet(control: Control, signal: AbortSignal): Promise<void> {
  while (!signal.aborted && control.snapshot().certificates.some(({ phase }) => phase === 'PENDING')) await sleep(20)
}

/** The server in a process of its own, in a group of its own: Ctrl-C is for the demo, which ends the server last. */
async function startServer({ directory, port, pidFile }: { directory: string; port: number; pidFile: string }, io: Io) {
  const [program = process.execPath, ...args] = io.self
  const child = spawn(program, [...args, 'demo', '--serve', directory, '--port', String(port)], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    detached: true,
  })
  await Promise.race([once(child, 'message'), ended(child)])
  await writeFile(pidFile, `${child.pid}\n`)
  return {
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL')
        await once(child, 'exit')
      }
    },
  }
}

async function ended(child: ChildProcess): Promise<never> {
  const [code] = await once(child, 'exit')
  throw new SidecarError('BUG', `the demo server ended with ${code} before it listened`)
}

/** A line that wraps in a narrow terminal would count as two on the way up. */
const NO_WRAP = '\u001b[?7l'
const WRAP = '\u001b[?7h'

/** On a terminal a picture that moves; elsewhere a line for each certificate that the client sees. */
async function show(scene: () => Scene | undefined, io: Io, end: AbortSignal): Promise<void> {
  const isLive = io.stdout.isTTY === true
  let height = 0
  let told = 0
  while (!end.aborted) {
    const now = scene()
    if (now && isLive) {
      const lines = drawScene(now, io.stdout)
      const up = height > 0 ? `\u001b[${height}A` : ''
      io.stdout.write(`${NO_WRAP}${up}${lines.map((line) => `\u001b[K${line}\n`).join('')}${WRAP}`)
      height = lines.length
    } else if (now && now.tally.serials.length > told) {
      if (told === 0) print(io, `certferry demo: ${now.admin}/status  ${now.admin}/metrics  ${now.directory}`)
      told = now.tally.serials.length
      print(
        io,
        `serial ${short(now.tally.serials.at(-1) ?? '')} is served · ${now.tally.made} handshakes, ${now.tally.failed} failed`,
      )
    }
    await sleep(FRAME_MS, undefined, { signal: end }).catch(() => {})
  }
  // The terminal has echoed Ctrl-C.
  if (isLive) print(io, '\n')
}

function summarise(
  tally: Tally,
  { seconds, ttl }: { readonly seconds: number | undefined; readonly ttl: number },
  io: Io,
): void {
  print(
    io,
    `rotations ${rotations(tally)}, handshakes ${tally.made}, failed ${tally.failed}${seconds === undefined ? '' : `, in ${formatDuration(seconds * 1000)}`}`,
  )
  if (tally.failed > 0)
    throw new SidecarError(
      'DEMO_FAILED',
      `${tally.failed} of ${tally.made + tally.failed} handshakes failed: ${tally.lastFailure}`,
    )
  if (seconds !== undefined && seconds * 1000 > ttl && rotations(tally) === 0)
    throw new SidecarError('DEMO_FAILED', `nothing was rotated within ${formatDuration(seconds * 1000)}`)
  if (tally.made === 0) throw new SidecarError('DEMO_FAILED', 'no handshake was made')
}
