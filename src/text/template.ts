import {
  Context,
  Drop,
  Liquid,
  LiquidError,
  Parser,
  type Template as Part,
  type Token,
  Tokenizer,
  TypeGuards,
  toValue,
  toValueSync,
  UndefinedVariableError,
  Value,
} from 'liquidjs'
import type { Instant } from '../core/content.ts'
import { quote } from '../core/secret.ts'
import { describeAbsence, fieldOf, isList, isMap, type Json, textOf, type Values } from '../core/values.ts'
import { SidecarError } from '../errors.ts'
import { elsewhere, looksLikeGo } from './elsewhere.ts'
import { FILTERS, Given, LONGEST_TEXT, Unfit } from './filters.ts'

export interface Template {
  /** The values it reads, by name; each has to be one of the secret's. */
  readonly reads: readonly string[]
  /** Same values and time, same text. Throws TEMPLATE_FAILED, which names what is absent or does not fit, never what a value holds. */
  render(values: Values, at: { readonly now: Instant }): string
}

/**
 * A template in Liquid, of which it can use the tags that decide and repeat, and the filters of `filters.ts`: no way leads from it, or from
 * what the values hold, to code, to files, or beyond the fields of the values. Throws TEMPLATE_INVALID with line and column.
 * This module loads LiquidJS, so import it when there is a template.
 */
export function parseTemplate(text: string, name: string): Template {
  const parts = inPlace('TEMPLATE_INVALID', name, () => parse(text))
  const reads = inPlace('TEMPLATE_INVALID', name, () => namesIn(parts))
  return {
    reads,
    render: (values, { now }) =>
      inPlace('TEMPLATE_FAILED', name, () => {
        const rendered: string = engine.renderSync(parts, new Scope(values, now))
        if (rendered.length > LONGEST_TEXT) throw new Unfit(`the text would be longer than ${LONGEST_TEXT} characters`)
        if (!rendered.isWellFormed()) throw new Unfit('the text is not Unicode (half a surrogate pair)')
        return rendered
      }),
  }
}

/** Templates that do more than this are defects: they would keep everything else from running. */
const LIMITS = { parseLimit: 512 * 1024, renderLimit: 2000, memoryLimit: 4 * LONGEST_TEXT }

const engine = new Liquid({
  ...LIMITS,
  strictFilters: true,
  strictVariables: true,
  // `default`, `if` and `unless` may ask for a field that is absent.
  lenientIf: true,
  ownPropertyOnly: true,
  // None but these: the tags that would read files are gone as well.
  templates: {},
  // What is printed is text, not HTML.
  outputEscape: (value: unknown) => textOf(toJson(value)),
  // Else it would load the tables of all languages.
  locale: 'en-US',
})

// The one for comments of a line, #, is not among them: its pattern takes the square of the time.
const TAGS = ['assign', 'break', 'capture', 'case', 'comment', 'continue', 'for', 'if', 'raw', 'unless']
for (const tag of Object.keys(engine.tags)) if (!TAGS.includes(tag)) delete engine.tags[tag]
for (const filter of Object.keys(engine.filters)) engine.unregisterFilter(filter)
for (const [name, { apply }] of Object.entries(FILTERS))
  engine.registerFilter(name, function (this: FilterCall, input: unknown, ...args: unknown[]) {
    try {
      return apply(...given(this, name, [input, ...args]))
    } catch (error) {
      throw error instanceof Unfit ? new Misplaced(error.message, this.token) : error
    }
  })

interface FilterCall {
  readonly context: Context
  readonly token: Token
}

/** The input of a filter and its arguments; what they weigh counts, and so does what the filter makes of them where it is read again. */
function given({ context }: FilterCall, name: string, values: readonly unknown[]): [Given, ...Given[]] {
  const [input, ...args] = values.map((value, place) => {
    const json = name === 'date' && value === 'now' && context instanceof Scope ? context.today : toJson(value)
    context.memoryLimit.use(weightOf(json))
    return new Given(json, place === 0 ? `what ${name} is given` : `argument ${place} of ${name}`)
  })
  return [input ?? new Given(null, name), ...args]
}

/** How deep lists and maps may lie in each other. */
const DEEPEST = 100

/** A measure of the memory that JSON takes, so that no template can fill it by copying. */
function weightOf(json: Json, depth = 0): number {
  if (depth > DEEPEST) throw new Unfit(`lists and maps are more than ${DEEPEST} deep`)
  if (typeof json === 'string') return json.length
  if (isList(json)) return json.reduce<number>((sum, item) => sum + 1 + weightOf(item, depth + 1), 0)
  if (!isMap(json)) return 1
  return Object.entries(json).reduce((sum, [name, item]) => sum + name.length + weightOf(item, depth + 1), 0)
}

