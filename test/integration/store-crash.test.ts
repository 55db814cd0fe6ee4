import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, type TestContext, test } from 'node:test'
import { createStore } from '../../src/outputs/disk-store.ts'
import { LAYOUTS, type Layout, render } from '../../src/outputs/output.ts'
import type { StorePlan } from '../fixtures/store-driver.ts'
import { bundled } from '../support/bundled.ts'
import { createTestCa, type Issued } from '../support/ca.ts'
import { skipReason } from '../support/components.ts'
import { openStore } from '../support/store.ts'
import { nameOf, numbered, type Traced, traceNode } from '../support/strace.ts'
import { assertTidy, generationsIn, makeOutput, makeVolume, readPair } from '../support/volume.ts'

const skip = await skipReason('strace')
/** As many as there are cores on a small machine. */
const AT_ONCE = 2

const programs = fs.mkdtempSync(join(tmpdir(), 'certferry-test-'))
after(() => fs.rmSync(programs, { recursive: true, force: true }))
const driver = await bundled(new URL('../fixtures/store-driver.ts', import.meta.url), join(programs, 'driver.mjs'))

const ca = await createTestCa()
const [a, b, c] = [await ca.issue(), await ca.issue(), await ca.issue()]

interface Scenario {
  readonly name: string
  /** What is on disk when the driver starts. */
  readonly prepare: (directory: string, layout: Layout) => Promise<void>
  readonly steps: StorePlan['steps']
  /** Bundles that may be in place after recovery, undefined is none; the last one, once it is served, stays. */
  readonly outcomes: readonly (Issued | undefined)[]
  /** All layouts unless given, where what is done does not depend on the layout. */
  readonly layouts?: readonly Layout[]
  readonly keepMs?: number
  /** In memory unless given; on a disk calls take another way. */
  readonly base?: string
}

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'the first set',
    prepare: async () => {},
    steps: ['open', 'preflight', 'apply 0', 'settle'],
    outcomes: [undefined, a],
  },
  {
    name: 'a swap',
    prepare: (directory, layout) => put(directory, layout, ['apply 0', 'settle']),
    steps: ['open', 'apply 1', 'settle'],
    outcomes: [a, b],
  },
  {
    name: 'the way back',
    prepare: (directory, layout) => put(directory, layout, ['apply 0', 'settle', 'apply 1']),
    steps: ['open', 'undo'],
    outcomes: [b, a],
  },
  {
    name: 'recovery itself',
    prepare: async (directory, layout) => {
      await put(directory, layout, ['apply 0', 'settle', 'veto 1'])
      // As if the writer had stopped before its commit, and one before that had stopped earlier.
      const state = join(directory, '..state.json')
      fs.writeFileSync(state, fs.readFileSync(state, 'utf8').replace(/"rejected": \[[^\]]*\]/, '"rejected": []'))
      fs.cpSync(join(directory, generationsIn(directory)[0] ?? ''), join(directory, '..gen-1-00000000'), {
        recursive: true,
      })
      fs.rmSync(join(directory, '..gen-1-00000000/..manifest.json'))
      fs.writeFileSync(join(directory, '..tmp-0123456789abcdef'), 'x', { mode: 0o600 })
    },
    steps: ['open'],
    outcomes: [b],
  },
  {
    name: 'the repair of a damaged set',
    prepare: async (directory, layout) => {
      await put(directory, layout, ['apply 0', 'settle', 'apply 1'])
      fs.chmodSync(join(directory, '..data/tls.crt'), 0o644)
    },
    steps: ['open'],
    outcomes: [b],
    layouts: ['generation'],
  },
  {
    name: 'the removal of an old set',
    prepare: (directory, layout) => put(directory, layout, ['apply 2', 'settle', 'apply 0', 'settle', 'apply 1']),
    steps: ['open'],
    outcomes: [b],
    layouts: ['generation'],
    keepMs: -1,
  },
  {
    name: 'a swap on a disk',
    prepare: (directory, layout) => put(directory, layout, ['apply 0', 'settle']),
    steps: ['open', 'apply 1', 'settle'],
    outcomes: [a, b],
    layouts: ['nginx-include'],
    base: tmpdir(),
  },
]

for (const layout of LAYOUTS)
  for (const scenario of SCENARIOS.filter(({ layouts = LAYOUTS }) => layouts.includes(layout))) {
    const name = `F8 ${scenario.name}, killed before each of its system calls, leaves whole sets and loses no proven one (${layout})`
    test(name, { skip }, async (t) => {
      const arranged = await arrange(t, scenario, layout)
      const complete = await arranged.trace('complete')
      assert.equal(complete.exitCode, 0, complete.stderr)
      const points = numbered(complete.calls)
      const mixed: string[] = []
      await inParallel(points, async ({ name, when }, index) => {
        const where = `killed before call ${index + 1} of ${points.length}, ${complete.calls[index]}`
        const killed = await arranged.trace(`${index}`, `${name}:signal=KILL:when=${when}`)
        assert.equal(killed.exitCode, undefined, `${where}: it ended by itself: ${killed.stderr}`)
        assert.deepEqual(killed.calls.map(nameOf), complete.calls.slice(0, index + 1).map(nameOf), where)
        const directory = arranged.directoryOf(`${index}`)
        const served = readServed(directory, layout, where)
        if (served === 'mixed') mixed.push(where)
        const current = await assertRecovered(t, directory, layout, scenario, where)
        const last = scenario.outcomes.at(-1)?.bundle.fingerprint
        if (served === last) assert.equal(current, last, `${where}: it was taken out of service again`)
      })
      // Between the rename of the key and that of the certificate, plain files cannot match; the next start mends it.
      assert.ok(mixed.length <= (layout === 'flat' ? 1 : 0), mixed.join('\n'))
      t.diagnostic(`killed at ${points.length} points`)
    })
  }

