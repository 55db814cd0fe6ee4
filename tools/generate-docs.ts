// npm run docs           writes the generated pages of docs/
// npm run docs -- --check  says which of them lag behind, and fails if one does
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { renderConfiguration } from './docs/configuration.ts'
import { renderErrors } from './docs/errors.ts'
import { renderEvents } from './docs/events.ts'
import { renderMetrics } from './docs/metrics.ts'

const ROOT = join(import.meta.dirname, '..')

/** Pages made from the source; `file` is relative to the repository. */
export const documents: readonly { readonly file: string; readonly render: () => string }[] = [
  { file: 'docs/configuration.md', render: renderConfiguration },
  { file: 'docs/metrics.md', render: renderMetrics },
  { file: 'docs/errors.md', render: renderErrors },
  { file: 'docs/events.md', render: renderEvents },
]

/** Files that differ from what would be written. */
export const lagging = (): string[] =>
  documents.filter(({ file, render }) => written(file) !== render()).map(({ file }) => file)

function written(file: string): string | undefined {
  try {
    return readFileSync(join(ROOT, file), 'utf8')
  } catch {
    return undefined
  }
}

function main(): void {
  const stale = lagging()
  if (process.argv.includes('--check')) {
    for (const file of stale) console.error(`${file} lags behind; run: npm run docs`)
    if (stale.length > 0) process.exitCode = 1
    return
  }
  for (const { file, render } of documents) {
    mkdirSync(dirname(join(ROOT, file)), { recursive: true })
    writeFileSync(join(ROOT, file), render())
    console.log(`${stale.includes(file) ? 'wrote' : 'unchanged'} ${file}`)
  }
}

if (import.meta.main) main()
