import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { FAULTS } from '../../tools/faults/catalogue.ts'
import { figuresOf, renderFaults } from '../../tools/faults/report.ts'
import { namedAfterRows, ROW_PATTERN, rowsOf } from '../../tools/faults/rows.ts'
import type { TestMessage } from '../../tools/testing/messages.ts'

const root = join(import.meta.dirname, '../..')
// Names below are examples.
const named = (await namedAfterRows(root)).filter(({ file }) => file !== 'test/tools/faults.test.ts')
const tried = new Set(named.flatMap(({ name }) => rowsOf(name)))

test('every row of the fault catalogue has a test that is named after it, or says why it has none', () => {
  for (const [id, { untried }] of Object.entries(FAULTS))
    assert.equal(
      tried.has(id),
      untried === undefined,
      untried === undefined ? `no test begins with "${id} "` : `${id} is tried after all`,
    )
})

test('no test is named after a row that is not in the catalogue', () => {
  assert.deepEqual(
    named.filter(({ name }) => rowsOf(name).some((id) => !Object.hasOwn(FAULTS, id))),
    [],
  )
})

test('docs/faults.md has every row, and every test named after one (if not: npm run test:faults)', () => {
  const page = readFileSync(join(root, 'docs/faults.md'), 'utf8')
  for (const id of Object.keys(FAULTS)) assert.ok(page.includes(`</a>${id} |`), id)
  const lacking = named.filter(({ file }) => !page.includes(file.replace(/^test\//, '')))
  assert.deepEqual(lacking, [])
  assert.ok(!page.includes('✗'), 'the last run had no failure')
})

test('the rows of a test are the ids its name begins with, or that of a suite around it', () => {
  for (const [name, rows] of [
    ['V1 a sealed Vault', ['V1']],
    ['F1, F3 and X7 a full volume', ['F1', 'F3', 'X7']],
    ['R10 reloads › is proven', ['R10']],
    ['reloads › R9 a reload that fails', ['R9']],
    ['keys of P256 are made', []],
    ['the V1 of something', []],
  ] as const) {
    assert.deepEqual(rowsOf(name), rows)
    if (rows.length > 0) assert.match(name.replaceAll(' › ', ' '), new RegExp(ROW_PATTERN))
  }
})

test('a row counts as survived when all of its tests passed, and as untried when all were skipped', () => {
  const told = (name: string, result: TestMessage['result']): TestMessage => ({
    name,
    result,
    place: 'test/x.test.ts:1',
    durationMs: 1,
    detail: 'no root',
  })
  const tests = [
    told('V1 a', 'passed'),
    told('V1 b', 'failed'),
    told('V2, V3 c', 'passed'),
    told('F1 d', 'skipped'),
    told('else', 'failed'),
  ]
  const rows = Object.keys(FAULTS).length
  assert.deepEqual(figuresOf({ tests }), {
    rows,
    tried: 3,
    survived: 2,
    untried: rows - 3,
    tests: 4,
    failed: 1,
    skipped: 1,
  })
  const page = renderFaults({ tests, date: '2026-01-01', parts: ['Vault 1'] })
  assert.match(page, /✗ b · `x\.test\.ts`/)
  assert.match(page, /– d \(skipped: no root\)/)
})
