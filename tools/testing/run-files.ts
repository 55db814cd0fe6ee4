import { relative } from 'node:path'
import { run } from 'node:test'
import { inspect } from 'node:util'
import type { TestMessage } from './messages.ts'

/**
 * `node tools/testing/run-files.ts [--name=PATTERN] FILE…`, started by suite.ts: runs all files in this one process and sends a message
 * for each test. node:test ends only when nothing keeps the process alive, so a leaked handle is told here instead of hanging.
 */
const LEAK_AFTER_MS = 10_000

const names = process.argv.filter((arg) => arg.startsWith('--name=')).map((arg) => arg.slice('--name='.length))
const files = process.argv.slice(2).filter((arg) => !arg.startsWith('--name='))
const path: string[] = []
let running = 0
let finished = 0

const idle = setInterval(() => {
  if (running > 0 || finished === 0) return
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
  if (type === 'test:start') {
    path.splice(data.nesting, path.length, data.name)
    running += 1
  } else if (type === 'test:pass' || type === 'test:fail') {
    running -= 1
    finished += 1
    idle.refresh()
    const error = type === 'test:fail' ? data.details.error : undefined
    if (type === 'test:pass' ? data.details.type !== 'suite' : !isEcho(error)) tell(messageOf(data, error))
  } else if (type === 'test:diagnostic' && data.message.includes('asynchronous activity after the test ended')) {
    tell({ result: 'failed', name: 'ends all it started', place: files.join(' '), durationMs: 0, detail: data.message })
  }
}

interface Finished {
  readonly name: string
  readonly nesting: number
  readonly file?: string | undefined
  readonly line?: number | undefined
  readonly skip?: string | boolean | undefined
  readonly details: { readonly duration_ms: number }
}

function messageOf({ name, nesting, file, line, skip, details }: Finished, error: unknown): TestMessage {
  const where = file ? relative(process.cwd(), file) : files.join(' ')
  return {
    result: error ? 'failed' : skip ? 'skipped' : 'passed',
    name: [...path.slice(0, nesting), name].join(' › '),
    place: line ? `${where}:${line}` : where,
    durationMs: details.duration_ms,
    detail: error ? describe(error) : typeof skip === 'string' ? skip : '',
  }
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
