import { readFileSync } from 'node:fs'
import { type Profiler, Session } from 'node:inspector/promises'
import { fileURLToPath } from 'node:url'

const SRC = new URL('../src/', import.meta.url).href

/** Which code of src/ has run, by the counters of V8. Begin before src/ is loaded: what was compiled earlier is not counted. */
export interface Coverage extends Disposable {
  /** True when code ran since the last look that never ran before. */
  hasGrown(): Promise<boolean>
  /** Blocks (functions, branches, bodies of loops) that have run, of those in the functions that were called. */
  blocks(): { readonly run: number; readonly known: number }
}

export async function startCoverage(): Promise<Coverage> {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  /** By file: for each character whether it has run, and where blocks begin. */
  const files = new Map<string, { readonly hasRun: Uint8Array; readonly starts: Set<number> }>()

  const hasGrown = async () => {
    const { result } = await session.post('Profiler.takePreciseCoverage')
    return result.filter(({ url }) => url.startsWith(SRC)).filter(isNew).length > 0
  }

  function isNew({ url, functions }: Profiler.ScriptCoverage): boolean {
    const file = files.get(url) ?? { hasRun: new Uint8Array(lengthOf(url)), starts: new Set() }
    files.set(url, file)
    let grown = false
    for (const { ranges } of functions) {
      const [whole] = ranges
      if (!whole) continue
      // The ranges of a function are nested, the outer ones first: V8 merges blocks that ran equally often, so only single characters compare.
      const ran = new Uint8Array(whole.endOffset - whole.startOffset)
      for (const { startOffset, endOffset, count } of ranges) {
        ran.fill(Number(count > 0), startOffset - whole.startOffset, endOffset - whole.startOffset)
        file.starts.add(startOffset)
      }
      // A script as a whole covers the functions in it, which are told one by one.
      if (whole.startOffset === 0) continue
      for (const [index, one] of ran.entries()) {
        if (one === 0 || file.hasRun[whole.startOffset + index] === 1) continue
        file.hasRun[whole.startOffset + index] = 1
        grown = true
      }
    }
    return grown
  }

  return {
    hasGrown,
    blocks: () => {
      const all = [...files.values()].flatMap(({ starts, hasRun }) => [...starts].map((start) => hasRun[start]))
      return { run: all.filter((one) => one === 1).length, known: all.length }
    },
    [Symbol.dispose]: () => session.disconnect(),
  }
}

const lengthOf = (url: string) => readFileSync(fileURLToPath(url), 'utf8').length + 1
