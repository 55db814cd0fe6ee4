import { type ChildProcess, spawn } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Contender, type Job, SECRET_FILE } from './contenders.ts'
import type { Bench } from './row.ts'

/** A contender at work, from nothing. Disposing it ends it and removes all it wrote. */
export interface Running extends AsyncDisposable {
  readonly pid: number
  /** Resolves with the ms from the start of the process to the last certificate and key on disk. Rejects when one of them does not match. */
  delivered(limitMs?: number): Promise<number>
  /** The same without a look into the files. */
  untilThere(limitMs?: number): Promise<number>
  /** Asks so often for its metrics; false when it has no place to ask. */
  scrape(times: number): Promise<boolean>
  /** When it was started, ms since 1970. */
  readonly startedAt: number
  /** All that it wrote to standard output and error. */
  log(): string
}

export interface LaunchOptions extends Pick<Job, 'metricsPort'> {
  readonly certificates?: number
  readonly secrets?: number
  /** Where certificates are written, when not where the bench says. */
  readonly volumeIn?: string
}

/** The first minute is enough for a thousand certificates; a contender that needs more has failed. */
const LIMIT_MS = 60_000
const END_MS = 5_000

export async function launch(
  contender: Contender,
  { vault, role, ...bench }: Pick<Bench, 'vault' | 'role' | 'volumeIn'>,
  { certificates = 1, secrets = 0, volumeIn = bench.volumeIn, ...more }: LaunchOptions = {},
): Promise<Running> {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-bench-'))
  const volume = await mkdtemp(join(volumeIn, 'certferry-bench-volume-'))
  const directories = Array.from({ length: certificates }, (_, index) => join(volume, String(index)))
  const secretDirectories = Array.from({ length: secrets }, (_, index) => join(volume, `s${index}`))
  for (const directory of [...directories, ...secretDirectories]) mkdirSync(directory)
  const { program, args, env, metricsUrl } = contender.prepare({
    vault,
    role,
    folder,
    directories,
    secretDirectories,
    ...more,
  })
  const logFile = join(folder, 'log')
  const output = openSync(logFile, 'w')
  const started = performance.now()
  const child = spawn(program, args, { env: { ...env }, cwd: folder, stdio: ['ignore', output, output] })
  closeSync(output)
  const abandon = () => {
    child.kill('SIGKILL')
    for (const path of [folder, volume]) rmSync(path, { recursive: true, force: true })
  }
  // Also when the bench ends without disposing of it.
  process.once('exit', abandon)

  const log = () => readFileSync(logFile, 'utf8')
  const untilThere = async (limitMs = LIMIT_MS) => {
    try {
      const files = [
        ...directories.map((directory) => [join(directory, 'tls.crt'), join(directory, 'tls.key')]),
        ...secretDirectories.map((directory) => [join(directory, SECRET_FILE)]),
      ]
      return (await lastThereAt(child, files, started + limitMs)) - started
    } catch (error) {
      throw new Error(`${contender.name}: ${error instanceof Error ? error.message : error}\n${tail(log())}`)
    }
  }
  return {
    pid: child.pid ?? 0,
    untilThere,
    delivered: async (limitMs) => {
      const ms = await untilThere(limitMs)
      const wrong = directories.find((directory) => !isPair(directory))
      if (wrong !== undefined) throw new Error(`${contender.name}: certificate and key in ${wrong} do not match`)
      const empty = secretDirectories.find((directory) => readFileSync(join(directory, SECRET_FILE), 'utf8') === '')
      if (empty !== undefined) throw new Error(`${contender.name}: the secret in ${empty} is empty`)
      return ms
    },
    scrape: async (times) => {
      const url = metricsUrl?.(log())
      if (url === undefined) return false
      for (let count = 0; count < times; count += 1) await scrapeOnce(contender.name, url)
      return true
    },
    startedAt: performance.timeOrigin + started,
    log,
    [Symbol.asyncDispose]: async () => {
      process.removeListener('exit', abandon)
      await end(child)
      for (const path of [folder, volume]) await rm(path, { recursive: true, force: true })
    },
  }
}

/**
 * When the last of the files was there, on the monotonic clock. Looks at one set after the other, and only whether its files exist: watching
 * takes processor time from what is watched.
 */
async function lastThereAt(
  child: ChildProcess,
  sets: readonly (readonly string[])[],
  deadline: number,
): Promise<number> {
  const pollMs = sets.length > 1 ? 5 : 1
  for (const [index, files] of sets.entries()) {
    while (!files.every((file) => existsSync(file))) {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`ended with ${child.exitCode ?? child.signalCode}`)
      if (performance.now() > deadline) throw new Error(`${index} of ${sets.length} sets in time`)
      await sleep(pollMs)
    }
  }
  return performance.now()
}

/** Both files parse and belong together. */
function isPair(directory: string): boolean {
  try {
    const certificate = new X509Certificate(readFileSync(join(directory, 'tls.crt')))
    return certificate.checkPrivateKey(createPrivateKey(readFileSync(join(directory, 'tls.key'))))
  } catch {
    return false
  }
}

async function scrapeOnce(name: string, url: string) {
  const reply = await fetch(url)
  const body = await reply.text()
  if (!reply.ok || body === '') throw new Error(`${name}: ${url} answers ${reply.status} ${body.slice(0, 200)}`)
}

/** SIGINT, as consul-template heeds no SIGTERM: all of them end well, and Node writes its compile cache. Nothing is measured any more. */
async function end(child: ChildProcess) {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGINT')
  const timer = setTimeout(() => child.kill('SIGKILL'), END_MS)
  await ended
  clearTimeout(timer)
}

const tail = (text: string) => text.trimEnd().split('\n').slice(-12).join('\n')
