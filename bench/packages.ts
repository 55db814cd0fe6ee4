import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { build } from 'rolldown'
import { directPackages, ROOT } from '../tools/packages.ts'
import type { Contender } from './contenders.ts'
import { launch } from './launch.ts'
import { inRounds, type Participant, valuesOf } from './rounds.ts'
import type { Bench, Values } from './row.ts'

export interface PackageShare {
  readonly name: string
  /** Of the bundle, minified. */
  readonly bytes: number
  /** Of these, in files that are loaded before the first set is on disk. */
  readonly startBytes: number
}

/** certferry's own code among the packages. */
export const OWN_CODE = 'certferry itself'

/** Of what the bundler tells of a file. */
interface Chunk {
  readonly fileName: string
  readonly code: string
  readonly modules: Readonly<Record<string, { readonly renderedLength: number }>>
}

/** What each package takes of the bundle. A minified file does not tell its modules apart: each gets the share that it had before. */
export function sharesOf(chunks: readonly Chunk[], loaded: ReadonlySet<string>): PackageShare[] {
  const parts = chunks.flatMap(({ fileName, code, modules }) => {
    const lengths = Object.entries(modules).map(([id, { renderedLength }]) => ({ name: packageOf(id), renderedLength }))
    const scale = Buffer.byteLength(code) / Math.max(1, sum(lengths.map(({ renderedLength }) => renderedLength)))
    const isLoaded = loaded.has(basename(fileName))
    return lengths.map(({ name, renderedLength }) => ({ name, bytes: renderedLength * scale, isLoaded }))
  })
  return [...Map.groupBy(parts, ({ name }) => name)]
    .map(([name, all]) => ({
      name,
      bytes: sum(all.map(({ bytes }) => bytes)),
      startBytes: sum(all.map(({ bytes, isLoaded }) => (isLoaded ? bytes : 0))),
    }))
    .sort((a, b) => b.bytes - a.bytes)
}

const packageOf = (id: string) => /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(id)?.[1] ?? OWN_CODE
const sum = (numbers: readonly number[]) => numbers.reduce((all, one) => all + one, 0)

/** The files of the bundle that a certferry has loaded by the time its first set is on disk. */
export async function loadedAtStart(certferry: Contender, bench: Bench): Promise<ReadonlySet<string>> {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-bench-loaded-'))
  try {
    const [hook, list] = [join(folder, 'hook.cjs'), join(folder, 'loaded')]
    writeFileSync(hook, HOOK)
    const watched: Contender = {
      ...certferry,
      prepare: (job) => {
        const start = certferry.prepare(job)
        return { ...start, env: { ...start.env, NODE_OPTIONS: `--require=${hook}`, BENCH_LOADED: list } }
      },
    }
    await using running = await launch(watched, bench)
    await running.untilThere()
    return new Set(
      readFileSync(list, 'utf8')
        .trimEnd()
        .split('\n')
        .map((path) => basename(path)),
    )
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const HOOK = `
const { appendFileSync } = require('node:fs')
const { prototype } = require('node:module')
const { load } = prototype
prototype.load = function (file) {
  appendFileSync(process.env.BENCH_LOADED, file + '\\n')
  return load.call(this, file)
}
`

const BARE = 'bare node'

/** Ms from start to end of a Node that loads one package and does nothing: bundled alone and whole, its compile cache warm. */
export async function timesToLoad(rounds: number, progress: Bench['progress']): Promise<Values> {
  const folder = mkdtempSync(join(tmpdir(), 'certferry-bench-packages-'))
  try {
    const names = [BARE, ...directPackages().map((id) => id.slice(0, id.lastIndexOf('@')))]
    const participants: Participant<number>[] = []
    for (const [index, name] of names.entries()) {
      const file = join(folder, `${index}.cjs`)
      await bundleAlone(name, file)
      participants.push({ name, measure: () => timeToRun(file, join(folder, 'compile-cache')) })
    }
    return valuesOf(await inRounds(participants, rounds, progress), (ms) => ms)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function bundleAlone(name: string, file: string) {
  // Where it would find what certferry finds.
  const entry = join(ROOT, 'only-in-memory.mjs')
  const imports = [...(NEEDS[name] ?? []).map((other) => `import '${other}'`), `import * as all from '${name}'`]
  const code = name === BARE ? '' : `${imports.join('\n')}\nglobalThis.all = all\n`
  await build({
    input: entry,
    platform: 'node',
    plugins: [
      {
        name: 'entry',
        resolveId: (id) => (id === entry || id === 'axios' ? id : undefined),
        // node-vault's own transport is not part of what ships.
        load: (id) => (id === entry ? code : id === 'axios' ? 'export const create = () => {}' : undefined),
      },
    ],
    output: { file, format: 'cjs', minify: true, codeSplitting: false },
    logLevel: 'silent',
  })
}

/** What a package wants loaded before itself. */
const NEEDS: Readonly<Record<string, readonly string[]>> = { '@peculiar/x509': ['reflect-metadata'] }

async function timeToRun(file: string, compileCache: string): Promise<number> {
  const started = performance.now()
  const child = spawn(process.execPath, [file], { env: { NODE_COMPILE_CACHE: compileCache }, stdio: 'ignore' })
  const [code] = await once(child, 'exit')
  if (code !== 0) throw new Error(`a Node that loads ${file} ended with ${code}`)
  return performance.now() - started
}
