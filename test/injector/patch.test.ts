import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { applyPatch } from 'rfc6902'
import { patchOf } from '../../src/injector/patch.ts'

const element = fc.oneof(
  fc.record({ name: fc.constantFrom('a', 'b', 'c'), value: fc.jsonValue({ maxDepth: 1 }) }),
  fc.integer(),
)
/** What applies the patches here leaves that name alone, as it should. */
const isPlain = (value: unknown) => !JSON.stringify(value).includes('__proto__')

const object = fc
  .dictionary(
    fc.constantFrom('spec', 'x/y', 'z~'),
    fc.oneof(fc.array(element, { maxLength: 5 }), fc.jsonValue({ maxDepth: 2 })),
    {
      noNullPrototype: true,
    },
  )
  .filter(isPlain)

test('a patch makes of the one object the other', () => {
  fc.assert(
    fc.property(object, object, (before, after) => {
      const result = structuredClone(before)
      assert.deepEqual(
        applyPatch(result, patchOf(before, after)).filter((error) => error !== null),
        [],
      )
      assert.deepEqual(result, structuredClone(after))
    }),
    { numRuns: 500 },
  )
})

test('what is put before or behind is added, and the rest stays', () => {
  const named = (...names: string[]) => ({ list: names.map((name) => ({ name })) })
  assert.deepEqual(patchOf(named('a', 'b'), named('c', 'a', 'b')), [
    { op: 'add', path: '/list/0', value: { name: 'c' } },
  ])
  assert.deepEqual(patchOf(named('a', 'b'), named('a', 'b', 'c')), [
    { op: 'add', path: '/list/-', value: { name: 'c' } },
  ])
})
