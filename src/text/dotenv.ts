import { SidecarError } from '../errors.ts'
import type { Entries } from './entries.ts'
import { assertVariable } from './variable-name.ts'

/**
 * Who reads the file. There is no standard, and readers differ in what quotes and backslashes mean:
 * `common` only what Node, a POSIX shell and systemd read alike;
 * `node` also backquotes, in which a shell would run commands;
 * `systemd` an EnvironmentFile, which a shell reads as well: carries everything;
 * `docker` `docker run --env-file`, which takes every character after `=` as it is, quotes too: one line each.
 */
export const DOTENV_READERS = ['common', 'node', 'systemd', 'docker'] as const
export type DotenvReader = (typeof DOTENV_READERS)[number]

/** `NAME=value` line by line. Throws VALUE_UNWRITABLE for a value that its reader would not get back as it is. */
export function toDotenv(entries: Entries, reader: DotenvReader = 'common'): string {
  return [...entries].map(([name, value]) => `${name}=${written(name, value, reader)}\n`).join('')
}

function written(name: string, value: string, reader: DotenvReader): string {
  assertVariable(name, value)
  for (const way of WAYS[reader]) {
    const text = way(value)
    if (text !== undefined) return text
  }
  throw new SidecarError('VALUE_UNWRITABLE', `the value of ${name} ${WHY_NOT[reader]}`)
}

/** A way to write a value, or undefined where it does not get through. */
type Way = (value: string) => string | undefined

/** What is special to nobody. */
const bare: Way = (value) => (/^[A-Za-z0-9_./:@%+,-]+$/.test(value) ? value : undefined)

/** Everything is itself between single quotes, line breaks too. */
const inSingleQuotes: Way = (value) => (value.includes("'") ? undefined : `'${value}'`)

/** Some take `\` for an escape, some `$` and backquotes for a substitution. */
const inDoubleQuotes: Way = (value) => (/["\\$`]/.test(value) ? undefined : `"${value}"`)

const inBackquotes: Way = (value) => (value.includes('`') ? undefined : `\`${value}\``)

/** What a shell and systemd read alike; pieces in quotes next to each other systemd does not join. */
const escaped: Way = (value) => `"${value.replace(/["\\$`]/g, '\\$&')}"`

/** Node drops every CR of a file. */
const withoutCr = (ways: readonly Way[]): readonly Way[] =>
  ways.map((way) => (value) => (value.includes('\r') ? undefined : way(value)))

/** Docker cuts blanks before the name only; `#` counts at the start of a line alone. */
const asItIs: Way = (value) => (/[\r\n]/.test(value) ? undefined : value)

const WAYS: Readonly<Record<DotenvReader, readonly Way[]>> = {
  common: withoutCr([bare, inSingleQuotes, inDoubleQuotes]),
  node: withoutCr([bare, inSingleQuotes, inDoubleQuotes, inBackquotes]),
  systemd: [bare, inSingleQuotes, escaped],
  docker: [asItIs],
}

const WHY_NOT: Readonly<Record<DotenvReader, string>> = {
  common:
    'holds a CR, or a single quote together with one of " \\ $ `, which readers of such files understand differently; use the output env or json, or name the reader (node, systemd)',
  node: 'holds a CR, or all kinds of quotes, which Node cannot read from such a file; use the output json',
  systemd: 'cannot be written',
  docker: 'holds a line break, which docker --env-file cannot read; encode it in base64, or use the output json',
}
