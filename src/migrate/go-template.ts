/** A part of a template of Go's text/template; `line` counts from 1, `source` is the action as it stands. */
export type Part =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'print'; readonly pipe: Pipe; readonly line: number; readonly source: string }
  | Control

export interface Control {
  readonly kind: 'if' | 'with' | 'range'
  readonly pipe: Pipe
  readonly body: readonly Part[]
  /** What stands after `else`; an `else if` is an `if` in it. */
  readonly otherwise: readonly Part[]
  readonly line: number
  readonly source: string
}

export interface Pipe {
  /** `$x := …`; two of them for `range $k, $v := …`. */
  readonly declares: readonly string[]
  /** What stands between `|`. */
  readonly commands: readonly (readonly Term[])[]
}

export type Term =
  /** `.` and `.Data.x`; of `$`, the name and its fields. */
  | { readonly kind: 'field'; readonly variable: string | undefined; readonly names: readonly string[] }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'number'; readonly text: string }
  | { readonly kind: 'word'; readonly word: string }
  | { readonly kind: 'pipe'; readonly pipe: Pipe; readonly names: readonly string[] }

export interface Delimiters {
  readonly left: string
  readonly right: string
}

/** Why a template, or a part of it, has no translation. */
export class Untranslatable extends Error {
  override readonly name = 'Untranslatable'
  readonly line: number

  constructor(line: number, message: string) {
    super(message)
    this.line = line
  }
}

/** Reads a template as `text/template/parse` does, as far as templates of secrets use it. Throws {@link Untranslatable}. */
export function parseGoTemplate(template: string, delimiters: Delimiters): Part[] {
  const pieces = piecesOf(template, delimiters)
  const cursor = { pieces, at: 0 }
  const { parts, ended } = readParts(cursor)
  if (ended) throw new Untranslatable(ended.line, `{{ ${ended.words} }} closes nothing`)
  return parts
}

interface Piece {
  readonly kind: 'text' | 'action'
  /** Of an action, what stands between the delimiters. */
  readonly words: string
  readonly line: number
  readonly source: string
}

const TRIMMED = ' \t\r\n'

/** Text and actions in turn, with white space trimmed where `{{-` and `-}}` ask for it. */
function piecesOf(template: string, { left, right }: Delimiters): Piece[] {
  const pieces: Piece[] = []
  let rest = 0
  let isTrimmed = false
  const text = (end: number, trimsEnd: boolean) => {
    const start = isTrimmed ? skip(template, rest) : rest
    const words = template.slice(start, Math.max(start, end))
    const kept = trimsEnd ? words.slice(0, lengthWithout(words)) : words
    if (kept !== '') pieces.push({ kind: 'text', words: kept, line: lineOf(template, rest), source: kept })
  }
  for (;;) {
    const open = template.indexOf(left, rest)
    if (open < 0) break
    const inner = open + left.length
    const trimsLeft = template[inner] === '-' && TRIMMED.includes(template[inner + 1] ?? 'x')
    text(open, trimsLeft)
    const line = lineOf(template, open)
    const { words, end, trimsRight } = action(template, trimsLeft ? inner + 1 : inner, right, line)
    if (words !== undefined) pieces.push({ kind: 'action', words, line, source: template.slice(open, end) })
    rest = end
    isTrimmed = trimsRight
  }
  text(template.length, false)
  return pieces
}

const lineOf = (text: string, at: number) => text.slice(0, at).split('\n').length
function skip(text: string, from: number): number {
  let at = from
  while (at < text.length && TRIMMED.includes(text[at] ?? '')) at += 1
  return at
}
function lengthWithout(text: string): number {
  let end = text.length
  while (end > 0 && TRIMMED.includes(text[end - 1] ?? '')) end -= 1
  return end
}

interface Action {
  /** Undefined for a comment. */
  readonly words: string | undefined
  readonly end: number
  readonly trimsRight: boolean
}

/** A delimiter within quotes is none. */
function action(template: string, from: number, right: string, line: number): Action {
  const start = skip(template, from)
  if (template.startsWith('/*', start)) {
    const close = template.indexOf('*/', start)
    const after = close + 2
    const trimsRight = TRIMMED.includes(template[after] ?? 'x') && template[after + 1] === '-'
    const end = trimsRight ? after + 2 : after
    if (close < 0 || !template.startsWith(right, end)) throw new Untranslatable(line, 'this comment has no end')
    return { words: undefined, end: end + right.length, trimsRight }
  }
  for (let at = start; at < template.length; at += 1) {
    const isTrimmed = TRIMMED.includes(template[at] ?? 'x') && template.startsWith(`-${right}`, at + 1)
    if (isTrimmed || template.startsWith(right, at)) {
      const end = at + right.length + (isTrimmed ? 2 : 0)
      return { words: template.slice(from, at).trim(), end, trimsRight: isTrimmed }
    }
    const quoted = QUOTED.exec(template.slice(at))?.[0]
    if (quoted !== undefined) at += quoted.length - 1
  }
  throw new Untranslatable(line, `this action has no ${right}`)
}

const QUOTED = /^(?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|'(?:[^'\\\n]|\\.)*')/

interface Cursor {
  readonly pieces: readonly Piece[]
  at: number
}

/** Up to an `end` or `else` that belongs to whoever asks. */
function readParts(cursor: Cursor): { parts: Part[]; ended: Piece | undefined } {
  const parts: Part[] = []
  for (;;) {
    const piece = cursor.pieces[cursor.at]
    cursor.at += 1
    if (!piece) return { parts, ended: undefined }
    if (piece.kind === 'text') parts.push({ kind: 'text', text: piece.words })
    else if (/^(?:end|else)\b/.test(piece.words)) return { parts, ended: piece }
    else parts.push(readAction(piece, cursor))
  }
}