/** A directory per run, each a copy of the one that the scenario prepared. */
async function arrange(t: TestContext, { prepare, steps, keepMs, base }: Scenario, layout: Layout) {
  const volume = makeVolume(t, base)
  const template = join(volume, 'template/tls')
  await prepare(template, layout)
  fs.mkdirSync(join(volume, 'template'), { recursive: true })
  const directoryOf = (run: string) => join(volume, run, 'tls')
  const trace = (run: string, inject?: string): Promise<Traced> => {
    execFileSync('cp', ['-a', join(volume, 'template'), join(volume, run)])
    const plan: StorePlan = {
      output: { kind: 'pem', directory: directoryOf(run), layout },
      bundles: [a, b, c].map(partsOf),
      steps,
      ...(keepMs === undefined ? {} : { keepMs }),
    }
    const planFile = join(volume, `${run}.json`)
    fs.writeFileSync(planFile, JSON.stringify(plan))
    return traceNode([driver, planFile], join(volume, `${run}.log`), inject)
  }
  return { trace, directoryOf }
}

const partsOf = ({ certificatePem, chainPems, keyPem, bundle }: Issued) => ({
  certificate: [certificatePem, ...chainPems].join(''),
  key: keyPem,
  receivedAt: bundle.receivedAt,
})

/** Takes a directory through some steps in this process, as the work of an earlier life of the sidecar. */
async function put(directory: string, layout: Layout, steps: readonly string[]): Promise<void> {
  const outputs = [makeOutput({ directory, layout })]
  await using store = createStore({ certificate: 'web', outputs, now: Date.now })
  await store.open()
  for (const step of steps) {
    const { bundle } = [a, b, c][Number(step.split(' ')[1] ?? 0)] ?? a
    const set = render(outputs, bundle)
    if (step.startsWith('apply')) await store.apply(set)
    if (step === 'settle') await store.settle(Date.now())
    if (step.startsWith('veto')) await store.apply(set, () => Promise.reject(new Error('veto'))).catch(() => {})
  }
}

/** The fingerprint that a reader gets until the next start; `mixed` where key and certificate differ. Whatever is there must be whole. */
function readServed(directory: string, layout: Layout, where: string): string | undefined {
  const visible = fs.existsSync(directory) ? fs.readdirSync(directory) : []
  for (const name of visible.filter((one) => one.startsWith('tls.'))) {
    const text = fs.readFileSync(join(directory, name), 'utf8')
    assert.match(
      text,
      name === 'tls.conf' ? /key "[^"]+";\n$/ : /-----END [A-Z ]+-----\n$/,
      `${where}: ${name} is torn`,
    )
  }
  if (!visible.includes(layout === 'flat' ? 'tls.crt' : layout === 'nginx-include' ? 'tls.conf' : '..data')) return
  try {
    return readPair(directory, layout)
  } catch {
    return 'mixed'
  }
}

async function assertRecovered(
  t: TestContext,
  directory: string,
  layout: Layout,
  { outcomes }: Scenario,
  where: string,
) {
  const { store, held } = await openStore(t, [makeOutput({ directory, layout })])
  const current = outcomes.find((one) => one?.bundle.fingerprint === held.current?.fingerprint)
  assert.equal(held.current?.serial, current?.bundle.serial, where)
  if (!held.current) assert.ok(outcomes.includes(undefined), `${where}: nothing is held`)
  else assert.equal(readPair(directory, layout), held.current.fingerprint, where)
  assertTidy(directory)
  assert.ok(generationsIn(directory).length <= 3, `${where}: ${generationsIn(directory)}`)
  assert.deepEqual(await store.repair(), [], where)

  if (held.current?.serial === b.bundle.serial && store.memory.verified?.fingerprint === a.bundle.fingerprint) {
    await store.undo()
    assert.equal(readPair(directory, layout), a.bundle.fingerprint, `${where}: there is no way back`)
  }
  await store[Symbol.asyncDispose]()
  return held.current?.fingerprint
}

/** One by one for each of the workers. */
async function inParallel<T>(items: readonly T[], work: (item: T, index: number) => Promise<void>): Promise<void> {
  const queue = items.entries()
  const worker = async () => {
    for (const [index, item] of queue) await work(item, index)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}
