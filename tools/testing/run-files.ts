import { relative } from 'node:path'
import { run } from 'node:test'
import { inspect } from 'node:util'
import type { DoneMessage, FigureMessage, RunningMessage, TestMessage } from './messages.ts'

/**
 * `node tools/testing/run-files.ts [--name=PATTERN] FILE…`, started by suite.ts: runs all files in this one process and sends a message
 * for each test. node:test ends only when nothing keeps the process alive, so a leaked handle is told here instead of hanging.
 */
const LEAK_AFTER_MS = 10_000

/** node:test tells its totals in the same way. */
const OWN_TOTALS = /^(?:tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/

const names = process.argv.filter((arg) => arg.startsWith('--name=')).map((arg) => arg.slice('--name='.length))
const files = process.argv.slice(2).filter((arg) => !arg.startsWith('--name='))
const path: string[] = []
const running = new Set<string>()
let finished = 0

const idle = setInterval(() => {
  if (running.size > 0 || finished === 0) return
  const resources = process.getActiveResourcesInfo().filter((name) => name !== 'TTYWrap' && name !== 'PipeWrap')
  const detail = `All tests have finished, yet the process stays alive. Still open: ${resources.join(', ') || 'unknown'}`
  const leak = { result: 'failed', name: 'leaves nothing open', place: files.join(' '), durationMs: 0, detail } as const
  process.send?.(leak, () => process.exit(1))
}, LEAK_AFTER_MS)
idle.unref()

for await (const { type, data } of run({
  files,
  isolation: 'none',
  ...(names.length > 0 && { testNamePatterns: names }),
})) {
  // dequeue and complete come at once; start, pass and fail come in the order of declaration, later.
  if (type === 'test:dequeue' || type === 'test:complete') {
    const test = `${data.name} (${placeOf(data)})`
    if (type === 'test:dequeue') running.add(test)
    else running.delete(test)
    idle.refresh()
    process.send?.({ running: [...running] } satisfies RunningMessage)
  } else if (type === 'test:start') {
    path.splice(data.nesting, path.length, data.name)
  } else if (type === 'test:pass' || type === 'test:fail') {
    finished += 1
    const error = type === 'test:fail' ? data.details.error : undefined
    if (type === 'test:pass' ? countsAlone(data) : !isEcho(error)) tell(messageOf(data, error))
  } else if (type === 'test:diagnostic' && data.message.includes('asynchronous activity after the test ended')) {
    tell({ result: 'failed', name: 'ends all it started', place: files.join(' '), durationMs: 0, detail: data.message })
  } else if (type === 'test:diagnostic' && !OWN_TOTALS.test(data.message)) {
    process.send?.({ figure: data.message } satisfies FigureMessage)
  }
}

process.send?.({ done: true } satisfies DoneMessage)

interface Place {
  readonly file?: string | undefined
  readonly line?: number | undefined
}

interface Finished extends Place {
  readonly name: string
  readonly nesting: number
  readonly skip?: string | boolean | undefined
  readonly details: { readonly duration_ms: number; readonly type?: string | undefined }
}

/** A suite is told by its tests; one that is skipped has none. */
function countsAlone({ details, skip }: Finished): boolean {
  return details.type !== 'suite' || (skip !== undefined && skip !== false)
}

function messageOf(test: Finished, error: unknown): TestMessage {
  const { name, nesting, skip, details } = test
  return {
    result: error ? 'failed' : skip ? 'skipped' : 'passed',
    name: [...path.slice(0, nesting), name].join(' › '),
    place: placeOf(test),
    durationMs: details.duration_ms,
    detail: error ? describe(error) : typeof skip === 'string' ? skip : '',
  }
}

function placeOf({ file, line }: Place): string {
  const where = file ? relative(process.cwd(), file) : files.join(' ')
  return line ? `${where}:${line}` : where
}

/** A parent fails because a child did; the child was told already. */
function isEcho(error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'failureType' in error && error.failureType === 'subtestsFailed'
}

function describe(error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
  return typeof cause === 'string' ? cause : inspect(cause, { colors: process.env.FORCE_COLOR !== undefined, depth: 6 })
}

function tell(message: TestMessage) {
  process.send?.(message)
}
