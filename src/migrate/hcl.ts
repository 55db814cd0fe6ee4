import { SidecarError } from '../errors.ts'

/** Where something stands in the file. */
export interface Place {
  readonly line: number
  readonly column: number
}

/** A body of settings, in braces or the whole file. */
export interface Block {
  readonly items: readonly Item[]
  readonly place: Place
}

/** `keys` is the name, followed by the labels of a block: `method "kubernetes" { … }`. */
export interface Item {
  readonly keys: readonly string[]
  readonly place: Place
  readonly value: Value
}

export type Value = string | number | boolean | null | readonly Value[] | Block

export const isBlock = (value: Value): value is Block =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * Reads HCL 1, or the JSON that stands for it, as Vault Agent, consul-template and spiffe-helper do: the rules are those of
 * hashicorp/hcl v1, `hcl/scanner` and `hcl/parser`. Stricter in one thing: a setting that is given twice is an error, as in Vault 1.21.
 * `file` is for messages. Throws USAGE with the line and column of what cannot be read.
 */
export function parseHcl(text: string, file: string): Block {
  const source = text.replace(/^\uFEFF/, '').replaceAll('\r\n', '\n')
  const isJson = source.trimStart().startsWith('{')
  if (isJson) checkJson(source, file)
  const reader = { tokens: tokensOf(source, isJson ? JSON_FORMS : HCL_FORMS, file), at: 0, file }
  if (!isJson) return readItems(reader, 'end', { line: 1, column: 1 })
  const { place } = take(reader)
  return readItems(reader, '}', place)
}

/** What the other tool would have read from it, we do not know; so nothing is guessed. */
function fail(file: string, { line, column }: Place, message: string): never {
  throw new SidecarError('USAGE', `${file}:${line}:${column}: ${message}`)
}

function checkJson(text: string, file: string): void {
  try {
    JSON.parse(text)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    const [, offset] = /at position (\d+)/.exec(why) ?? []
    const place = offset === undefined ? { line: 1, column: 1 } : placeIn(text)(Number(offset))
    fail(file, place, `is no JSON: ${why.replace(/ (?:in JSON )?at position.*$/s, '')}`)
  }
}

type Kind = 'text' | 'heredoc' | 'number' | 'name' | 'mark' | 'end'

interface Token {
  readonly kind: Kind | 'space'
  readonly raw: string
  readonly place: Place
}

type Forms = readonly (readonly [Token['kind'], RegExp])[]

/** Letters of a name, as Go has them. */
const LETTER = String.raw`[A-Za-z_\p{L}]`
/** In `${…}` quotes and line breaks do not end a text; braces in it are counted, here to a depth of three. */
const BRACED = String.raw`\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}`
const STRING = String.raw`"(?:\$${BRACED}|\\(?:.|$)|(?!\$\{)[^"\\\n])*"`
const heredocForm = (dash: string, indented: string) =>
  new RegExp(
    String.raw`<<${dash}(?<anchor>[\p{L}\p{Nd}_]+)\n(?<body>(?:[^\n]*\n)*?)(?<indent>[ \t\v\f\r]${indented})\k<anchor>\r*\n`,
    'uy',
  )
const HCL_FORMS: Forms = [
  ['space', /\s+|#[^\n]*|\/\/[^\n]*|\/\*[\s\S]*?\*\//y],
  ['heredoc', heredocForm('', '*')],
  // The closing word is not seen at the beginning of a line: what matters is that it is no shorter than the opening one with its dash.
  ['heredoc', heredocForm('-', '+')],
  ['text', new RegExp(STRING, 'uy')],
  ['number', /-?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)/y],
  ['name', new RegExp(String.raw`${LETTER}(?:${LETTER}|[\p{Nd}.-])*`, 'uy')],
  ['mark', /[{}[\],=]/y],
]
const JSON_FORMS: Forms = [
  ['space', /\s+/y],
  ['text', /"(?:[^"\\]|\\.)*"/y],
  ['number', /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y],
  ['name', /true|false|null/y],
  ['mark', /[{}[\],:]/y],
]

function tokensOf(text: string, forms: Forms, file: string): Token[] {
  const placeOf = placeIn(text)
  const tokens: Token[] = []
  for (let at = 0; at < text.length; ) {
    const token = tokenAt(text, at, forms)
    if (!token) return fail(file, placeOf(at), wrongStart(text.slice(at)))
    if (token.kind !== 'space') tokens.push({ ...token, place: placeOf(at) })
    // The line break that ends a heredoc belongs to it; nothing else in HCL minds line breaks.
    at += token.raw.length
  }
  return [...tokens, { kind: 'end', raw: 'the end of the file', place: placeOf(text.length) }]
}

function tokenAt(text: string, at: number, forms: Forms): Omit<Token, 'place'> | undefined {
  for (const [kind, pattern] of forms) {
    pattern.lastIndex = at
    const raw = pattern.exec(text)?.[0]
    if (raw !== undefined) return { kind, raw }
  }
  return undefined
}

function wrongStart(rest: string): string {
  if (rest.startsWith('"')) return 'this text has no end on its line; write \\n, or a heredoc such as <<EOT'
  if (rest.startsWith('<<'))
    return 'this heredoc has no end: its word must stand alone on a later line, indented after <<-'
  if (rest.startsWith('/*')) return 'this comment has no end'
  return `unexpected ${JSON.stringify(rest.slice(0, 1))}`
}

/** A function from offsets to places; columns count characters as editors do. */
function placeIn(text: string): (offset: number) => Place {
  const starts = [0, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1)]
  return (offset) => {
    const after = starts.findIndex((start) => start > offset)
    const line = after < 0 ? starts.length : after
    return { line, column: offset - (starts[line - 1] ?? 0) + 1 }
  }
}

