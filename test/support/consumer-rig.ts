import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { mkdtemp, readFile, rename, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls, createSecureContext, type SecureContext } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { type Certferry, startCertferry } from './certferry.ts'
import { freePort } from './nginx.ts'
import { endServer, signalGroup } from './process-group.ts'
import { until } from './until.ts'

export const SERVER_NAME = 'web.example.com'
const EXAMPLES = fileURLToPath(new URL('../../examples', import.meta.url))

/** Where a consumer and its certferry live: one folder, the variables that the files of the example name. */
export interface Place {
  /** `${DIR}` of the example: certferry keeps its socket in there, as control.sock. */
  readonly folder: string
  /** `${HTTPS_PORT}`. */
  readonly port: number
  readonly variables: Readonly<Record<string, string>>
  /** A path within the folder. */
  path(name: string): string
  /** Writes a file of the example into the folder, `${NAME}` replaced by the variable of that name, and gives its path. */
  fill(file: string, as?: string): Promise<string>
  /** Writes a file, replaced by rename. */
  write(name: string, text: string): Promise<string>
}

/** Something that serves a certificate, with the certferry beside it. */
export interface Consumer {
  readonly name: string
  /** The certferry config: a file of `examples/`, such as `haproxy/certferry.yaml`, whose certificate is called `web`, or the text itself. */
  readonly config: string | { readonly text: (place: Place) => string | Promise<string> }
  /** Variables besides DIR, HTTPS_PORT and ADMIN_PORT: values, or names of further free ports when `port` is the value. */
  readonly variables?: Readonly<Record<string, string | 'port'>>
  /** Before certferry starts: certificates that other things need, files that it is to find. */
  readonly prepare?: (place: Place) => Promise<void>
  /** Starts the server, once the first set is on disk; ready or not when it resolves, the rig waits for the proof. */
  readonly start: (place: Place) => Promise<Server>
  /** Talks on a fresh TCP connection until TLS begins, as PostgreSQL wants it; without, TLS begins at once. */
  readonly beforeTls?: (socket: Socket) => Promise<void>
  /** PEM of a pair that clients present, where the server asks for one. */
  readonly client?: (place: Place) => Promise<{ readonly cert: string; readonly key: string }>
  /** PEM file of the roots that clients trust: `${DIR}/ca/ca.crt` of dev-ca unless given. */
  readonly caFile?: (place: Place) => string
  /** What else happens in the middle of the rotations, before each of them; `done` are over. */
  readonly between?: (done: number, place: Place, server: Server) => Promise<void>
}

export interface Server extends AsyncDisposable {
  /** What it wrote so far, for messages. */
  log(): string | Promise<string>
  readonly pid?: number
}

export interface Churn {
  /** How many clients connect at the same time, each anew and anew. */
  readonly clients?: number
  /** Between two connections of a client. */
  readonly pauseMs?: number
}

export interface ConsumerOptions extends Churn {
  readonly rotations: number
}

/** What it came to; `complaints` is empty when all is as promised. */
export interface ConsumerRun {
  readonly consumer: string
  readonly rotations: number
  readonly served: number
  readonly handshakes: number
  readonly failed: number
  /** Certificates seen that were never written, or seen again after a newer one was proven; rotations that the server did not take. */
  readonly mismatched: number
  /** From the commit on disk (certificate.written) to the proof (certificate.served). */
  readonly medianMs: number
  readonly p99Ms: number
  readonly complaints: readonly string[]
}

/**
 * Rotates the certificate of a real server by a real `certferry run` again and again, while clients open fresh TLS connections without
 * end, each verified against the CA. Everything it starts has ended, and its folder is gone, when it resolves.
 */
export async function runConsumer(consumer: Consumer, options: ConsumerOptions): Promise<ConsumerRun> {
  const { rotations } = options
  await using stack = new AsyncDisposableStack()
  const place = stack.use(await makePlace(consumer))
  await consumer.prepare?.(place)
  const certferry = stack.use(await startBeside(consumer, place))
  const { serial: first } = await certferry.certificate('web', 'is on disk', ({ serial }) => serial !== null)
  const server = stack.use(await consumer.start(place))
  try {
    await certferry.certificate('web', 'is proven to be served', ({ verified }) => verified === 'verified')
    const before = certferry.log().length
    await using churn = await startChurn(consumer, place, options)
    const trouble: string[] = []
    for (let done = 0; done < rotations; done += 1) {
      await consumer.between?.(done, place, server)
      const reply = await certferry.control.rotate({ certificates: ['web'], wait: true })
      trouble.push(...reply.results.flatMap((result) => (result.error ? [result.error.message] : [])))
    }
    const seen = await churn.finish()
    return judge({ consumer: consumer.name, rotations, certferry, before, first: first ?? '', trouble, seen })
  } catch (cause) {
    throw new Error(`${consumer.name}: ${String(cause)}\n${await server.log()}`, { cause })
  }
}

