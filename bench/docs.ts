import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const FILE = join(import.meta.dirname, '../docs/performance.md')
const [BEGIN, END] = ['<!-- npm run bench -- --write-docs -->', '<!-- end of what it wrote -->']

/** Replaces what an earlier run has put between the two marks. */
export function writeDocs(report: string) {
  const page = readFileSync(FILE, 'utf8')
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)]
  if (begin === -1 || end < begin) throw new Error(`${FILE} lacks ${BEGIN} … ${END}`)
  writeFileSync(FILE, `${page.slice(0, begin + BEGIN.length)}\n\n${report}\n\n${page.slice(end)}`)
  console.error(`wrote ${FILE}`)
}
