import { type ChildProcess, spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import * as z from 'zod'
import { type ControlClient, createControlClient } from '../../src/observe/control-client.ts'
import type { CertificateStatus, SidecarStatus } from '../../src/observe/status.ts'
import { until } from './until.ts'

const LogLine = z.looseObject({ event: z.string(), level: z.string(), time: z.string() })
export type LogLine = z.output<typeof LogLine>

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  /** From the signal to the end. */
  readonly tookMs: number
}

/** A real `certferry run` or `certferry injector` in a process of its own. */
export interface Certferry extends AsyncDisposable {
  readonly pid: number
  readonly control: ControlClient
  /** Lines of its log so far, oldest first; only those of one event when that is given. */
  log(event?: string): readonly LogLine[]
  /** What it wrote to standard error. */
  stderr(): string
  status(): Promise<SidecarStatus>
  /** The state of one certificate once it is as wanted. */
  certificate(name: string, claim: string, isSo: (status: CertificateStatus) => boolean): Promise<CertificateStatus>
  /** A request to `admin.listen`. */
  get(path: string): Promise<{ readonly status: number; readonly body: string }>
  /** Value of one series, such as `certferry_tamper_total{certificate="web"}`; undefined where there is none. */
  metric(series: string): Promise<number | undefined>
  send(signal: NodeJS.Signals): void
  /** Sends the signal and waits for the end. */
  stop(signal?: NodeJS.Signals): Promise<Ended>
  /** How it ended, by whomever. */
  readonly ended: Promise<Omit<Ended, 'tookMs'>>
}

export interface StartOptions {
  readonly verb?: 'run' | 'injector'
  readonly configFile: string
  /** `admin.socket` of that config. */
  readonly socket: string
  /** What runs instead of `src/cli.ts`: a bundle, which starts sooner. */
  readonly program?: string
  /** Flags of Node that NODE_OPTIONS does not take. */
  readonly flags?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Words to put before the command, such as `prlimit --nofile=64`: a program that executes the command in its own place. */
  readonly before?: readonly string[]
  /** All that it writes to standard output and error, as it comes. */
  readonly onOutput?: (text: string) => void
  readonly onLine?: (line: LogLine) => void
}

const SOURCE = fileURLToPath(new URL('../../src/cli.ts', import.meta.url))
/** Longer than certferry may take to stop. */
const PATIENCE_MS = 15_000

/** Arguments for Node that run a command of certferry. */
export const commandLine = (program = SOURCE, ...args: readonly string[]): readonly string[] => [program, ...args]

/** Spawns it and returns at once. Disposing it ends it with SIGKILL, unless it has ended already. */
export function startCertferry(options: StartOptions): Certferry {
  const { verb = 'run', configFile, socket, program, flags = [], env = {}, before = [], ...listeners } = options
  const [command = '', ...args] = [
    ...before,
    process.execPath,
    ...flags,
    ...commandLine(program, verb, '-c', configFile),
  ]
  const child = spawn(command, args, {
    // Nothing of the environment that could lead it elsewhere.
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const { lines, stderr } = collect(child, listeners)
  const end = endOf(child)
  const control = createControlClient(socket)
  const log = (event?: string) => lines.filter((line) => event === undefined || line.event === event)

  const get: Certferry['get'] = async (path) => {
    const address = log('admin.listening').find((line) => String(line.address).startsWith('http'))?.address
    if (address === undefined) throw new Error('admin.listen is not listened on yet')
    const reply = await fetch(`${address}${path}`)
    return { status: reply.status, body: await reply.text() }
  }

  return {
    pid: child.pid ?? 0,
    control,
    log,
    stderr,
    status: () => control.status(),
    certificate: async (name, claim, isSo) => {
      let last: CertificateStatus | undefined
      try {
        return await until(`${name} ${claim}`, async () => {
          last = (await control.status()).certificates.find((one) => one.name === name)
          return last && isSo(last) ? last : undefined
        })
      } catch (cause) {
        const story = log()
          .slice(-15)
          .map((line) => JSON.stringify(line))
          .join('\n')
        throw new Error(`${name} ${claim}: not so; status ${JSON.stringify(last)}\n${story}\n${stderr()}`, { cause })
      }
    },
    get,
    metric: async (series) => {
      const { body } = await get('/metrics')
      const line = body.split('\n').find((one) => one.startsWith(`${series} `))
      return line === undefined ? undefined : Number(line.slice(series.length))
    },
    send: (signal) => void child.kill(signal),
    stop: async (signal = 'SIGTERM') => {
      const sentAt = performance.now()
      child.kill(signal)
      const deadline = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS)
      const { code, signal: by, at } = await end
      clearTimeout(deadline)
      return { code, signal: by, tookMs: at - sentAt }
    },
    ended: end,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL')
      await end
    },
  }
}

function collect(
  child: ChildProcess,
  { onOutput, onLine }: Pick<StartOptions, 'onOutput' | 'onLine'>,
): { lines: LogLine[]; stderr: () => string } {
  const lines: LogLine[] = []
  let rest = ''
  let stderr = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n')
    rest = parts.pop() ?? ''
    onOutput?.(text)
    for (const part of parts) {
      const line = LogLine.parse(JSON.parse(part))
      lines.push(line)
      onLine?.(line)
    }
  })
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    onOutput?.(text)
    stderr = (stderr + text).slice(-20_000)
  })
  return { lines, stderr: () => stderr }
}

/** How it ended, and when on the monotonic clock; 'close' follows 'exit' once all its output was read. */
function endOf(child: ChildProcess) {
  // Also when the tests end without disposing of it.
  const kill = () => child.kill('SIGKILL')
  process.once('exit', kill)
  return new Promise<{ code: number | null; signal: NodeJS.Signals | null; at: number }>((resolve, reject) => {
    let at = 0
    child.once('error', reject)
    child.once('exit', () => {
      at = performance.now()
      process.removeListener('exit', kill)
    })
    child.once('close', (code, signal) => resolve({ code, signal, at }))
  })
}