function readAction(piece: Piece, cursor: Cursor): Part {
  const { words, line, source } = piece
  const [, keyword, rest = ''] = /^(\w+)\b\s*(.*)$/s.exec(words) ?? []
  if (keyword === 'if' || keyword === 'with' || keyword === 'range')
    return readControl(keyword, { ...piece, words: rest }, cursor)
  if (keyword !== undefined && ['define', 'template', 'block', 'break', 'continue'].includes(keyword))
    throw new Untranslatable(line, `{{ ${keyword} }} has no equivalent`)
  return { kind: 'print', pipe: pipeOf(words, line), line, source }
}

function readControl(kind: Control['kind'], { words, line, source }: Piece, cursor: Cursor): Control {
  const pipe = pipeOf(words, line)
  const { parts: body, ended } = readParts(cursor)
  if (!ended) throw new Untranslatable(line, `${source} has no end`)
  const [, next, rest = ''] = /^else(?:\s+(if|with)\b\s*(.*))?$/s.exec(ended.words) ?? []
  if (next === 'with') throw new Untranslatable(ended.line, '{{ else with }} has no equivalent')
  if (next === 'if')
    return { kind, pipe, body, otherwise: [readControl('if', { ...ended, words: rest }, cursor)], line, source }
  if (ended.words === 'end') return { kind, pipe, body, otherwise: [], line, source }
  const { parts: otherwise, ended: last } = readParts(cursor)
  if (last?.words !== 'end') throw new Untranslatable(line, `${source} has no end`)
  return { kind, pipe, body, otherwise, line, source }
}

const TOKEN =
  /\s*(?:(?<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?<number>[+-]?\d[\w.]*)|(?<variable>\$\w*)(?<of>(?:\.\w+)*)|(?<field>(?:\.\w+)+|\.)|(?<word>\w+)|(?<mark>:=|[|(),=]))/uy

interface Word {
  readonly groups: Readonly<Record<string, string | undefined>>
  /** Whether white space stands before it. */
  readonly isApart: boolean
}

function pipeOf(words: string, line: number): Pipe {
  const all = [...wordsOf(words, line)]
  const reader = { all, at: 0 }
  const pipe = readPipe(reader, line)
  if (reader.at < all.length) throw new Untranslatable(line, `{{ ${words} }} cannot be read`)
  return pipe
}

function* wordsOf(words: string, line: number): Generator<Word> {
  TOKEN.lastIndex = 0
  for (let at = 0; words.slice(at).trim() !== ''; at = TOKEN.lastIndex) {
    TOKEN.lastIndex = at
    const found = TOKEN.exec(words)
    if (!found?.groups) throw new Untranslatable(line, `{{ ${words} }} cannot be read`)
    yield { groups: found.groups, isApart: /^\s/.test(found[0]) }
  }
}

interface WordReader {
  readonly all: readonly Word[]
  at: number
}

const markAt = ({ all, at }: WordReader, ahead = 0) => all[at + ahead]?.groups.mark
const variableAt = ({ all, at }: WordReader, ahead = 0) => {
  const groups = all[at + ahead]?.groups
  return groups?.of === '' ? groups.variable : undefined
}

function readPipe(reader: WordReader, line: number): Pipe {
  const declares = readDeclares(reader)
  const commands: Term[][] = [readCommand(reader, line)]
  while (markAt(reader) === '|') {
    reader.at += 1
    commands.push(readCommand(reader, line))
  }
  return { declares, commands }
}

function readDeclares(reader: WordReader): string[] {
  const [first, second] = [variableAt(reader), variableAt(reader, 2)]
  if (first !== undefined && markAt(reader, 1) === ':=') {
    reader.at += 2
    return [first]
  }
  if (first === undefined || second === undefined || markAt(reader, 1) !== ',' || markAt(reader, 3) !== ':=') return []
  reader.at += 4
  return [first, second]
}

function readCommand(reader: WordReader, line: number): Term[] {
  const terms: Term[] = []
  for (let term = readTerm(reader, line); term; term = readTerm(reader, line)) terms.push(term)
  if (terms.length === 0) throw new Untranslatable(line, 'a value is missing')
  return terms
}

function readTerm(reader: WordReader, line: number): Term | undefined {
  const { text, number, variable, of, field, word, mark } = reader.all[reader.at]?.groups ?? {}
  if (mark === '=') throw new Untranslatable(line, 'a variable is changed')
  if (mark !== undefined && mark !== '(') return undefined
  reader.at += 1
  if (text !== undefined) return { kind: 'text', text: textOf(text, line) }
  if (number !== undefined) return { kind: 'number', text: number }
  if (variable !== undefined) return { kind: 'field', variable, names: namesIn(of) }
  if (field !== undefined) return { kind: 'field', variable: undefined, names: namesIn(field) }
  if (word !== undefined) return { kind: 'word', word }
  if (mark === undefined) return undefined
  const pipe = readPipe(reader, line)
  if (markAt(reader) !== ')') throw new Untranslatable(line, 'a ) is missing')
  reader.at += 1
  const next = reader.all[reader.at]
  if (next?.groups.field === undefined || next.isApart) return { kind: 'pipe', pipe, names: [] }
  reader.at += 1
  return { kind: 'pipe', pipe, names: namesIn(next.groups.field) }
}

const namesIn = (path = ''): string[] => path.split('.').filter((name) => name !== '')

/** Of Go's escapes those that JSON has as well; the others are rare. */
function textOf(quoted: string, line: number): string {
  if (quoted.startsWith('`')) return quoted.slice(1, -1)
  try {
    return String(JSON.parse(quoted))
  } catch {
    throw new Untranslatable(line, `${quoted} has an escape that is not known here`)
  }
}