/** Runs it, prints its line, and asserts what is promised: nothing failed, nothing mismatched, every rotation proven. */
export async function assertConsumer(t: TestContext, consumer: Consumer, options: ConsumerOptions): Promise<void> {
  const run = await runConsumer(consumer, options)
  const { complaints, ...figures } = run
  t.diagnostic(JSON.stringify(figures))
  assert.deepEqual(complaints, [])
  assert.deepEqual([run.failed, run.mismatched, run.served], [0, 0, options.rotations])
  assert.ok(run.handshakes > 5 * options.rotations, `only ${run.handshakes} handshakes: that was no load`)
}

async function makePlace({ variables = {} }: Consumer): Promise<Place & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-consumer-'))
  const remove = () => rmSync(folder, { recursive: true, force: true })
  // Also when the tests end without disposing of it.
  process.once('exit', remove)
  const port = await freePort()
  const filled: Record<string, string> = { DIR: folder, HTTPS_PORT: `${port}`, ADMIN_PORT: `${await freePort()}` }
  for (const [name, value] of Object.entries(variables)) filled[name] = value === 'port' ? `${await freePort()}` : value
  const write = async (name: string, text: string) => {
    const path = join(folder, name)
    await writeFile(`${path}.new`, text, { mode: 0o600 })
    await rename(`${path}.new`, path)
    return path
  }
  return {
    folder,
    port,
    variables: filled,
    path: (name) => join(folder, name),
    fill: async (file, as = file.replace(/^.*\//, '')) => write(as, fillIn(await exampleFile(file), filled)),
    write,
    [Symbol.asyncDispose]: async () => {
      process.removeListener('exit', remove)
      remove()
    },
  }
}

export const exampleFile = (file: string) => readFile(join(EXAMPLES, file), 'utf8')

/** `${NAME}` becomes the variable; a name that is none stays, since servers have variables of their own. */
const fillIn = (text: string, variables: Readonly<Record<string, string>>) =>
  text.replace(/\$\{([A-Z_]+)\}/g, (whole, name: string) => variables[name] ?? whole)

/** The config as it is in the example: certferry itself puts the variables in. */
async function startBeside({ config }: Consumer, place: Place): Promise<Certferry> {
  const text = typeof config === 'string' ? await exampleFile(config) : await config.text(place)
  const configFile = await place.write('certferry.yaml', text)
  return startCertferry({ configFile, socket: place.path('control.sock'), env: { ...place.variables } })
}

interface Sighting {
  readonly serial: string
  readonly openedAt: number
}

interface Seen {
  readonly made: number
  readonly failures: readonly string[]
  /** The last connection that met each certificate. */
  readonly last: readonly Sighting[]
}

/** Fresh connections, a few at a time and never more: each a full handshake, verified. */
async function startChurn(consumer: Consumer, place: Place, { clients = 3, pauseMs = 10 }: Churn) {
  const ca = await readFile(consumer.caFile?.(place) ?? place.path('ca/ca.crt'))
  const secureContext = createSecureContext({ ca, ...(await consumer.client?.(place)) })
  const last = new Map<string, number>()
  const failures: string[] = []
  let made = 0
  let isOver = false
  const client = async () => {
    while (!isOver) {
      const openedAt = Date.now()
      try {
        const serial = await handshake(consumer, place.port, secureContext)
        last.set(serial, Math.max(openedAt, last.get(serial) ?? 0))
        made += 1
      } catch (error) {
        failures.push(
          `${error instanceof Error ? error.message : error}, opened at ${new Date(openedAt).toISOString()}`,
        )
      }
      await sleep(pauseMs)
    }
  }
  const running = Array.from({ length: clients }, client)
  await until('a client was served', () => made > 0)
  const finish = async (): Promise<Seen> => {
    isOver = true
    await Promise.all(running)
    return { made, failures, last: [...last].map(([serial, openedAt]) => ({ serial, openedAt })) }
  }
  return { finish, [Symbol.asyncDispose]: async () => void (await finish()) }
}

/** A machine with too much to do holds this process up as well. */
const PATIENCE_MS = 20_000

/** The serial that a client gets; throws where it would refuse the server, or the server it. */
async function handshake({ beforeTls, client }: Consumer, port: number, secureContext: SecureContext): Promise<string> {
  const tcp = await connected(port)
  try {
    await beforeTls?.(tcp)
    return await new Promise((resolve, reject) => {
      tcp.setTimeout(PATIENCE_MS, () => tcp.destroy(new Error(`no TLS handshake within ${PATIENCE_MS / 1000} s`)))
      const socket = connectTls({ socket: tcp, servername: SERVER_NAME, secureContext })
      let serial: string | undefined
      socket.once('error', reject)
      socket.once('close', () =>
        serial === undefined ? reject(new Error('closed during the handshake')) : resolve(serial),
      )
      socket.once('secureConnect', () => {
        serial = socket.getPeerCertificate().serialNumber?.toLowerCase()
        // With TLS 1.3 the server judges our certificate after we are done: only an orderly end shows that it took it.
        if (client) socket.end()
        else socket.destroy()
      })
    })
  } finally {
    tcp.destroy()
  }
}

function connected(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('error', reject)
    socket.once('connect', () => resolve(socket))
  })
}

