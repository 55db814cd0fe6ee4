import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { nameOf, readCorpus } from '../fuzz/corpus.ts'
import { TARGETS } from '../fuzz/targets/index.ts'

describe('what the fuzzer kept', () => {
  for (const [name, open] of Object.entries(TARGETS)) {
    test(`is handled as promised by ${name}`, async () => {
      await using target = await open()
      const kept = readCorpus(name)
      assert.ok(kept.length > 0)
      for (const input of [...target.seeds, ...kept]) {
        await target.run(input).catch((error: unknown) => {
          throw new Error(`fuzz/corpus/${name}/${nameOf(input)}`, { cause: error })
        })
      }
    })
  }
})
