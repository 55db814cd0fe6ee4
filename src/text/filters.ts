import { createHash } from 'node:crypto'
import { isList, isMap, type Json, kindOf, textOf } from '../core/values.ts'
import { formatInstant, parseInstant } from './date.ts'
import { toYaml } from './formats.ts'
import { escapeProperty } from './java-properties.ts'
import { labelOf, pemBlocks } from './pem-blocks.ts'
import { shellQuote, tomlString } from './quoting.ts'

/** Why a filter cannot do its work, in words that repeat nothing of what it was given. */
export class Unfit extends Error {
  override readonly name = 'Unfit'
}

/** What a filter is given: its input, or an argument of it. Each reading throws {@link Unfit} where it does not apply. */
export class Given {
  readonly json: Json
  readonly #what: string

  constructor(json: Json, what: string) {
    this.json = json
    this.#what = what
  }

  text(): string {
    if (isList(this.json) || isMap(this.json))
      throw this.unfit(`is ${kindOf(this.json)}, not text; see json, join, keys`)
    return textOf(this.json)
  }

  number(): number {
    const number = typeof this.json === 'string' && /^-?\d+(?:\.\d+)?$/.test(this.json) ? Number(this.json) : this.json
    if (typeof number !== 'number' || !Number.isFinite(number)) throw this.unfit('is no number')
    return number
  }

  /** A whole number that JSON keeps every digit of, up to `most`. */
  whole(most = Number.MAX_SAFE_INTEGER): number {
    const number = this.number()
    if (!Number.isInteger(number) || Math.abs(number) > most) throw this.unfit(`is no whole number up to ${most}`)
    return number
  }

  list(): readonly Json[] {
    if (!isList(this.json)) throw this.unfit(`is ${kindOf(this.json)}, not a list`)
    return this.json
  }

  map(): Readonly<Record<string, Json>> {
    if (!isMap(this.json)) throw this.unfit(`is ${kindOf(this.json)}, not a map`)
    return this.json
  }

  unfit(why: string): Unfit {
    return new Unfit(`${this.#what} ${why}`)
  }
}

export interface Filter {
  /** How many arguments it takes, at least and at most. */
  readonly takes: readonly [number, number]
  readonly apply: (input: Given, ...args: Given[]) => Json
}

/** Longer texts than this no filter makes, and no template yields. */
export const LONGEST_TEXT = 8 * 1024 * 1024

const takes = (count: number, apply: Filter['apply'], most = count): Filter => ({ takes: [count, most], apply })
const ofText = (change: (text: string) => Json): Filter => takes(0, (input) => change(input.text()))

const upper = ofText((text) => text.toUpperCase())
const lower = ofText((text) => text.toLowerCase())
const trim = ofText((text) => text.trim())

/** Every filter of a template: pure functions on JSON. What would let a template run code, read files or search with patterns is none of them. */
export const FILTERS: Readonly<Record<string, Filter>> = {
  // Text
  upper,
  lower,
  trim,
  append: takes(1, (input, tail) => input.text() + tail.text()),
  prepend: takes(1, (input, head) => head.text() + input.text()),
  trim_prefix: takes(1, (input, head) =>
    input.text().startsWith(head.text()) ? input.text().slice(head.text().length) : input.text(),
  ),
  trim_suffix: takes(1, (input, tail) =>
    input.text().endsWith(tail.text()) ? input.text().slice(0, input.text().length - tail.text().length) : input.text(),
  ),
  replace: takes(2, (input, from, to) => replaceAll(input, from, to)),
  split: takes(1, (input, separator) => input.text().split(separator.text())),
  indent: takes(1, (input, width) => indented(input, width)),
  nindent: takes(1, (input, width) => `\n${indented(input, width)}`),

  // Quoting and encoding
  quote: ofText((text) => JSON.stringify(text)),
  squote: takes(0, (input) => singleQuoted(input)),
  shell_quote: takes(0, (input) => {
    if (input.text().includes('\0')) throw input.unfit('holds a NUL, which no shell can')
    return shellQuote(input.text())
  }),
  toml_string: ofText(tomlString),
  properties_escape: ofText(escapeProperty),
  url_encode: ofText(urlEncode),
  url_decode: takes(0, (input) => urlDecode(input)),
  base64_encode: ofText((text) => Buffer.from(text).toString('base64')),
  base64_decode: takes(0, (input) => base64Decode(input, /^[A-Za-z0-9+/]*={0,2}$/)),
  base64url_encode: ofText((text) => Buffer.from(text).toString('base64url')),
  base64url_decode: takes(0, (input) => base64Decode(input, /^[A-Za-z0-9_-]*={0,2}$/)),
  sha256: ofText((text) => createHash('sha256').update(text).digest('hex')),

  // Documents
  json: takes(0, (input) => JSON.stringify(input.json)),
  json_pretty: takes(0, (input) => JSON.stringify(input.json, null, 2)),
  parse_json: takes(0, (input) => parseJson(input)),
  yaml: takes(0, (input) => toYaml(input.json).trimEnd()),

  // Lists and maps
  size: takes(0, (input) => sizeOf(input)),
  first: takes(0, (input) => at(input, 0)),
  last: takes(0, (input) => at(input, -1)),
  join: takes(0, (input, separator) => join(input, separator), 1),
  sort: takes(0, (input) => input.list().toSorted(compare)),
  reverse: takes(0, (input) => input.list().toReversed()),
  uniq: takes(0, (input) => [...new Map(input.list().map((item) => [JSON.stringify(item), item])).values()]),
  concat: takes(1, (input, other) => [...input.list(), ...other.list()]),
  map: takes(1, (input, name) => input.list().map((item) => ownField(input, item, name.text()))),
  keys: takes(0, (input) => Object.keys(input.map())),
  values: takes(0, (input) => Object.values(input.map())),

  // PEM
  pem_split: ofText((text) => pemBlocks(text)),
  pem_certificates: ofText((text) => blocksWith(text, /^CERTIFICATE$/)),
  pem_keys: ofText((text) => blocksWith(text, /^(?:[A-Z]+ )?PRIVATE KEY$/)),

  // Numbers and times
  to_int: takes(0, (input) => input.whole()),
  plus: takes(1, (input, other) => input.number() + other.number()),
  minus: takes(1, (input, other) => input.number() - other.number()),
  times: takes(1, (input, other) => input.number() * other.number()),
  date: takes(0, (input, format) => date(input, format), 1),

  // What is absent
  default: takes(1, (input, other) => (isAbsent(input.json) ? other.json : input.json)),
  required: takes(1, (input, message) => {
    if (isAbsent(input.json)) throw new Unfit(message.text())
    return input.json
  }),

  // As Liquid calls them
  upcase: upper,
  downcase: lower,
  strip: trim,
}

