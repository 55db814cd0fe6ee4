import { type ChildProcess, spawn } from 'node:child_process'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Contender, Job } from './contenders.ts'

/** Nothing here takes longer than a second or two; a contender that does has failed. */
const LIMIT_MS = 60_000
const POLL_MS = 1
const END_MS = 5_000

export interface Memory {
  readonly residentBytes: number
  /** Memory of its own that no file backs: what counts against a limit when files are evicted. */
  readonly anonymousBytes: number
}

export interface Run {
  /** From the start of the process to the last certificate and key on disk, complete and matching. */
  readonly readyMs: number
  /** After `settleMs` without work; undefined when not asked for. */
  readonly memory?: Memory
}

export interface RunOptions extends Pick<Job, 'vault' | 'role'> {
  readonly certificates: number
  /** How long to leave the contender alone before its memory is read; undefined for no reading. */
  readonly settleMs?: number
}

/** Starts a contender on an empty folder, times it until all certificates are there, and ends it. */
export async function measure(contender: Contender, { certificates, settleMs, ...job }: RunOptions): Promise<Run> {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-bench-'))
  const directories = Array.from({ length: certificates }, (_, index) => join(folder, 'tls', String(index)))
  for (const directory of directories) mkdirSync(directory, { recursive: true })
  const { program, args, env } = contender.prepare({ ...job, folder, directories })
  const log = openSync(join(folder, 'log'), 'w')
  const started = performance.now()
  const child = spawn(program, args, { env: { ...env }, cwd: folder, stdio: ['ignore', log, log] })
  try {
    await untilReady(child, directories).catch((error) => {
      throw new Error(
        `${contender.name}: ${error instanceof Error ? error.message : error}\n${tail(join(folder, 'log'))}`,
      )
    })
    const readyMs = performance.now() - started
    if (settleMs === undefined) return { readyMs }
    await sleep(settleMs)
    return { readyMs, memory: memoryOf(child.pid) }
  } finally {
    await end(child)
    closeSync(log)
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Looks at one certificate after the other, so that watching costs little beside what is watched. */
async function untilReady(child: ChildProcess, directories: readonly string[]) {
  const deadline = performance.now() + LIMIT_MS
  for (const directory of directories) {
    while (!isComplete(directory)) {
      if (child.exitCode !== null || child.signalCode !== null)
        throw new Error(`ended with ${child.exitCode ?? child.signalCode}`)
      if (performance.now() > deadline) throw new Error(`no certificate in ${directory} after ${LIMIT_MS / 1000} s`)
      await sleep(POLL_MS)
    }
  }
}

/** Both files exist, parse and belong together. */
function isComplete(directory: string): boolean {
  const [certificate, key] = [join(directory, 'tls.crt'), join(directory, 'tls.key')]
  if (!existsSync(certificate) || !existsSync(key)) return false
  try {
    return new X509Certificate(readFileSync(certificate)).checkPrivateKey(createPrivateKey(readFileSync(key)))
  } catch {
    return false
  }
}

/** proc(5): smaps_rollup, in kB. */
function memoryOf(pid: number | undefined): Memory {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const bytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1]) * 1024
  return { residentBytes: bytes('Rss'), anonymousBytes: bytes('Anonymous') }
}

/** SIGTERM lets Node write its compile cache; consul-template does not heed it while it retries. Nothing is measured any more. */
async function end(child: ChildProcess) {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), END_MS)
  await ended
  clearTimeout(timer)
}

const tail = (file: string) => readFileSync(file, 'utf8').trimEnd().split('\n').slice(-12).join('\n')
