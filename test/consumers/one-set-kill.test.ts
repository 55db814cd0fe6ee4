import assert from 'node:assert/strict'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { createStore } from '../../src/outputs/disk-store.ts'
import { render } from '../../src/outputs/output.ts'
import type { StorePlan } from '../fixtures/store-driver.ts'
import { bundled } from '../support/bundled.ts'
import { createTestCa, type Issued } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { openStore } from '../support/store.ts'
import { numbered, traceNode } from '../support/strace.ts'
import { assertTidy, makeOutput, makeVolume, readPair } from '../support/volume.ts'

const skip = await skipReason('strace')
const programs = fs.mkdtempSync(join(tmpdir(), 'certferry-test-'))
after(() => fs.rmSync(programs, { recursive: true, force: true }))
const driver = await bundled(new URL('../fixtures/store-driver.ts', import.meta.url), join(programs, 'driver.mjs'))
const ca = await createTestCa()
const [a, b] = [await ca.issue(), await ca.issue()]

const optionsIn = (home: string, shown: string) =>
  [
    { kind: 'pem', directory: home },
    { kind: 'pem', directory: shown, oneSetWith: home },
  ] as const

interface Scenario {
  readonly name: string
  /** What is in place before. */
  readonly before: Issued | undefined
  readonly steps: StorePlan['steps']
}

const SCENARIOS: readonly Scenario[] = [
  { name: 'the first set', before: undefined, steps: ['open', 'apply 0', 'settle'] },
  { name: 'a swap', before: a, steps: ['open', 'apply 1', 'settle'] },
  { name: 'a swap and the way back', before: a, steps: ['open', 'apply 1', 'undo'] },
]

for (const { name, before, steps } of SCENARIOS)
  test(`${name} in two directories that are one set, killed before each of its system calls: both show the same`, {
    skip,
  }, async (t) => {
    const volume = makeVolume(t)
    const trace = async (run: string, inject?: string) => {
      const [home, shown] = [join(volume, run, 'home'), join(volume, run, 'shown')]
      const [output, second] = optionsIn(home, shown)
      fs.mkdirSync(join(volume, run))
      if (before) {
        const outputs = [output, second].map(makeOutput)
        await using store = createStore({ certificate: 'web', outputs, now: Date.now })
        await store.open()
        await store.apply(render(outputs, before.bundle))
        await store.settle(Date.now())
      }
      const plan: StorePlan = { output, more: [second], bundles: [a, b].map(partsOf), steps }
      const file = join(volume, `${run}.json`)
      fs.writeFileSync(file, JSON.stringify(plan))
      return { home, shown, traced: await traceNode([driver, file], join(volume, `${run}.log`), inject) }
    }
    const complete = await trace('complete')
    assert.equal(complete.traced.exitCode, 0, complete.traced.stderr)
    const { calls } = complete.traced
    for (const [index, { name: call, when }] of numbered(calls).entries()) {
      const where = `killed before call ${index + 1} of ${calls.length}, ${calls[index]}`
      const { home, shown, traced } = await trace(String(index), `${call}:signal=KILL:when=${when}`)
      assert.equal(traced.exitCode, undefined, `${where}: it ended by itself`)
      // Links that are not there yet are no mix: only the first set has such a moment.
      if (before || fs.existsSync(join(shown, 'tls.crt'))) assert.equal(shownIn(shown), shownIn(home), where)
      const { store, held } = await openStore(t, optionsIn(home, shown).map(makeOutput))
      if (held.current) {
        assert.equal(readPair(home, 'flat'), held.current.fingerprint, where)
        assert.equal(readPair(shown, 'flat'), held.current.fingerprint, where)
      } else assert.equal(before, undefined, `${where}: nothing is held`)
      assert.deepEqual(await store.repair(), [], where)
      assertTidy(home)
      assertTidy(shown)
      await store[Symbol.asyncDispose]()
    }
    t.diagnostic(`killed at ${calls.length} points`)
  })

const shownIn = (directory: string) => fs.readFileSync(join(directory, 'tls.crt'), 'utf8')

const partsOf = ({ certificatePem, chainPems, keyPem, bundle }: Issued) => ({
  certificate: [certificatePem, ...chainPems].join(''),
  key: keyPem,
  receivedAt: bundle.receivedAt,
})
