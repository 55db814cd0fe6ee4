import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { render } from '../../src/outputs/output.ts'
import { createTestCa } from '../support/ca.ts'
import { keepNoOrphan } from '../support/child.ts'
import { openStore } from '../support/store.ts'
import { makeOutput, makeVolume } from '../support/volume.ts'

/** At least so many swaps show none mixed; where there are some, one comes up long before the most. */
const SWAPS = { least: 100, most: 3000 }
const ca = await createTestCa()

/**
 * Reads the certificate, then the key in the other directory, then the certificate again: where that is the same both times, the key must
 * be the one of it. No certificate comes twice, so nothing can have happened in between. Prints each pair when it meets it first, and how
 * often it read at the end.
 */
const READER = `
  const { existsSync, readFileSync, writeSync } = require('node:fs')
  const [certificate, key, stop] = process.argv.slice(1)
  const met = new Set()
  let steady = 0
  for (let reads = 1; reads % 100 !== 0 || !existsSync(stop); reads += 1) {
    const [before, secret, after] = [certificate, key, certificate].map((file) => readFileSync(file, 'utf8'))
    if (before !== after) continue
    steady += 1
    const pair = JSON.stringify([before, secret])
    if (met.has(pair)) continue
    met.add(pair)
    writeSync(1, pair + '\\n')
  }
  writeSync(1, steady + '\\n')
`

/** What a reader meets in two directories during swap after swap: certificate in one, key in the other. Ends when `isEnough`. */
async function readWhileSwapping(
  t: TestContext,
  isOneSet: boolean,
  isEnough: (swaps: number, mixed: number) => boolean,
) {
  const volume = makeVolume(t)
  const [home, other, stop] = [join(volume, 'certificates'), join(volume, 'keys'), join(volume, 'stop')]
  const outputs = [
    makeOutput({ directory: home, files: { key: false } }),
    makeOutput({ directory: other, files: { certificate: false, ca: false }, ...(isOneSet && { oneSetWith: home }) }),
  ]
  // By a clock that is ahead, the files are old enough not to be read again at each swap.
  const { store } = await openStore(t, outputs, { now: () => Date.now() + 60_000, keepMs: 0 })
  const pairs = new Set<string>()
  const swap = async () => {
    const set = render(outputs, (await ca.issue()).bundle)
    const files = set.directories.flatMap((directory) => directory.files)
    const contentOf = (role: string) => String(files.find((file) => file.role === role)?.content)
    pairs.add(JSON.stringify([contentOf('certificate'), contentOf('key')]))
    await store.apply(set)
  }
  await swap()
  const child = spawn(process.execPath, ['-e', READER, join(home, 'tls.crt'), join(other, 'tls.key'), stop], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.after(keepNoOrphan(child))
  const met = new Set<string>()
  let reads = 0
  const lines = createInterface(child.stdout)
  lines.on('line', (line) => {
    if (line.startsWith('[')) met.add(line)
    else reads = Number(line)
  })
  const ended = once(lines, 'close')
  await once(lines, 'line')
  const mixed = () => [...met].filter((pair) => !pairs.has(pair)).length
  let swaps = 0
  for (; swaps < SWAPS.most && !isEnough(swaps, mixed()); swaps += 1) {
    // Clears away what is old.
    if (swaps % 10 === 0) await store.preflight()
    await swap()
  }
  writeFileSync(stop, '')
  await ended
  t.diagnostic(`${isOneSet ? 'one set' : 'a set each'}: ${swaps} swaps, ${reads} steady reads, ${mixed()} mixed pairs`)
  return { distinct: met.size, mixed: mixed() }
}

test('files in two directories that are one set change at once: no reader meets a key with the certificate of another', async (t) => {
  const { distinct, mixed } = await readWhileSwapping(t, true, (swaps) => swaps >= SWAPS.least)
  assert.equal(mixed, 0)
  assert.ok(distinct > 10, `the reader met ${distinct} pairs only`)
})

test('directories with a set each change one after the other, as that reader finds', async (t) => {
  const { mixed } = await readWhileSwapping(t, false, (_, found) => found > 0)
  assert.ok(mixed > 0)
})
