import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { randomFrom } from '../campaigns/kill-run.ts'
import { formatDuration } from '../src/core/units.ts'
import { nameOf, readCorpus, worthKeeping, writeCorpus } from './corpus.ts'
import { type Coverage, startCoverage } from './coverage.ts'
import { mutate, pick, type Random } from './mutate.ts'
import type { OpenTarget, Target } from './target.ts'
import { TARGETS } from './targets/index.ts'
import { startWatchdog, type Watchdog } from './watchdog.ts'

const USAGE = `npm run fuzz -- --target ${Object.keys(TARGETS).join('|')} [--minutes N] [--seed S] [--keep] [--input FILE]
Feeds changed inputs to real code, and goes on with those that reach new code (V8 block coverage of src/). Ends with 1 at the first
input for which something does not hold, made small and saved. The same seed on the same corpus tries the same inputs.
--keep   afterwards keeps in fuzz/corpus/ what reaches code that no smaller input reaches
--input  runs one saved input alone`

/** An input that takes longer than this is a finding. */
const SLOW_MS = 5_000
const MINIMISING_RUNS = 500
const REPORT_MS = 30_000

const { values: options } = parseArgs({
  options: {
    target: { type: 'string', default: '' },
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    keep: { type: 'boolean', default: false },
    input: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

/** What broke loose from the input that ran. */
let stray: unknown
for (const event of ['uncaughtException', 'unhandledRejection'] as const)
  process.on(event, (error) => (stray ??= error))

const open = TARGETS[options.target]
if (options.help || !open) {
  console.log(USAGE)
  process.exitCode = options.help ? 0 : 64
} else {
  // An exception that nobody catches counts against the input that ran; ours must not be taken for one.
  await main(options.target, open).catch(show)
}

async function main(name: string, open: OpenTarget): Promise<void> {
  using coverage = await startCoverage()
  const prefix = join(tmpdir(), `certferry-fuzz-${name}-`)
  const running = `${prefix}${process.pid}`
  await using watchdog = startWatchdog(running)
  await using target = await open()
  const test = tester(target, watchdog)
  if (options.input !== undefined) return show(await test(readFileSync(options.input)))
  console.log(`the input that runs is in ${running}`)
  const { failure, corpus } = await fuzz(target, test, coverage)
  if (failure) await save(failure, test, prefix)
  else if (options.keep) await keep(corpus, test)
  rmSync(running, { force: true })
}

type Test = (input: Buffer) => Promise<unknown>

/** What does not hold for an input; undefined where all does. */
function tester(target: Target, watchdog: Watchdog): Test {
  return async (input) => {
    stray = undefined
    watchdog.watch(input)
    const startedAt = performance.now()
    try {
      await target.run(input)
    } catch (error) {
      return error
    }
    const took = performance.now() - startedAt
    return stray ?? (took > SLOW_MS ? new Error(`took ${formatDuration(took)}`) : undefined)
  }
}

interface Failure {
  readonly input: Buffer
  readonly error: unknown
}

async function fuzz(target: Target, test: Test, coverage: Coverage) {
  const random = randomFrom(Number(options.seed))
  const corpus: Buffer[] = []
  const startedAt = performance.now()
  const elapsed = () => performance.now() - startedAt
  let runs = 0
  const report = () => {
    const { run, known } = coverage.blocks()
    const rate = Math.round((runs / elapsed()) * 1000)
    console.log(
      `${options.target}: ${formatDuration(elapsed())}, ${runs} inputs (${rate}/s), ${run} of ${known} blocks, ${corpus.length} inputs kept, seed ${options.seed}`,
    )
  }
  /** Runs an input, and goes on from it when it reached something new. */
  const tryOut = async (input: Buffer): Promise<Failure | undefined> => {
    const error = await test(input)
    runs += 1
    if (error !== undefined) return { input, error }
    if (await coverage.hasGrown()) corpus.push(input)
    return undefined
  }

  for (const input of [...target.seeds, ...readCorpus(options.target)]) {
    const failure = await tryOut(input)
    if (failure) return { corpus, failure }
  }
  report()
  const end = Number(options.minutes) * 60_000
  for (let reportAt = REPORT_MS; elapsed() < end; ) {
    const input = mutate(recent(corpus, random), { ...target, random, other: pick(corpus, random) })
    const failure = await tryOut(input)
    if (failure) return { corpus, failure }
    if (elapsed() < reportAt) continue
    report()
    reportAt += REPORT_MS
  }
  report()
  return { corpus, failure: undefined }
}

/** One of the corpus, rather a late one: what it reached is less known. */
function recent(corpus: readonly Buffer[], random: Random): Buffer {
  return random() < 0.5 ? pick(corpus, random) : pick(corpus.slice(-20), random)
}

async function save({ input, error }: Failure, test: Test, prefix: string): Promise<void> {
  show(error)
  const small = await minimised(input, error, test)
  const file = `${prefix}${nameOf(small)}`
  writeFileSync(file, small)
  console.error(
    `input of ${input.length} bytes, made ${small.length}: ${JSON.stringify(small.toString('latin1').slice(0, 2000))}`,
  )
  console.error(`again: npm run fuzz -- --target ${options.target} --input ${file}`)
}

function show(error: unknown): void {
  if (error === undefined) {
    console.log('all holds')
    return
  }
  process.exitCode = 1
  console.error(error)
}

/** Leaves out piece after piece, as long as it fails the same way. */
async function minimised(input: Buffer, error: unknown, test: Test): Promise<Buffer> {
  let small = input
  let runs = 0
  for (let size = Math.ceil(small.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < small.length && runs < MINIMISING_RUNS; runs++) {
      const shorter = Buffer.concat([small.subarray(0, at), small.subarray(at + size)])
      if (headline(await test(shorter)) === headline(error)) small = shorter
      else at += size
    }
  }
  return small
}

/** The start of a message tells one defect from another; the rest quotes the input. */
function headline(error: unknown): unknown {
  return error instanceof Error ? `${error.name} ${error.message.slice(0, 40)}` : error
}

/** The smallest inputs that reach together what all of them reach; measured anew, since counters do not go back. */
async function keep(corpus: readonly Buffer[], test: Test): Promise<void> {
  using fresh = await startCoverage()
  await fresh.hasGrown()
  const kept: Buffer[] = []
  for (const input of worthKeeping(corpus)) {
    await test(input)
    if (await fresh.hasGrown()) kept.push(input)
  }
  console.log(`${kept.length} inputs are in ${writeCorpus(options.target, kept)}`)
}