interface Evidence {
  readonly consumer: string
  readonly rotations: number
  readonly certferry: Certferry
  /** Lines of its log when the load began: what it could not do before its server was there is no complaint. */
  readonly before: number
  readonly first: string
  /** What `rotate` answered where it did not succeed. */
  readonly trouble: readonly string[]
  readonly seen: Seen
}

function judge({ consumer, rotations, certferry, before, first, trouble, seen }: Evidence): ConsumerRun {
  const at = (event: string) =>
    new Map(certferry.log(event).map(({ serial, time }) => [plain(String(serial)), Date.parse(time)]))
  const [written, proven] = [at('certificate.written'), at('certificate.served')]
  const fresh = [...written].filter(([serial]) => serial !== plain(first))
  const took = fresh.flatMap(([serial, since]) => {
    const provenAt = proven.get(serial)
    return provenAt === undefined ? [] : [provenAt - since]
  })
  const order = [...written.keys()]
  const unknown = seen.last.filter(({ serial }) => !written.has(plain(serial))).map(({ serial }) => serial)
  const stale = seen.last.flatMap(({ serial, openedAt }) => {
    const newer = order.slice(order.indexOf(plain(serial)) + 1).find((one) => openedAt > (proven.get(one) ?? Infinity))
    return newer === undefined ? [] : [`${serial} was still served after ${newer} was proven`]
  })
  const refused = certferry
    .log()
    .slice(before)
    .filter(({ event }) => event === 'rotation.failed' || event === 'rotation.rolled-back')
  const wrong = [
    ...unknown.map((serial) => `${serial} was served, but never written`),
    ...stale,
    ...trouble,
    ...refused.map((line) => JSON.stringify(line)),
  ]
  took.sort((a, b) => a - b)
  return {
    consumer,
    rotations,
    served: took.length,
    handshakes: seen.made,
    failed: seen.failures.length,
    mismatched: wrong.length,
    medianMs: took[took.length >> 1] ?? 0,
    p99Ms: took[Math.ceil(took.length * 0.99) - 1] ?? 0,
    complaints: [...seen.failures.slice(0, 20).map((why) => `a handshake failed: ${why}`), ...wrong],
  }
}

/** OpenSSL prints serials with leading zeros, or without. */
const plain = (serial: string) => serial.toLowerCase().replaceAll(':', '').replace(/^0+/, '')

export interface Command {
  readonly argv: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly user?: { readonly uid: number; readonly gid: number }
  /** What ends it; SIGTERM unless given. */
  readonly stop?: NodeJS.Signals
}

/** A server as a process group of its own: ended with all its workers, also when the tests end without disposing of it. */
export function startServer({
  argv,
  env = {},
  cwd,
  user,
  stop = 'SIGTERM',
}: Command): Server & { readonly pid: number } {
  const [program = '', ...args] = argv
  const child: ChildProcess = spawn(program, args, {
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    ...(cwd !== undefined && { cwd }),
    ...user,
  })
  const kill = () => signalGroup(child, 'SIGKILL')
  process.once('exit', kill)
  let log = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => {
      log = (log + text).slice(-20_000)
    })
  child.once('error', (error) => {
    log += error.message
  })
  return {
    pid: child.pid ?? 0,
    log: () => log,
    [Symbol.asyncDispose]: async () => {
      await endServer(child, stop)
      kill()
      process.removeListener('exit', kill)
    },
  }
}