interface Reader {
  readonly tokens: readonly Token[]
  at: number
  readonly file: string
}

const END: Token = { kind: 'end', raw: 'the end of the file', place: { line: 1, column: 1 } }
const peek = ({ tokens, at }: Reader): Token => tokens[at] ?? tokens.at(-1) ?? END

function take(reader: Reader): Token {
  const token = peek(reader)
  reader.at += 1
  return token
}

const isMark = ({ kind, raw }: Token, mark: string) => (kind === 'mark' || kind === 'end') && raw === mark

/** Up to `}`, or up to the end of the file. */
function readItems(reader: Reader, until: '}' | 'end', place: Place): Block {
  const items: Item[] = []
  const isOver = (token: Token) => (until === 'end' ? token.kind === 'end' : isMark(token, until))
  while (!isOver(peek(reader))) {
    const item = readItem(reader)
    const twin = items.find(({ keys, value }) => keys[0] === item.keys[0] && isPlain(value) && isPlain(item.value))
    if (twin) return fail(reader.file, item.place, `${twin.keys[0]} is given on line ${twin.place.line} already`)
    items.push(item)
    if (isMark(peek(reader), ',')) take(reader)
  }
  take(reader)
  return { items, place }
}

/** Blocks and lists of them may be repeated. */
const isPlain = (value: Value): boolean => !isBlock(value) && !(Array.isArray(value) && value.some(isBlock))

function readItem(reader: Reader): Item {
  const { place } = peek(reader)
  const keys: string[] = []
  for (;;) {
    const token = take(reader)
    if (token.kind === 'name') keys.push(token.raw)
    else if (token.kind === 'text') keys.push(unquote(token, reader.file))
    else if (keys.length === 1 && (isMark(token, '=') || isMark(token, ':')))
      return { keys, place, value: readValue(reader) }
    else if (keys.length > 0 && isMark(token, '{')) return { keys, place, value: readItems(reader, '}', token.place) }
    else {
      const wanted = keys.length > 0 ? `"=" or "{" after ${keys.join(' ')}` : 'a name'
      return fail(reader.file, token.place, `expected ${wanted}, not ${token.raw}`)
    }
  }
}

function readValue(reader: Reader): Value {
  const token = take(reader)
  const { kind, raw, place } = token
  if (isMark(token, '{')) return readItems(reader, '}', place)
  if (isMark(token, '[')) return readList(reader)
  if (kind === 'text') return unquote(token, reader.file)
  if (kind === 'heredoc') return heredoc(raw)
  if (kind === 'number') return numberOf(token, reader.file)
  if (raw === 'true' || raw === 'false') return raw === 'true'
  if (raw === 'null') return null
  return fail(reader.file, place, `expected a value, not ${raw}${kind === 'name' ? '; texts need quotes' : ''}`)
}

function readList(reader: Reader): Value[] {
  const values: Value[] = []
  while (!isMark(peek(reader), ']')) {
    values.push(readValue(reader))
    const next = peek(reader)
    if (isMark(next, ',')) take(reader)
    else if (!isMark(next, ']'))
      return fail(reader.file, next.place, `expected "," or "]" in this list, not ${next.raw}`)
  }
  take(reader)
  return values
}

/** Of a leading 0 HCL makes an octal number, as modes want it. */
function numberOf({ raw, place }: Token, file: string): number {
  const digits = raw.replace(/^-/, '')
  const isOctal = /^0\d+$/.test(digits)
  if (isOctal && /[89]/.test(digits))
    return fail(file, place, `${raw} begins with 0, so it is octal, and 8 and 9 are no digits of it`)
  const size = isOctal ? Number.parseInt(digits, 8) : Number(digits)
  return raw.startsWith('-') ? -size : size
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: '\u0007',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
  '/': '/',
}
const PIECE = new RegExp(
  String.raw`\$${BRACED}|\\(?:x(?<x>[0-9a-fA-F]{2})|u(?<u>[0-9a-fA-F]{4})|U(?<U>[0-9a-fA-F]{8})|(?<octal>[0-7]{3})|(?<one>[abfnrtv\\"/]))|\\`,
  'gu',
)

/** What stands within `${…}` is left as it is, escapes too. */
function unquote({ raw, place }: Token, file: string): string {
  return raw.slice(1, -1).replace(PIECE, (whole, ...rest) => {
    if (whole.startsWith('$')) return whole
    const { x, u, U, octal, one } = groupsIn(rest)
    if (one !== undefined) return ESCAPES[one] ?? one
    const code = octal === undefined ? Number.parseInt(x ?? u ?? U ?? '', 16) : Number.parseInt(octal, 8)
    if (Number.isNaN(code) || code > 0x10ffff)
      return fail(file, place, 'holds a backslash that begins no escape; write \\\\')
    return String.fromCodePoint(code)
  })
}

function groupsIn(rest: readonly unknown[]): Readonly<Record<string, string | undefined>> {
  const last: unknown = rest.at(-1)
  return typeof last === 'object' && last !== null ? Object.fromEntries(Object.entries(last)) : {}
}

/** `<<-EOT` takes the indentation of the closing word from each line, where every line has it; after `<<EOT` it is part of the text. */
function heredoc(raw: string): string {
  const lines = raw.split('\n').slice(1, -1)
  const indent = /^\s*/.exec(lines.at(-1) ?? '')?.[0] ?? ''
  const body = lines.slice(0, -1)
  if (!raw.startsWith('<<-')) return body.map((line) => `${line}\n`).join('') + indent
  const cut = body.every((line) => line.startsWith(indent)) ? indent.length : 0
  return body.map((line) => `${line.slice(cut)}\n`).join('')
}
