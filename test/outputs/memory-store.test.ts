import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Content } from '../../src/core/content.ts'
import { createMemoryStore } from '../../src/outputs/memory-store.ts'

const content = (fingerprint: string): Content => ({
  origin: 'test',
  fingerprint,
  serial: fingerprint,
  notBefore: 0,
  notAfter: 1,
  receivedAt: 0,
})
const set = (bundle: Content) => ({ bundle, directories: [] })

test('a store without files has what was applied last, and goes back to what was proven', async () => {
  await using store = createMemoryStore()
  assert.deepEqual(await store.open(), { current: undefined, pending: undefined })
  assert.deepEqual(await store.apply(set(content('a'))), { changed: true, previous: undefined })
  await store.settle(1)
  const { changed, previous } = await store.apply(set(content('b')))
  assert.deepEqual([changed, previous?.fingerprint], [true, 'a'])
  await store.undo()
  assert.equal(store.current?.fingerprint, 'a')
  await store.apply(set(content('b')))
  await store.settle(2)
  assert.deepEqual(await store.apply(set(content('b'))), { changed: false, previous: undefined })
})
