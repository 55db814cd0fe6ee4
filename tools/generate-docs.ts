// npm run docs           writes the generated pages of docs/, and the generated parts of README.md and the chart's
// npm run docs -- --check  says which of them lag behind, and fails if one does
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { renderKubernetes } from './docs/annotations.ts'
import { renderChart } from './docs/chart.ts'
import { renderConfiguration } from './docs/configuration.ts'
import { renderErrors } from './docs/errors.ts'
import { renderEvents } from './docs/events.ts'
import { renderMetrics } from './docs/metrics.ts'
import { renderReadme } from './docs/readme.ts'

const ROOT = join(import.meta.dirname, '..')

/** Pages made from the source; `file` is relative to the repository. */
export const documents: readonly { readonly file: string; readonly render: () => string | Promise<string> }[] = [
  { file: 'docs/configuration.md', render: renderConfiguration },
  { file: 'docs/metrics.md', render: renderMetrics },
  { file: 'docs/errors.md', render: renderErrors },
  { file: 'docs/events.md', render: renderEvents },
  { file: 'README.md', render: renderReadme },
  { file: 'charts/certferry/README.md', render: renderChart },
  { file: 'docs/kubernetes.md', render: renderKubernetes },
]

/** Files that differ from what would be written. */
export const lagging = async (): Promise<string[]> =>
  (await rendered()).filter(({ isStale }) => isStale).map(({ file }) => file)

const rendered = () =>
  Promise.all(
    documents.map(async ({ file, render }) => {
      const text = await render()
      return { file, text, isStale: text !== written(file) }
    }),
  )

function written(file: string): string | undefined {
  try {
    return readFileSync(join(ROOT, file), 'utf8')
  } catch {
    return undefined
  }
}

async function main(): Promise<void> {
  const pages = await rendered()
  if (process.argv.includes('--check')) {
    for (const { file, isStale } of pages) if (isStale) console.error(`${file} lags behind; run: npm run docs`)
    if (pages.some(({ isStale }) => isStale)) process.exitCode = 1
    return
  }
  for (const { file, text, isStale } of pages) {
    mkdirSync(dirname(join(ROOT, file)), { recursive: true })
    if (isStale) writeFileSync(join(ROOT, file), text)
    console.log(`${isStale ? 'wrote' : 'unchanged'} ${file}`)
  }
}

if (import.meta.main) await main()
