import { glob, readFile } from 'node:fs/promises'

const ID = '[VFCPRNGKXS]\\d{1,2}'
const IDS = `${ID}(?:(?:, | and )${ID})*`

/** Matches the full name of every test that counts for a row, as node:test composes it. */
export const ROW_PATTERN = `(?:^| )${IDS} `

/** The rows a test counts for: the ids with which its name, or that of a suite around it, begins. `name` as the runner tells it, joined by ` › `. */
export function rowsOf(name: string): string[] {
  const leading = name.split(' › ').flatMap((part) => new RegExp(`^(${IDS}) `).exec(part)?.[1] ?? [])
  return [...new Set(leading.flatMap((ids) => ids.match(new RegExp(ID, 'g')) ?? []))]
}

export interface Named {
  /** Relative to the repository. */
  readonly file: string
  /** As it stands in the source; a template has its `${…}`. */
  readonly name: string
}

/** Everything in the test files of this folder that is named after a row: tests, suites, and the keys of tables that tests are made of. */
export async function namedAfterRows(root: string): Promise<Named[]> {
  const found: Named[] = []
  for await (const file of glob('test/**/*.test.ts', { cwd: root })) {
    const text = await readFile(`${root}/${file}`, 'utf8')
    const names = text.matchAll(new RegExp(`(['"\`])(${IDS} (?:(?!\\1)[^\\\\\\n]|\\\\.)*)\\1`, 'g'))
    for (const [, , name = ''] of names) found.push({ file, name: name.replaceAll(/\\(.)/g, '$1') })
  }
  return found.sort((a, b) => a.file.localeCompare(b.file) || a.name.localeCompare(b.name))
}
