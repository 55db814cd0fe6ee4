import { constants } from 'node:os'
import { CommanderError } from 'commander'
import type { Io } from './commands/io.ts'
import { redact } from './core/secret.ts'
import { toSidecarError } from './errors.ts'
import { keepMemoryPrivate } from './hardening.ts'
import { createProgram } from './program.ts'

const USAGE = 64
const BUG = 70
/** Time for the last lines after a stop, ms. */
const LINGER_MS = 500
/** A stop that takes longer waits for something very slow, such as a file system; whatever it is at, the next start mends. */
const DEADLINE_MS = 4_000

const ENDING = ['SIGTERM', 'SIGINT'] as const
const HELD = ['SIGUSR1', 'SIGUSR2'] as const
const TRAPPED = [...ENDING, ...HELD]

const stop = new AbortController()
const io: Io = {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  self: [process.execPath, ...process.execArgv, process.argv[1] ?? ''],
  signal: stop.signal,
  onHangup: (listener) => process.on('SIGHUP', listener),
  process,
  releaseSignals: () => {
    for (const signal of TRAPPED) process.removeAllListeners(signal)
    return process
  },
}

void main(process.argv)

async function main(argv: readonly string[]): Promise<void> {
  outliveReaders()
  try {
    keepMemoryPrivate(process)
    trapSignals()
    await createProgram(io, (code) => {
      process.exitCode = code
    }).parseAsync([...argv])
  } catch (thrown) {
    process.exitCode = report(thrown)
  }
  // After a stop nothing may keep the process: a log that nobody reads, a file system that hangs.
  if (stop.signal.aborted) setTimeout(leave, LINGER_MS).unref()
}

/** The first SIGTERM or SIGINT ends cleanly, the second at once. SIGUSR1 is held, or Node would open its inspector; and SIGUSR2, by which others ask for a report. */
function trapSignals(): void {
  for (const signal of ENDING) {
    process.on(signal, () => {
      if (stop.signal.aborted) leave(128 + constants.signals[signal])
      setTimeout(leave, DEADLINE_MS).unref()
      stop.abort(new DOMException(signal, 'AbortError'))
    })
  }
  for (const signal of HELD) process.on(signal, () => {})
  process.on('uncaughtException', (error) => {
    if (stop.signal.aborted) leave(BUG)
    process.exitCode = report(error)
    stop.abort(error)
  })
}

/** Work that a thread does for us, and that nobody can call off. */
const UNDER_WAY = /^FSReq|^FileHandleCloseReq$|^GetAddrInfoReqWrap$/

/** Ends now. Node's own exit waits for its threads, so a call into a hanging file system would hold it for as long as that hangs. */
function leave(code?: number): void {
  if (process.getActiveResourcesInfo().some((type) => UNDER_WAY.test(type))) process.kill(process.pid, 'SIGKILL')
  process.exit(code)
}

/** A terminal or a pipe may be closed before us. That is no failure, and telling it on the closed stream would be the next one, without end. */
function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
}

/** Tells why a command failed, and with which exit code it ends. Commander has told its own errors already. */
function report(thrown: unknown): number {
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? 0 : USAGE
  if (io.signal.aborted && thrown === io.signal.reason) return 0
  const error = toSidecarError(thrown)
  io.stderr.write(fitted(`certferry: ${redact(error.message)}\n  ${error.kind.hint}\n`, io.stderr.columns))
  if (error.code === 'BUG' && error.cause instanceof Error) io.stderr.write(`${redact(error.cause.stack ?? '')}\n`)
  return error.kind.exit
}

/** On a terminal, lines break between words, and go on indented. */
function fitted(text: string, columns: number | undefined): string {
  if (columns === undefined) return text
  const breakLine = (line: string) => {
    const indent = `${/^ */.exec(line)?.[0]}  `
    return line.split(/(?<=\S) /).reduce((done, word) => {
      const isFull = done.length - done.lastIndexOf('\n') + word.length > columns
      return isFull ? `${done}\n${indent}${word}` : `${done} ${word}`
    })
  }
  return text.split('\n').map(breakLine).join('\n')
}
