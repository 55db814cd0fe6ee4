import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { parse } from 'yaml'
import * as z from 'zod'
import { chartValues } from '../../tools/docs/chart.ts'
import { ROOT } from '../../tools/packages.ts'

const read = (file: string) => readFile(join(ROOT, 'charts/certferry', file), 'utf8')

interface Schema {
  properties?: Record<string, Schema> | undefined
  additionalProperties?: boolean | object | undefined
}
const Schema: z.ZodType<Schema> = z.looseObject({
  properties: z.lazy(() => z.record(z.string(), Schema)).optional(),
  additionalProperties: z.union([z.boolean(), z.looseObject({})]).optional(),
})
const readSchema = async () => Schema.parse(JSON.parse(await read('values.schema.json')))

/** What Helm puts in itself, and the condition of a chart that contains this one. */
const NOT_OURS = ['global', 'enabled']

test('the schema of the chart and its values name the same keys', async () => {
  const values: unknown = parse(await read('values.yaml'))
  const differences = compare(await readSchema(), values, [])
  assert.deepEqual(differences, NOT_OURS.map((key) => `${key} is in the schema only`).sort())
})

function compare({ properties }: Schema, value: unknown, path: readonly string[]): string[] {
  if (!properties || typeof value !== 'object' || value === null || Array.isArray(value)) return []
  const given = new Map<string, unknown>(Object.entries(value))
  const named = (key: string) => [...path, key].join('.')
  // Maps that Kubernetes defines have an example in the values, not all keys.
  const isWhole = !['probes', 'resources', 'namespaceSelector', 'objectSelector'].some((name) => path.includes(name))
  return [
    ...[...given.keys()].filter((key) => !(key in properties)).map((key) => `${named(key)} is in the values only`),
    ...Object.entries(properties).flatMap(([key, schema]) => {
      if (given.has(key)) return compare(schema, given.get(key), [...path, key])
      return isWhole ? [`${named(key)} is in the schema only`] : []
    }),
  ].sort()
}

test('the schema lets no unknown key pass, at any depth', async () => {
  const open: string[] = []
  visit(await readSchema(), '')
  assert.deepEqual(open, [])

  function visit({ properties, additionalProperties }: Schema, path: string) {
    if (!properties) return
    if (additionalProperties !== false) open.push(path)
    for (const [key, schema] of Object.entries(properties)) visit(schema, `${path}.${key}`)
  }
})

test('every value is described, and the table of the README has a row for it', async () => {
  const readme = await read('README.md')
  const values = await chartValues()
  assert.ok(values.length > 60, `${values.length} values`)
  for (const { path } of values) assert.ok(readme.includes(`| \`${path}\` |`), path)
})

test('the chart has the version of certferry', async () => {
  const { version } = z
    .object({ version: z.string() })
    .parse(JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')))
  const chart = z.object({ version: z.string(), appVersion: z.string() }).parse(parse(await read('Chart.yaml')))
  assert.deepEqual(chart, { version, appVersion: version })
})
