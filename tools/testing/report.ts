import { styleText } from 'node:util'
import type { TestMessage } from './messages.ts'

/** One finished part of the run: lint, types, the unit tests, or one integration file. */
export interface Step {
  readonly title: string
  readonly tests: readonly TestMessage[]
  /** What its tests have measured. */
  readonly figures?: readonly string[]
  /** All that it printed; shown where something failed. */
  readonly output: string
  readonly durationMs: number
}

const OUTPUT_LINES = 60
const SLOWEST = 5
const SLOW_MS = 100

/** Shows the test that just ended on one line that is overwritten, on a terminal only. */
export function showProgress(stream: NodeJS.WriteStream, counts: { total: number; failed: number }, name: string) {
  if (!stream.isTTY) return
  const line = `  ${counts.total} done, ${counts.failed} failed · ${name.replaceAll(/\s+/g, ' ')}`
  stream.write(`\r\x1b[2K${line.slice(0, stream.columns - 1)}`)
}

/** One line for a finished part, and below it what was measured. */
export function showStep(stream: NodeJS.WriteStream, { title, tests, figures = [], durationMs }: Step) {
  const failed = tests.filter(({ result }) => result === 'failed').length
  const skipped = tests.filter(({ result }) => result === 'skipped').length
  const counts = [
    tests.length > 1 ? `${tests.length} tests` : '',
    failed > 0 ? `${failed} failed` : '',
    skipped > 0 ? `${skipped} skipped` : '',
    seconds(durationMs),
  ]
  const mark = failed > 0 ? styleText('red', '✗') : styleText('green', '✓')
  stream.write(`${stream.isTTY ? '\r\x1b[2K' : ''}${mark} ${title}  ${counts.filter(Boolean).join(', ')}\n`)
  for (const figure of figures) stream.write(`  ${styleText('dim', figure)}\n`)
}

/** Failures in full, what was skipped and why, the slowest tests, and as last line `N passed, N failed`. */
export function summarise(steps: readonly Step[]): string {
  const tests = steps.flatMap((step) => step.tests)
  const count = (result: TestMessage['result']) => tests.filter((test) => test.result === result).length
  const skipped = count('skipped')
  return [
    ...steps.flatMap(describeFailures),
    ...describeSkipped(tests),
    ...describeSlowest(tests),
    '',
    `${count('passed')} passed, ${count('failed')} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`,
  ].join('\n')
}

function describeFailures({ title, tests, output }: Step): string[] {
  const failed = tests.filter(({ result }) => result === 'failed')
  if (failed.length === 0) return []
  const printed = output.trimEnd().split('\n').slice(-OUTPUT_LINES)
  return [
    ...failed.flatMap(({ name, place, detail }) => ['', styleText('red', `✗ ${name}`), `  ${place}`, indent(detail)]),
    ...(printed.join('') === ''
      ? []
      : ['', `  what ${title} printed (last ${OUTPUT_LINES} lines at most):`, indent(printed.join('\n'))]),
  ]
}

function describeSkipped(tests: readonly TestMessage[]): string[] {
  const reasons = Map.groupBy(
    tests.filter(({ result }) => result === 'skipped'),
    ({ detail }) => detail,
  )
  return [...reasons].map(([reason, group]) =>
    styleText(
      'yellow',
      `\nSKIPPED ${group.length === 1 ? '1 test' : `${group.length} tests`}, ${group[0]?.place ?? ''}: ${reason || 'no reason given'}`,
    ),
  )
}

function describeSlowest(tests: readonly TestMessage[]): string[] {
  const slow = tests.filter(({ durationMs }) => durationMs >= SLOW_MS).toSorted((a, b) => b.durationMs - a.durationMs)
  if (slow.length === 0) return []
  return [
    '',
    'slowest',
    ...slow.slice(0, SLOWEST).map((test) => `  ${seconds(test.durationMs)}  ${test.name}  (${test.place})`),
  ]
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`
const indent = (text: string) => text.replaceAll(/^/gm, '    ')
