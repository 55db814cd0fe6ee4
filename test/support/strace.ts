import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync } from 'node:fs'
import { component } from './components.ts'

/** The calls by which a store changes a disk. Opening is not among them: what it makes is seen by the call after it. */
export const WRITE_CALLS = '/^(mkdir|fchmod|fchown|pwrite64|fsync|symlink|rename|unlink|rmdir)'

export interface Traced {
  readonly stdout: string
  readonly stderr: string
  /** undefined when it was killed. */
  readonly exitCode: number | undefined
  /** One line per traced call, in order, of the thread that does file work. */
  readonly calls: readonly string[]
}

/**
 * Runs Node under strace with all file work in one thread, so that the calls of two runs are the same ones.
 * `inject` is strace's: `fsync:error=EIO:when=3`, `rename:signal=KILL:when=1`.
 */
export async function traceNode(args: readonly string[], logPath: string, inject?: string): Promise<Traced> {
  const strace = await component('strace')
  const options = ['-f', '-y', '-qq', '-e', 'signal=none', '-o', logPath, '-e', `trace=${WRITE_CALLS}`]
  const injection = inject === undefined ? [] : ['-e', `inject=${inject}`]
  const env = { ...process.env, UV_THREADPOOL_SIZE: '1', NODE_TEST_CONTEXT: undefined }
  const { stdout, stderr, code } = await run(strace, [...options, ...injection, process.execPath, ...args], env)
  const calls = callsIn(logPath)
  rmSync(logPath)
  return { stdout, stderr, exitCode: code, calls }
}

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv) {
  return new Promise<{ stdout: string; stderr: string; code: number | undefined }>((resolve) => {
    execFile(command, args, { env }, (error, stdout, stderr) => {
      const code = error ? error.code : 0
      resolve({ stdout, stderr, code: typeof code === 'number' ? code : undefined })
    })
  })
}

/** The calls of a log, in order, of the thread that does file work. */
export const callsIn = (logPath: string): readonly string[] => busiest(readFileSync(logPath, 'utf8').split('\n'))

/** `1234 rename("a", "b") = 0` of the thread with the most calls, without its number. */
function busiest(lines: readonly string[]): string[] {
  const calls = lines.filter((line) => /^\d+ +\w+\(/.test(line)).map((line) => line.split(/ +(.*)/s))
  const threads = Map.groupBy(calls, ([thread]) => thread)
  const most = [...threads.values()].sort((a, b) => b.length - a.length)[0] ?? []
  return most.map(([, call = '']) => call)
}

/** The name of a traced call. */
export const nameOf = (call: string): string => call.slice(0, call.indexOf('('))

/** How a call is named for injection: the third fsync is `{ name: 'fsync', when: 3 }`. */
export function numbered(calls: readonly string[]): { readonly name: string; readonly when: number }[] {
  const counts = new Map<string, number>()
  return calls.map(nameOf).map((name) => {
    const when = (counts.get(name) ?? 0) + 1
    counts.set(name, when)
    return { name, when }
  })
}

/**
 * A strace at work on a running process; disposing it lets go of the process, which runs on. Without anything to inject it keeps a
 * log of the calls that write, for {@link callsIn}.
 */
export async function attachStrace(
  pid: number,
  inject: readonly string[],
  logPath = '/dev/null',
): Promise<AsyncDisposable> {
  const calls = [...new Set(inject.map((rule) => rule.slice(0, rule.indexOf(':'))))]
  const rules = inject.flatMap((rule) => ['-e', `inject=${rule}`])
  return attach(pid, ['-o', logPath, '-e', `trace=${calls.join(',') || WRITE_CALLS}`, ...rules])
}

/** The same, with a log of the calls in which a thread waits: when each began, and how long it took. */
export const attachToWaits = (pid: number, logPath: string): Promise<AsyncDisposable> =>
  attach(pid, ['-ttt', '-T', '-o', logPath, '-e', `trace=${WAIT_CALLS}`])

const WAIT_CALLS =
  '?epoll_wait,epoll_pwait,?epoll_pwait2,futex,?poll,ppoll,?select,pselect6,nanosleep,clock_nanosleep,?io_uring_enter'

async function attach(pid: number, options: readonly string[]): Promise<AsyncDisposable> {
  const strace = await component('strace')
  const child = spawn(strace, ['-f', '-e', 'signal=none', ...options, '-p', `${pid}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const ended = once(child, 'close')
  const detach = () => child.kill('SIGINT')
  process.once('exit', detach)
  let told = ''
  await new Promise<void>((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      told += text
      if (told.includes(`Process ${pid} attached`)) resolve()
    })
    ended.then(() => reject(new Error(`strace could not attach: ${told}`)), reject)
  })
  return {
    [Symbol.asyncDispose]: async () => {
      process.removeListener('exit', detach)
      detach()
      await ended
    },
  }
}

/** Calls by which a process hands anything to anybody: content, names of files, and what it starts. */
const TELLING =
  'write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,openat,mkdir,symlink,rename,unlink,setxattr,execve,prctl'

/** Words that execute a command in their own place, with a strace beside it that records into a file what it tells anybody. */
export const recorder = async (logPath: string): Promise<readonly string[]> => [
  ...[await component('strace'), '-D', '-f', '-q', '-yy', '-xx', '-v', '-s', '1000000'],
  ...['-e', 'signal=none', '-e', `trace=${TELLING}`, '-o', logPath],
]

/** Whether the record of a process is complete. */
export const isRecorded = (logPath: string, pid: number): boolean =>
  new RegExp(`^${pid} +\\+\\+\\+ (?:exited|killed) `, 'm').test(readFileSync(logPath, 'latin1'))

/**
 * What a recorded process told, by whom or what it told it: the path of a file, `TCP:[from->to]`, a pipe, or the name of a call without a
 * descriptor. Writes to one descriptor are put together.
 */
export function recorded(logPath: string): ReadonlyMap<string, Buffer> {
  const told = new Map<string, Buffer[]>()
  for (const line of readFileSync(logPath, 'latin1').split('\n')) {
    const [, call = '', place = call, rest = ''] = /^\d+ +(\w+)\((?:\d+<((?:->|[^>])*)>)?(.*)/.exec(line) ?? []
    if (call === '') continue
    const parts = told.get(decoded(place)) ?? []
    told.set(decoded(place), parts)
    for (const [text] of rest.matchAll(HEX)) parts.push(bytesOf(text))
  }
  return new Map([...told].map(([place, parts]) => [place, Buffer.concat(parts)]))
}

const HEX = /(?:\\x[0-9a-f]{2})+/g
const bytesOf = (text: string) => Buffer.from(text.replaceAll('\\x', ''), 'hex')
const decoded = (text: string) => text.replace(HEX, (part) => bytesOf(part).toString('utf8'))
