import { styleText } from 'node:util'
import { redact } from '../core/secret.ts'

/** A stream that may be a terminal. `styleText` asks it, and honours NO_COLOR and FORCE_COLOR. */
type Terminal = NodeJS.WritableStream & { readonly isTTY?: boolean }
export type Style = 'bold' | 'dim' | 'gray' | 'green' | 'yellow' | 'red'

const LEVELS: Readonly<Record<string, Style>> = { debug: 'gray', info: 'green', warn: 'yellow', error: 'red' }
const INDENT = ' '.repeat(13)
/** Said elsewhere in the line, or below it. */
const TOLD = new Set(['time', 'level', 'msg', 'event', 'hint', 'detail', 'error'])

/** A JSON line of the log as people like to read it: `12:00:01.000 WARN  rotation failed: no route  certificate=web …`, the hint below. */
export function prettyLine(line: string, stream: Terminal): string {
  const fields: Record<string, unknown> = JSON.parse(line)
  const paint = (style: Style, value: string) => styleText(style, value, { stream })
  const level = text(fields.level)
  const head = [
    paint('dim', text(fields.time).slice(11, 23)),
    paint(LEVELS[level] ?? 'bold', level.toUpperCase().padEnd(5)),
    paint('bold', text(fields.msg)) + (fields.detail === undefined ? '' : `: ${text(fields.detail)}`),
  ]
  const rest = Object.entries(fields)
    .filter(([key]) => !TOLD.has(key))
    .map(([key, value]) => paint('dim', `${key}=`) + quoted(text(value)))
  const below = [fields.hint, ...stackOf(fields.error)].filter((part) => part !== undefined)
  return [[...head, ...rest].join(' '), ...below.map((part) => paint('dim', `${INDENT}${text(part)}`)), ''].join('\n')
}

/** Text of any field. Control characters, which could move the cursor or forge a line, are shown escaped. */
const text = (value: unknown): string => redact(flat(value)).replace(/\p{Cc}/gu, escaped)
const flat = (value: unknown): string => {
  if (typeof value === 'string') return value
  return Array.isArray(value) ? value.map(flat).join(',') : (JSON.stringify(value) ?? '')
}
const escaped = (character: string) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`
const quoted = (value: string) => (/^[^\s"=]+$/.test(value) ? value : JSON.stringify(value))

const stackOf = (error: unknown): readonly unknown[] =>
  typeof error === 'object' && error !== null && 'stack' in error && typeof error.stack === 'string'
    ? error.stack.split('\n')
    : [error]
