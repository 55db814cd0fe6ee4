import { execFile } from 'node:child_process'
import { appendFileSync, readFileSync, readlinkSync, renameSync, writeFileSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Layout } from '../../src/outputs/output.ts'
import type { Certferry, LogLine } from '../../test/support/certferry.ts'
import { type Fault, type FaultProxy, startFaultProxy } from '../../test/support/fault-proxy.ts'
import type { Nginx } from '../../test/support/nginx.ts'
import { createStage, type Stage } from '../../test/support/stage.ts'
import { until } from '../../test/support/until.ts'
import type { TestVault } from '../../test/support/vault.ts'
import { createWallClock } from '../../test/support/wall-clock.ts'
import type { Story } from './story.ts'

/** One sidecar with everything around it that can be disturbed: its way to Vault, its volume, its clock, its nginx, its process. */
export interface Subject extends AsyncDisposable {
  readonly name: string
  readonly layout: Layout
  readonly ttlMs: number
  readonly vault: TestVault
  readonly stage: Stage
  readonly proxy: FaultProxy
  /** Where the certificate is, on a small tmpfs mounted at `volume`. */
  readonly directory: string
  readonly volume: string
  /** What happens to its requests to Vault; the last one counts. */
  readonly way: Fault[]
  /** How many rotations were asked for and not seen yet. */
  readonly asked: { count: number }
  /** When each certificate was written, by serial; true time. */
  readonly written: ReadonlyMap<string, number>
  /** Keys that stood on its disk, in PEM. */
  readonly keys: ReadonlySet<string>
  /** The file with all that its processes printed and answered. */
  readonly outputFile: string
  readonly certferry: Certferry
  readonly nginx: Nginx
  startCertferry(): void
  /** Ends it, and sees to it that it ends as promised. */
  stopCertferry(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>
  /** A second certferry for the same directory, which has to wait for its turn. */
  startTwin(): Promise<Certferry>
  endTwin(twin: Certferry): Promise<void>
  startNginx(): Promise<void>
  /** By how much the clock of certferry is wrong: `+0`, `-1d`, `+3600`. */
  setClock(offset: string): void
  /** The token it used last. */
  token(): string | undefined
  /** Puts down what its endpoints answer, for the search for secrets. */
  record(): Promise<void>
}

export interface SubjectOptions {
  readonly name: string
  readonly layout: Layout
  readonly ttlSeconds: number
  readonly vault: TestVault
  readonly program: string
  readonly story: Story
  readonly complain: (subject: string, what: string) => void
}

const run = promisify(execFile)

/** A set takes 28 KiB; all generations of ten minutes are kept. */
const VOLUME = 'size=4m,nr_inodes=1k,mode=0700'
/** A process that young may not listen to signals yet. */
const YOUNG_MS = 3_000

export async function createSubject(options: SubjectOptions): Promise<Subject> {
  const { name, layout, ttlSeconds, vault, program, story, complain } = options
  await using stack = new AsyncDisposableStack()
  const volume = join(story.folder, `${name}-volume`)
  await mkdir(volume)
  await run('mount', ['-t', 'tmpfs', '-o', VOLUME, 'tmpfs', volume])
  stack.defer(() => void run('umount', ['-l', volume]))
  const way: Fault[] = []
  const proxy = stack.use(await startFaultProxy(() => way.at(-1), { target: vault.address }))
  const stage = stack.use(await createStage({ vault, address: proxy.address, volumeIn: volume, program }))
  const web = { layout, ttl: `${ttlSeconds}s`, reload: { process: 'nginx' }, verify: { workers: 2 } }
  await stage.configure(stage.web(web))
  const outputFile = join(story.folder, `${name}.out`)
  const twinFile = join(stage.folder, 'twin.yaml')
  await talkative(stage, twinFile)
  const clock = await createWallClock(join(stage.folder, 'clock'))

  const leaving = new WeakSet<Certferry>()
  const written = new Map<string, number>()
  const keys = new Set<string>()
  const directory = join(stage.volume, 'web')
  let running: { readonly certferry: Certferry; readonly since: number } | undefined
  let nginx: Nginx | undefined

  const launch = (more: { configFile?: string; socket?: string } = {}) => {
    const certferry = stage.certferry({
      ...more,
      env: clock.env,
      onOutput: (text) => appendFileSync(outputFile, text),
      onLine: (line) => {
        if (line.event === 'certificate.written' || line.event === 'certificate.resumed') {
          written.set(String(line.serial), written.get(String(line.serial)) ?? Date.now())
          keepKey(directory, layout, keys)
        }
        if (line.level !== 'debug') story.tell(name, `log ${brief(line)}`)
      },
    })
    certferry.ended.then(({ code, signal }) => {
      story.tell(name, `certferry ${certferry.pid} ended with ${code ?? signal}`)
      if (!leaving.has(certferry))
        complain(name, `certferry ended by itself with ${code ?? signal}: ${certferry.stderr().slice(-2000)}`)
    })
    story.tell(name, `certferry ${certferry.pid} started`)
    return certferry
  }
  const subject: Subject = {
    name,
    layout,
    ttlMs: ttlSeconds * 1000,
    vault,
    stage,
    proxy,
    directory,
    volume,
    way,
    asked: { count: 0 },
    written,
    keys,
    outputFile,
    get certferry() {
      if (!running) throw new Error(`no certferry runs for ${name}`)
      return running.certferry
    },
    get nginx() {
      if (!nginx) throw new Error(`no nginx runs for ${name}`)
      return nginx
    },
    startCertferry: () => {
      running = { certferry: launch(), since: Date.now() }
    },
    stopCertferry: async (signal) => {
      if (!running) return
      const { certferry, since } = running
      leaving.add(certferry)
      const isYoung = Date.now() - since < YOUNG_MS
      const ended = await certferry.stop(signal)
      const isAsPromised = signal === 'SIGKILL' || ended.code === 0 || (isYoung && ended.signal === 'SIGTERM')
      if (!isAsPromised) complain(name, `SIGTERM ended certferry with ${ended.code ?? ended.signal}`)
    },
    startTwin: async () => launch({ configFile: twinFile, socket: `${stage.socket}.twin` }),
    endTwin: async (twin) => {
      leaving.add(twin)
      await twin.stop('SIGKILL')
    },
    startNginx: async () => {
      await nginx?.[Symbol.asyncDispose]()
      // What it is to load may not be back yet.
      nginx = await until('nginx starts', () => stage.nginx({ layout, main: 'user root;' }), {
        timeoutMs: 120_000,
        everyMs: 250,
      })
    },
    setClock: clock.set,
    token: () =>
      proxy.requests.map(({ headers }) => headers['x-vault-token']).findLast((token) => typeof token === 'string'),
    record: async () => {
      for (const path of ['/metrics', '/status', '/healthz?verbose']) {
        const { body } = await subject.certferry.get(path).catch((error: Error) => ({ body: error.message }))
        appendFileSync(outputFile, body)
      }
    },
    [Symbol.asyncDispose]: async () => {
      clock.set('+0')
      if (running) {
        leaving.add(running.certferry)
        await running.certferry[Symbol.asyncDispose]()
      }
      await nginx?.stop('SIGKILL')
      await nginx?.[Symbol.asyncDispose]()
      await owned.disposeAsync()
    },
  }
  const owned = stack.move()
  return subject
}

/** Everything is logged and audited, so that there is something to search; and a second config for the twin, with a socket of its own. */
async function talkative({ configFile, socket, folder }: Stage, twinFile: string): Promise<void> {
  const config = JSON.parse(await readFile(configFile, 'utf8'))
  const log = { level: 'debug' }
  replace(configFile, JSON.stringify({ ...config, log, audit: { file: join(folder, 'audit.log') } }, undefined, 2))
  const admin = { listen: '127.0.0.1:0', socket: `${socket}.twin` }
  replace(twinFile, JSON.stringify({ ...config, log, admin }, undefined, 2))
}

/** By rename, as editors do. */
export function replace(path: string, content: string): void {
  writeFileSync(`${path}.new`, content, { mode: 0o600 })
  renameSync(`${path}.new`, path)
}

function keepKey(directory: string, layout: Layout, keys: Set<string>): void {
  try {
    const at = layout === 'flat' ? directory : join(directory, readlinkSync(join(directory, '..data')))
    keys.add(readFileSync(join(at, 'tls.key'), 'utf8'))
  } catch {
    // Disturbed this very moment; the next one is looked at again.
  }
}

function brief({ event, level, serial, why, reason, stage, detail, path, what, to, next, signal, byMs }: LogLine) {
  const fields = { serial, why, reason, stage, to, path, what, next, signal, byMs, detail }
  const told = Object.entries(fields).filter(([, value]) => value !== undefined)
  return [`${level} ${event}`, ...told.map(([field, value]) => `${field}=${String(value).slice(0, 200)}`)].join(' ')
}
