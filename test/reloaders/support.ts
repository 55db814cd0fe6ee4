import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type Clock, systemClock } from '../../src/clock.ts'
import { type ErrorCode, SidecarError } from '../../src/errors.ts'
import { reloaders } from '../../src/reloaders/index.ts'
import type { ReloadContext, ReloaderDeps } from '../../src/reloaders/reloader.ts'

export const context: ReloadContext = {
  certificates: ['web'],
  serial: '4a',
  fingerprint: 'f00d',
  notAfter: Date.UTC(2030, 0, 2),
  lifetimeMs: 86_400_000,
  isFirst: false,
  directories: ['/tls/web'],
}

/** Quicker than real, so that waiting for a timeout costs little. */
const SPEED = 20
const fastClock: Clock = {
  ...systemClock,
  elapsed: () => systemClock.elapsed() * SPEED,
  sleep: (ms, signal) => systemClock.sleep(ms / SPEED, signal),
}

export const deps: ReloaderDeps = {
  clock: fastClock,
  env: { PATH: process.env.PATH, HOME: '/home/me' },
  kubernetes: () => assert.fail('this test is not about Kubernetes'),
}

export const never = new AbortController().signal

/** A reloader from options as the config gives them. */
export const make = (options: Record<string, unknown>) => reloaders.create(reloaders.schema.parse(options), deps)

/** For `assert.rejects`: the code, and what the message must say. */
export const failure = (code: ErrorCode, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof SidecarError, String(error))
  assert.equal(error.code, code, error.message)
  assert.match(error.message, message)
  return true
}

/** A new folder, removed with all in it at the end of the scope. */
export async function temporaryFolder() {
  const path = await mkdtemp(join(tmpdir(), 'certferry-test-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

/** A copy of the shell under another name, so that a process called by that name can be run. */
export async function shellNamed(name: string, folder: string): Promise<string> {
  const path = join(folder, name)
  await copyFile('/bin/sh', path)
  return path
}

/** A shell program in a process group of its own, killed as a whole at the end of the scope. `next` gives its lines, one by one. */
export function runShell(shell: string, script: string, ...args: readonly string[]) {
  const child = spawn(shell, ['-c', script, shell, ...args], { detached: true, stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  return {
    pid: child.pid ?? 0,
    next: async () => (await lines.next()).value,
    [Symbol.asyncDispose]: () => end(child),
  }
}

async function end(child: ChildProcess) {
  const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : undefined
  try {
    process.kill(-(child.pid ?? 0), 'SIGKILL')
  } catch {
    // The group is gone already.
  }
  await ended
  child.stdout?.destroy()
}

/** Tells each SIGHUP, and lives until it is killed. */
export const COUNTS_HUPS = 'trap "echo HUP" HUP; echo ready; while :; do sleep 100 & wait; done'
