import { spawn } from 'node:child_process'
import { glob, readFile, writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import {
  component,
  componentNames,
  isAvailable,
  isCi,
  isComponentName,
  kubernetesComponents,
  variableOf,
} from '../test/support/components.ts'
import { partsOfTheRun } from './faults/parts.ts'
import { figuresOf, renderFaults, summariseFaults } from './faults/report.ts'
import { namedAfterRows, ROW_PATTERN } from './faults/rows.ts'
import type { TestMessage } from './testing/messages.ts'
import { type Step, showProgress, showStep, summarise } from './testing/report.ts'
import { runSuite } from './testing/suite.ts'

const USAGE = `npm test                        lint, types, unit and integration tests
npm test -- --unit              without the integration tests
npm test -- --only PATTERN      only test files whose path holds PATTERN, or else tests whose name matches it; no lint, no types
npm test -- --faults            only what is named after a row of the fault catalogue, long tests too; writes docs/faults.md
npm test -- --kubernetes        only the tests against a real Kubernetes, built when it is not there; without this they run where it is, and with CI set
npm test -- --vault             only what Vault gives and how: logins, clusters, secrets, leases of real servers, exec, migrate; Consul is built when it is not there
npm test -- --consumers         only the suites of sources and consumers, long tests too: rotations of every server under load, CA rollover, ACME
npm test -- --jobs N            integration files at a time (default 2)`
const UNIT_TIMEOUT_MS = 120_000
const INTEGRATION_TIMEOUT_MS = 900_000

const options = readOptions()
const steps: Step[] = []
const stopped = new AbortController()
const counts = { total: 0, failed: 0 }

if (!options) process.exitCode = 64
else if (options.help) console.log(USAGE)
else await main(options)

function readOptions() {
  try {
    return parseArgs({
      options: {
        unit: { type: 'boolean', default: false },
        only: { type: 'string' },
        faults: { type: 'boolean', default: false },
        kubernetes: { type: 'boolean', default: false },
        vault: { type: 'boolean', default: false },
        consumers: { type: 'boolean', default: false },
        jobs: { type: 'string', default: '2' },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n${USAGE}`)
    return undefined
  }
}

type Options = NonNullable<ReturnType<typeof readOptions>>

async function main(options: Options) {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => stopped.abort(signal))
  const { unit, integration, namePattern } = await select(options)
  const isPart =
    options.only !== undefined || options.faults || options.kubernetes || options.vault || options.consumers
  if (!isPart) {
    await Promise.all([check('lint', ['biome', 'check']), check('types', ['tsc'])])
  }
  if (unit.length > 0) await suite('unit', unit, UNIT_TIMEOUT_MS, namePattern)
  if (integration.length > 0) {
    await prepareComponents(integration, options)
    const queue = [...integration]
    const work = async () => {
      for (let file = queue.shift(); file && !stopped.signal.aborted; file = queue.shift()) {
        await suite(file, [file], INTEGRATION_TIMEOUT_MS, namePattern)
      }
    }
    await Promise.all(Array.from({ length: Number(options.jobs) || 1 }, work))
  }
  if (options.faults && !stopped.signal.aborted) await writeFaults(steps.flatMap(({ tests }) => tests))
  console.log(summarise(steps))
  const failed = steps.some(({ tests }) => tests.some(({ result }) => result === 'failed'))
  process.exitCode = failed || counts.total === 0 || stopped.signal.aborted ? 1 : 0
}

async function select(options: Options) {
  const { only, unit, faults, consumers } = options
  const all = await withoutWhatIsNotThere(await candidates(options), options)
  const named = all.filter((file) => file.includes(only ?? ''))
  const files = (named.length > 0 ? named : all).filter(
    (file) => faults || consumers || named.length < all.length || !isLong(file),
  )
  return {
    unit: files.filter((file) => !isIntegration(file)),
    integration: unit ? [] : files.filter(isIntegration),
    namePattern: faults ? ROW_PATTERN : named.length > 0 ? undefined : only,
  }
}

async function candidates({ faults, kubernetes, vault, consumers }: Options): Promise<string[]> {
  const all = faults ? await filesWithFaults() : (await filesOf('test/**/*.test.ts')).sort()
  if (vault) return all.filter(isForVault)
  if (consumers) return all.filter(isForConsumers)
  return kubernetes ? all.filter(isForKubernetes) : all
}

/** Nobody waits ten minutes for the build of a Kubernetes that was not asked for. */
async function withoutWhatIsNotThere(files: readonly string[], { only, unit, kubernetes }: Options) {
  const isAsked = kubernetes || only?.includes('kubernetes') === true || isCi()
  if (isAsked || unit || !files.some(isForKubernetes)) return files
  const available = await Promise.all(kubernetesComponents.map(isAvailable))
  const missing = kubernetesComponents.filter((_, index) => !available[index])
  if (missing.length === 0) return files
  const count = files.filter(isForKubernetes).length
  console.error(
    `LEFT OUT: ${count} files of tests against a real Kubernetes, for want of ${missing.join(', ')}. Build and run: npm run test:kubernetes (10 minutes, once)`,
  )
  return files.filter((file) => !isForKubernetes(file))
}

function isForKubernetes(file: string): boolean {
  return file.startsWith('test/integration/kubernetes-')
}

/** What Vault gives, by every way in. */
function isForVault(file: string): boolean {
  const named =
    /^test\/integration\/(?:vault-|migrate-|secrets|leas|known-defects|exec\.|supervisor|kubernetes-(?:auth|leases))/
  return named.test(file) || /^test\/(?:vault|values|text|migrate|supervisor)\//.test(file)
}

/** Where certificates come from besides Vault, and what serves or trusts them. */
function isForConsumers(file: string): boolean {
  return (
    file.startsWith('test/consumers/') ||
    /^test\/integration\/(?:consumer|source|trust|revocation|form|client)-/.test(file)
  )
}

function isIntegration(file: string): boolean {
  return file.startsWith('test/integration/') || isLong(file)
}

/** Too long for `npm test`: run with --faults or --consumers, or when named. */
function isLong(file: string): boolean {
  return file.startsWith('test/long/') || file.startsWith('test/consumers/')
}

async function filesWithFaults(): Promise<string[]> {
  return [...new Set((await namedAfterRows('.')).map(({ file }) => file))]
}

/** What was tried, and how it ended. A part of the suite writes nothing: the page would forget the others. */
async function writeFaults(tests: readonly TestMessage[]) {
  console.log(`\n${summariseFaults(figuresOf({ tests }))}`)
  if (options?.only !== undefined || options?.unit) return
  const date = new Date().toISOString().slice(0, 10)
  await writeFile('docs/faults.md', renderFaults({ tests, date, parts: await partsOfTheRun() }))
  console.log('wrote docs/faults.md')
}

async function filesOf(pattern: string): Promise<string[]> {
  const files: string[] = []
  for await (const file of glob(pattern)) files.push(file)
  return files
}

/** A program that must end with 0; what it prints is shown when it does not. */
async function check(title: string, [program = '', ...args]: readonly string[]) {
  const started = performance.now()
  const child = spawn(`node_modules/.bin/${program}`, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    signal: stopped.signal,
  })
  let detail = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (detail += text))
  const code = await new Promise((resolve) => child.on('error', resolve).on('close', resolve))
  const durationMs = performance.now() - started
  const result = code === 0 ? 'passed' : 'failed'
  const place = `npm run ${title}`
  finish({ title, tests: [{ result, name: title, place, durationMs, detail }], output: '', durationMs })
}

async function suite(title: string, files: readonly string[], timeoutMs: number, namePattern: string | undefined) {
  const started = performance.now()
  const onTest = ({ name, result }: TestMessage) => {
    counts.total += 1
    if (result === 'failed') counts.failed += 1
    showProgress(process.stdout, counts, name)
  }
  const done = await runSuite({ title, files, namePattern, timeoutMs, onTest, signal: stopped.signal })
  if (done.tests.length === 0 && namePattern !== undefined) return
  finish({ title, ...done, durationMs: performance.now() - started })
}

function finish(step: Step) {
  steps.push(step)
  showStep(process.stdout, step)
}

/**
 * Gets the real programs that the tests name before the first of them starts, where the progress of a long build is seen.
 * What cannot be had is handed down as `none`, so that each suite does not try again; with CI set that fails them.
 */
async function prepareComponents(files: readonly string[], { vault }: Options) {
  const helpers = await filesOf('test/support/*.ts')
  const texts = await Promise.all([...files, ...helpers].map((file) => readFile(file, 'utf8')))
  const calls = texts.join('\n').match(/\b(?:component|skipReason)\([^)]*\)/g) ?? []
  const named = componentNames
    .filter(isComponentName)
    .filter((name) => calls.some((call) => call.includes(`'${name}'`)))
  const wanted = new Set(
    files.some(isForKubernetes)
      ? [...named, ...kubernetesComponents]
      : named.filter((name) => !kubernetesComponents.includes(name)),
  )
  // Six minutes and more of building, for one engine.
  if (vault || isCi()) wanted.add('consul')
  for (const name of wanted) {
    try {
      process.env[variableOf(name)] = await component(name)
    } catch (error) {
      process.env[variableOf(name)] = 'none'
      console.error(
        `${isCi() ? 'MISSING' : 'SKIPPING what needs it'}: ${error instanceof Error ? error.message : error}`,
      )
    }
  }
}