function assertShort(length: number): void {
  if (length > LONGEST_TEXT) throw new Unfit(`the result would be longer than ${LONGEST_TEXT} characters`)
}

function replaceAll(input: Given, from: Given, to: Given): string {
  if (from.text() === '') throw from.unfit('is empty')
  const parts = input.text().split(from.text())
  assertShort(input.text().length + parts.length * to.text().length)
  return parts.join(to.text())
}

/** Lines that are empty stay so. */
function indented(input: Given, width: Given): string {
  const blanks = ' '.repeat(Math.max(0, width.whole(100)))
  const lines = input.text().split('\n')
  assertShort(input.text().length + lines.length * blanks.length)
  return lines.map((line) => (line === '' ? '' : blanks + line)).join('\n')
}

/** YAML and SQL double a single quote, a shell leaves and comes back, others escape it: no way is right for all. */
function singleQuoted(input: Given): string {
  if (/['\\\n]/.test(input.text()))
    throw input.unfit('holds a single quote, a \\ or a line break; use shell_quote, or json for YAML and JSON')
  return `'${input.text()}'`
}

/** Whatever is not unreserved (RFC 3986 §2.3), so that it fits into a path and into a query alike. */
function urlEncode(text: string): string {
  return encodeURIComponent(text.toWellFormed()).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}

function urlDecode(input: Given): string {
  try {
    return decodeURIComponent(input.text())
  } catch {
    throw input.unfit('is not percent-encoded UTF-8')
  }
}

function base64Decode(input: Given, alphabet: RegExp): string {
  const compact = input.text().replace(/\s+/g, '')
  if (!alphabet.test(compact) || compact.replace(/=+$/, '').length % 4 === 1) throw input.unfit('is not base64')
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.from(compact, 'base64'))
  } catch {
    throw input.unfit('decodes to bytes that are no UTF-8 text; leave it in base64')
  }
}

/** The parser's own message would quote the text. */
function parseJson(input: Given): Json {
  try {
    return JSON.parse(input.text())
  } catch {
    throw input.unfit('is not JSON')
  }
}

function sizeOf({ json }: Given): number {
  if (isList(json)) return json.length
  return isMap(json) ? Object.keys(json).length : textOf(json).length
}

function at(input: Given, place: number): Json {
  const item = input.list().at(place)
  if (item === undefined) throw input.unfit('is an empty list')
  return item
}

function join(input: Given, separator: Given | undefined): string {
  const texts = input.list().map((item) => textOf(item))
  const between = separator?.text() ?? ''
  assertShort(texts.reduce((sum, text) => sum + text.length + between.length, 0))
  return texts.join(between)
}

/** Numbers by size, all else by the code units of its text, so that the order is the same everywhere. */
function compare(a: Json, b: Json): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b
  const [one, other] = [textOf(a), textOf(b)]
  return one < other ? -1 : one > other ? 1 : 0
}

function ownField(input: Given, item: Json, name: string): Json {
  const field = isMap(item) && Object.hasOwn(item, name) ? item[name] : undefined
  if (field === undefined) throw input.unfit('holds something without that field')
  return field
}

const blocksWith = (text: string, label: RegExp) =>
  pemBlocks(text)
    .filter((block) => label.test(labelOf(block)))
    .join('')

function date(input: Given, format: Given | undefined): string {
  const instant = parseInstant(input.text())
  if (instant === undefined) throw input.unfit('is no time; it takes 2026-11-26T18:00:00Z, seconds since 1970, or now')
  const text = formatInstant(instant, format?.text() ?? '%Y-%m-%dT%H:%M:%SZ')
  if (text === undefined)
    throw new Unfit('the format or the year is unknown; docs/templates.md lists what a format can hold')
  return text
}

const isAbsent = (json: Json): boolean =>
  json === null || json === '' || ((isList(json) || isMap(json)) && Object.keys(json).length === 0)
