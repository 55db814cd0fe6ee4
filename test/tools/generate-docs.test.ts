import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ERRORS } from '../../src/errors.ts'
import { CERTIFICATE_ANNOTATIONS, PodAnnotations } from '../../src/injector/annotations.ts'
import { EVENTS } from '../../src/observe/events.ts'
import * as tables from '../../src/observe/metric-table.ts'
import { ALERTS } from '../../tools/docs/metrics.ts'
import { documents, lagging } from '../../tools/generate-docs.ts'

const read = (file: string) => readFileSync(join(import.meta.dirname, '../..', file), 'utf8')

test('the generated pages are up to date (if not: npm run docs)', async () => {
  assert.deepEqual(await lagging(), [])
})

test('each page is written once: a README, or one below docs/', () => {
  const files = documents.map(({ file }) => file)
  assert.equal(new Set(files).size, files.length)
  for (const file of files) assert.match(file, /^(README|charts\/certferry\/README|docs\/[a-z-]+)\.md$/)
})

test('every annotation is in the page on Kubernetes', () => {
  const page = read('docs/kubernetes.md')
  const names = [
    ...Object.keys(PodAnnotations.shape),
    ...Object.keys(CERTIFICATE_ANNOTATIONS).map((name) => `${name}.NAME`),
  ]
  assert.deepEqual(
    names.filter((name) => !page.includes(`\n| \`${name}\` |`)),
    [],
  )
})

test('every error, event and metric is in its page', () => {
  const { PREFIX, PROCESS_METRICS, ...prefixed } = tables
  const pages = {
    'docs/errors.md': Object.keys(ERRORS),
    'docs/events.md': Object.keys(EVENTS),
    'docs/metrics.md': [
      ...Object.values(prefixed).flatMap((table) => Object.keys(table).map((name) => PREFIX + name)),
      ...Object.keys(PROCESS_METRICS),
    ],
  }
  for (const [file, names] of Object.entries(pages)) {
    const page = read(file)
    assert.deepEqual(
      names.filter((name) => !page.includes(`| \`${name}\` |`)),
      [],
      file,
    )
  }
})

test('every event names its fields', () => {
  const rows = read('docs/events.md')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
  assert.equal(rows.length, Object.keys(EVENTS).length)
  for (const row of rows) assert.match(row.split('|')[4] ?? '', /`\w+`/, row)
})

test('alerts use metrics that exist', () => {
  const page = read('docs/metrics.md')
  for (const [what, expression] of ALERTS) {
    const names = expression.match(/certferry_\w+/g) ?? []
    assert.ok(names.length > 0, what)
    for (const name of names) assert.ok(page.includes(`| \`${name}\` | `), name)
  }
})
