import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertUsable } from '../../src/core/bundle.ts'
import { KEY_ALGORITHMS } from '../../src/core/key.ts'
import { requestedNames } from '../../src/core/names.ts'
import { createTestCa } from './ca.ts'

for (const algorithm of KEY_ALGORITHMS.filter((name) => !/[34]\d{3}$/.test(name))) {
  test(`the test CA issues a usable ${algorithm} certificate through an intermediate`, async () => {
    const ca = await createTestCa()
    const { bundle } = await ca.issue({
      commonName: 'a.test',
      altNames: ['a.test', '127.0.0.1'],
      algorithm,
      withIntermediate: true,
    })
    const names = requestedNames({ commonName: 'a.test', altNames: ['127.0.0.1'], excludeCnFromSans: false })
    assertUsable(bundle, { names, algorithm, minTtlMs: 60_000, anchors: [ca.root], chain: 'complete' }, Date.now())
    assert.equal(bundle.intermediates.length, 1)
    assert.deepEqual(
      bundle.roots.map((root) => root.fingerprint256),
      [ca.root.fingerprint256],
    )
  })
}
