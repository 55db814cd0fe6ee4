import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as z from 'zod'
import { configJsonSchema, printedJsonSchema } from '../../src/config/schema.ts'
import { EXAMPLE, renderConfiguration } from '../../tools/docs/configuration.ts'
import { load } from '../config/support.ts'

const page = renderConfiguration()

test('the example of the reference is valid', () => {
  const { certificates, vault } = load(EXAMPLE)
  assert.equal(certificates[0]?.outputs.length, 1)
  assert.equal(vault?.address, 'https://vault.example.com:8200')
})

test('every key of every kind is explained', () => {
  const rows = page.split('\n').filter((line) => line.startsWith('| `'))
  assert.ok(rows.length > 100)
  for (const row of rows) assert.match(row, /\| [^|]*\S[^|]* \|$/, row)
})

test('every key of the schema is in the reference', () => {
  const missing = keysOf(configJsonSchema()).filter((key) => !new RegExp(`\`(?:\\w+\\.)*${key}\``).test(page))
  assert.deepEqual(missing, [])
})

test('the JSON Schema is one, and knows what is required', () => {
  const schema = z
    .object({ $schema: z.url(), anyOf: z.array(z.unknown()), properties: z.record(z.string(), z.unknown()) })
    .parse(JSON.parse(JSON.stringify(printedJsonSchema())))
  assert.match(schema.$schema, /json-schema\.org\/draft\/2020-12/)
  assert.deepEqual(schema.anyOf, [{ required: ['certificates'] }, { required: ['secrets'] }, { required: ['trust'] }])
  assert.deepEqual(Object.keys(schema.properties).sort(), [
    'admin',
    'audit',
    'certificates',
    'exec',
    'injector',
    'kubernetes',
    'log',
    'secrets',
    'trust',
    'vault',
    'vaults',
    'volumes',
  ])
})

/** Names of all properties, however deep. */
function keysOf(schema: unknown): string[] {
  if (typeof schema !== 'object' || schema === null) return []
  return Object.entries(schema).flatMap(([key, value]) =>
    key === 'properties' && typeof value === 'object' && value !== null
      ? [...Object.keys(value), ...Object.values(value).flatMap(keysOf)]
      : keysOf(value),
  )
}
