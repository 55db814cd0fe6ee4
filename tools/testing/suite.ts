import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Message, type TestMessage } from './messages.ts'

const RUN_FILES = fileURLToPath(new URL('run-files.ts', import.meta.url))
const LEFTOVER_GRACE_MS = 2_000

export interface SuiteOptions {
  /** What it is called in the report. */
  readonly title: string
  readonly files: readonly string[]
  /** Only tests whose name matches. */
  readonly namePattern?: string | undefined
  /** The process is killed then, and the run counts as failed. */
  readonly timeoutMs: number
  readonly onTest: (test: TestMessage) => void
  readonly signal: AbortSignal
}

/**
 * Runs test files in one new process, which leads a session of its own so that what it leaves behind can be told and ended.
 * A crash, the timeout and a process left behind count as failed tests.
 */
export async function runSuite({ title, files, namePattern, timeoutMs, onTest, signal }: SuiteOptions) {
  const tests: TestMessage[] = []
  const figures: string[] = []
  const marker = `CERTFERRY_TEST_SUITE=${process.pid}:${files[0]}`
  const args = [RUN_FILES, ...(namePattern ? [`--name=${namePattern}`] : []), ...files]
  const child = spawn(process.execPath, args, {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    env: { ...process.env, CERTFERRY_TEST_SUITE: marker.slice('CERTFERRY_TEST_SUITE='.length) },
  })
  const end = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)])
  end.addEventListener('abort', () => killGroup(child.pid), { once: true })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text) => (output += text))
  const add = (test: TestMessage) => {
    tests.push(test)
    onTest(test)
  }
  let running: readonly string[] = []
  let done = false
  child.on('message', (received) => {
    const message = Message.parse(received)
    if ('done' in message) done = true
    else if ('running' in message) running = message.running
    else if ('figure' in message) figures.push(message.figure)
    else add(message)
  })
  const closed = once(child, 'close').catch(() => [])
  const [code, killedBy] = await new Promise<[number | null, string | null]>((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', (...how) => resolve(how))
  })
  // A process left behind may hold the pipes, so the rest of the output and of the messages is awaited once those are gone.
  const leftover = await endLeftovers(marker, child.pid)
  await Promise.race([closed, sleep(1_000)])
  const fail = (name: string, detail: string) => add({ result: 'failed', name, place: title, durationMs: 0, detail })
  for (const process of leftover) fail('leaves no process behind', process)
  const during = () => `running then: ${running.join(', ') || 'no test'}`
  const failed = tests.some(({ result }) => result === 'failed')
  if (signal.aborted) fail('is run to its end', 'stopped by a signal')
  else if (end.aborted) fail('ends in time', `killed after ${timeoutMs / 1000} s; ${during()}`)
  else if (code !== 0 && !(code === 1 && failed))
    fail('does not crash', `ended with ${killedBy ?? `exit code ${code}`}; ${during()}`)
  else if (!done && !failed) fail('is run to its end', `the process ended early, with exit code 0; ${during()}`)
  else if (tests.length === 0 && namePattern === undefined) fail('holds a test', 'no test was run')
  return { tests, figures, output }
}

function killGroup(pid: number | undefined) {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It ended in the meantime.
  }
}

/** Waits a moment for the children of the test process to end, then kills and names what is left. Needs /proc; elsewhere nothing is found. */
async function endLeftovers(marker: string, session: number | undefined): Promise<string[]> {
  const deadline = Date.now() + LEFTOVER_GRACE_MS
  let left = await findLeftovers(marker, session)
  while (left.length > 0 && Date.now() < deadline) {
    await sleep(100)
    left = await findLeftovers(marker, session)
  }
  for (const { pid } of left) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It ended in the meantime.
    }
  }
  return left.map(({ pid, command }) => `${pid} ${command}`)
}

/** Processes of the same session, or that carry the marker in their environment (those that made a session of their own). */
async function findLeftovers(marker: string, session: number | undefined) {
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name)).map(Number)
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [stat, environment, command] = await Promise.all(
        ['stat', 'environ', 'cmdline'].map((file) => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')),
      )
      const [state, , , itsSession] = (stat ?? '').slice((stat ?? '').lastIndexOf(')') + 2).split(' ')
      if (!state || state === 'Z' || state === 'X') return []
      const ours = Number(itsSession) === session || environment?.split('\0').includes(marker)
      return ours ? [{ pid, command: command?.replaceAll('\0', ' ').trim() ?? '' }] : []
    }),
  )
  return found.flat()
}