/** What a template works with is JSON, but for the engine's own words: nil, empty, blank and forloop. */
function toJson(value: unknown): Json {
  const plain = value instanceof Drop ? toValue(value) : value
  if (plain === undefined || plain === null) return null
  if (typeof plain === 'string' || typeof plain === 'number' || typeof plain === 'boolean' || isJson(plain))
    return plain
  throw new Unfit('that cannot be printed')
}

const isJson = (value: unknown): value is Json => typeof value === 'object' && !(value instanceof Drop)

/** Where a template looks names up. */
class Scope extends Context {
  /** What `now` is for the filter `date`. */
  readonly today: string

  constructor(values: Values, now: Instant) {
    super(values, engine.options, { sync: true }, { liquid: engine })
    this.today = new Date(now).toISOString()
  }

  /** Own fields alone, step by step; what the engine does besides (calling functions, reading prototypes) has no place here. */
  // biome-ignore lint/correctness/useYield: the engine runs an iterator, and there is nothing to wait for
  override *_getFromScope(scope: unknown, path: readonly unknown[] | string): IterableIterator<unknown> {
    const isName = scope === this.environments || scope === this.globals
    let found = scope
    for (const [step, key] of [path].flat().entries()) {
      const next = read(found, key)
      if (next === undefined) throw new Absent(isName && step === 0 ? this.environments : found, step, isName)
      if (typeof next === 'string' && next.length > LONGEST_TEXT) throw new Unfit('a text grows too long')
      found = next
    }
    return found
  }
}

const FORLOOP = ['first', 'index', 'index0', 'last', 'length', 'rindex', 'rindex0']

function read(container: unknown, key: unknown): unknown {
  const step = String(key)
  if (container instanceof Drop) {
    const member: unknown = FORLOOP.includes(step) ? Reflect.get(container, step) : undefined
    return typeof member === 'function' ? member.call(container) : member
  }
  if (typeof container === 'string') return step === 'size' ? container.length : undefined
  if (!isJson(container)) return undefined
  if (!isList(container)) return fieldOf(container, step)
  if (step === 'size') return container.length
  if (step === 'first') return container.at(0)
  return step === 'last' ? container.at(-1) : /^-?\d+$/.test(step) ? container.at(Number(step)) : undefined
}

/** A step of a path that leads nowhere. The engine knows it by its name, and forgives it where a template asks whether something is there. */
class Absent extends Error {
  override readonly name: string
  readonly container: unknown
  readonly step: number

  constructor(container: unknown, step: number, isName: boolean) {
    super('absent')
    // A name that no value has is a slip of the pen.
    this.name = isName && step === 0 ? 'AbsentName' : 'InternalUndefinedVariableError'
    this.container = container
    this.step = step
  }
}

function parse(text: string): Part[] {
  if (text.length > LIMITS.parseLimit) throw new Unfit(`it is longer than ${LIMITS.parseLimit} characters`)
  const tokens = new Tokenizer(text, engine.options.operators).readTopLevelTokens(engine.options)
  if (tokens.length > MOST_PARTS) throw new Unfit(`it has more than ${MOST_PARTS} tags, outputs and texts between them`)
  for (const token of tokens)
    if (!TypeGuards.isHTMLToken(token) && hasWildRange(token.getText())) throw new Misplaced(RANGES, token)
  const parts = new Parser(engine).parseTokens(tokens)
  assertWhole(parts)
  return parts
}

/** The engine shifts them off a list one by one, which takes the square of the time from some ten thousand on. */
const MOST_PARTS = 20_000

const RANGES = 'a range takes two whole numbers, such as (1..5)'

/** Within a huge number the engine would count for ever; parentheses stand for nothing but ranges. */
function hasWildRange(tag: string): boolean {
  return withoutQuotes(tag)
    .replace(/\(\d{1,6}\.\.\d{1,6}\)/g, '')
    .includes('(')
}

/** What the engine reads as quoted text left out. */
function withoutQuotes(tag: string): string {
  let bare = ''
  for (let at = 0; at < tag.length; at++) {
    const char = tag[at] ?? ''
    const end = char === '"' || char === "'" ? closing(tag, at) : undefined
    if (end === undefined) bare += char
    else if (end < 0) return bare + tag.slice(at)
    else at = end
  }
  return bare
}

/** Where the quote that opens at `open` is closed; -1 where it never is. */
function closing(text: string, open: number): number {
  for (let at = open + 1; at < text.length; at++) {
    if (text[at] === '\\') at++
    else if (text[at] === text[open]) return at
  }
  return -1
}

/** Something in a template that the engine takes, and that makes no sense. */
class Misplaced extends LiquidError {
  override readonly name = 'Misplaced'
}

/** Refuses what the engine takes without a word: `{{ a b }}` for b, a condition without an end for a false one, arguments that are not used. */
function assertWhole(parts: readonly Part[]): void {
  for (const part of allOf(parts))
    for (const argument of part.arguments?.() ?? []) {
      if (!(argument instanceof Value)) continue
      if (!isWhole(argument)) throw new Misplaced('it takes one value, then filters after |', part.token)
      for (const filter of argument.filters) assertArguments(filter, part)
    }
}

/** Parts, and those within them. */
function* allOf(parts: readonly Part[]): Generator<Part> {
  for (const part of parts) {
    yield part
    if (part.children) yield* allOf(toValueSync(part.children(false, true)))
  }
}

function isWhole({ initial: { postfix } }: Value): boolean {
  let operands = 0
  for (const token of postfix) {
    if (token.getText().startsWith('.')) return false
    if (!TypeGuards.isOperatorToken(token)) operands += 1
    else if (token.getText() !== 'not') operands -= 1
    if (operands < 1) return false
  }
  return operands === 1
}

function assertArguments({ name, args }: Value['filters'][number], { token }: Part): void {
  const [least, most] = FILTERS[name]?.takes ?? [0, 0]
  if (args.length < least || args.length > most)
    throw new Misplaced(
      `${name} takes ${least === most ? least : `${least} or ${most}`} ${most === 1 ? 'argument' : 'arguments'}`,
      token,
    )
  // It ends in a message, where nothing that a value holds may stand.
  if (name === 'required' && !TypeGuards.isQuotedToken(args[0]))
    throw new Misplaced('required takes its message in quotes', token)
}

/** The names that it looks up, without those that it gives itself, wherever that is: the engine's own analysis takes the square of the time. */
function namesIn(parts: readonly Part[]): string[] {
  const looked = new Set<string>()
  const given = new Set<string>()
  for (const part of allOf(parts)) {
    for (const argument of part.arguments?.() ?? []) for (const name of namesOf(argument)) looked.add(name)
    for (const { content } of part.localScope?.() ?? []) given.add(content)
    for (const name of part.blockScope?.() ?? []) given.add(name)
  }
  return [...looked].filter((name) => !given.has(name))
}

function* namesOf(argument: unknown): Generator<string> {
  if (argument instanceof Value) {
    const args = argument.filters.flatMap((filter) => filter.args).flat()
    for (const token of [...argument.initial.postfix, ...args]) yield* namesOf(token)
  } else if (TypeGuards.isPropertyAccessToken(argument)) {
    const [first] = argument.variable ? [] : argument.props
    if (first && 'content' in first && typeof first.content === 'string') yield first.content
    for (const step of [argument.variable, ...argument.props]) yield* namesOf(step)
  }
}

type Failure = 'TEMPLATE_INVALID' | 'TEMPLATE_FAILED'

/** Runs the engine, and says of what it throws where it was and why; its own words may hold what the values hold. */
function inPlace<T>(code: Failure, name: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    const place = error instanceof LiquidError ? `:${error.token.getPosition().join(':')}` : ''
    throw new SidecarError(code, `template ${quote(name)}${place}: ${quote(reasonOf(error, code), 400)}`)
  }
}

function reasonOf(error: unknown, code: Failure): string {
  if (error instanceof Misplaced) return error.message + goWords(error, code)
  const origin = error instanceof LiquidError && error.originalError ? error.originalError : error
  if (origin instanceof Unfit) return origin.message
  if (origin instanceof Absent) return describeAbsent(origin, error)
  const message = origin instanceof Error ? origin.message : ''
  if (message.endsWith('limit exceeded')) return LIMIT_WORDS
  if (message.includes('call stack')) return 'it is nested too deep'
  if (code === 'TEMPLATE_FAILED' || !(error instanceof LiquidError)) return 'it cannot be worked out'
  const said = message.replace(/, line:\d+, col:\d+$/, '')
  return elsewhere(said, { tags: TAGS, filters: Object.keys(FILTERS) }) + goWords(error, code)
}

const LIMIT_WORDS = `it takes longer than ${LIMITS.renderLimit / 1000} s, or more than ${LIMITS.memoryLimit} characters of memory; see its loops`

const goWords = ({ token }: LiquidError, code: Failure) =>
  code === 'TEMPLATE_INVALID' && looksLikeGo(token.input) ? GO_WORDS : ''
const GO_WORDS =
  '; this looks like a template of consul-template or Vault Agent, see docs/templates.md for what its parts become'

/** By the words of the template: what it looks up may be a secret. */
function describeAbsent({ container, step }: Absent, error: unknown): string {
  if (!(error instanceof UndefinedVariableError) || !TypeGuards.isPropertyAccessToken(error.token))
    return 'a field is absent'
  const { props, input, begin } = error.token
  const absent = props[step]?.getText().replace(/^(["'])(.*)\1$/s, '$2') ?? ''
  const before = step === 0 ? '' : input.slice(begin, props[step - 1]?.end)
  const why =
    isJson(container) || typeof container === 'string' ? `: ${describeAbsence(container, absent, before)}` : ''
  return `there is no ${error.token.getText()}${why}`
}
