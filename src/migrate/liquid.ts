import { type Control, type Part, type Pipe, type Term, Untranslatable } from './go-template.ts'
import { reference } from './migration.ts'
import type { ValueBook } from './value-book.ts'

/** A template of a secret in Liquid, and what it may print otherwise than before. */
export interface Translated {
  readonly template: string
  readonly remarks: readonly string[]
}

/**
 * Translates a template to the letter: for all that Vault gives, the Liquid prints the same bytes. What has no such translation throws
 * {@link Untranslatable}; nothing is guessed. `poll` belongs to values that have no lease.
 */
export function toLiquid(parts: readonly Part[], book: ValueBook): Translated {
  const work: Work = { book, remarks: new Set(), taken: new Set() }
  const template = translate(parts, { dot: NOTHING, variables: new Map() }, work)
  return { template, remarks: [...work.remarks] }
}

/** What `.` or a variable stands for. */
type Meaning =
  | { readonly kind: 'nothing' }
  /** What `secret` gives. */
  | { readonly kind: 'secret'; readonly path: string; readonly name: string }
  /** Its `.Data`. */
  | { readonly kind: 'data'; readonly path: string; readonly name: string }
  /** A value of Liquid: where it lies, and filters. */
  | { readonly kind: 'value'; readonly at: string; readonly filters: string; readonly isMap?: true }

const NOTHING: Meaning = { kind: 'nothing' }

interface Scope {
  readonly dot: Meaning
  /** `$x := …` adds to those of the block it stands in. */
  readonly variables: Map<string, Meaning>
}

interface Work {
  readonly book: ValueBook
  readonly remarks: Set<string>
  /** Names of loops. */
  readonly taken: Set<string>
}

function translate(parts: readonly Part[], scope: Scope, work: Work): string {
  return parts.map((part) => translatePart(part, scope, work)).join('')
}

function translatePart(part: Part, scope: Scope, work: Work): string {
  if (part.kind === 'text') return plain(part.text)
  try {
    if (part.kind === 'print') return print(part.pipe, scope, work)
    return part.kind === 'range' ? range(part, scope, work) : choose(part, scope, work)
  } catch (error) {
    if (error instanceof Reason) throw new Untranslatable(part.line, `${part.source}: ${error.message}`)
    throw error
  }
}

/** Why something cannot be translated; which action that is in, is added further up. */
class Reason extends Error {
  override readonly name = 'Reason'
}

/** Text in which nothing means anything to Liquid: a brace that could open a tag is printed by one. */
const plain = (text: string): string => text.replace(/\{(?=[{%]|$)/g, '{{ "{" }}')

function print({ declares, commands }: Pipe, scope: Scope, work: Work): string {
  const [name] = declares
  if (name !== undefined) {
    scope.variables.set(name, meaningOf({ declares: [], commands }, scope, work))
    return ''
  }
  const [first = [], ...more] = commands
  const [head, argument] = first
  if (
    head?.kind === 'word' &&
    head.word === 'env' &&
    argument?.kind === 'text' &&
    first.length === 2 &&
    more.length === 0
  ) {
    work.remarks.add(`\${${argument.text}} is read from the environment once, when the config is loaded.`)
    return reference(argument.text, '')
  }
  if (head?.kind === 'word' && head.word === 'printf' && more.length === 0) return printf(first.slice(1), scope, work)
  return output(meaningOf({ declares: [], commands }, scope, work))
}

function output(meaning: Meaning): string {
  if (meaning.kind !== 'value') throw new Reason('prints a whole secret, in a form of Go')
  const literal = meaning.filters === '' ? LITERAL.exec(meaning.at)?.[0] : undefined
  return literal === undefined ? `{{ ${meaning.at}${meaning.filters} }}` : plain(String(JSON.parse(literal)))
}

const LITERAL = /^"(?:[^"\\]|\\.)*"$/

/** `%s` alone, of what is a text. */
function printf([format, ...terms]: readonly Term[], scope: Scope, work: Work): string {
  if (format?.kind !== 'text') throw new Reason('has no format')
  const pieces = format.text.split(/(%.)/s)
  if (pieces.some((piece) => piece.startsWith('%') && piece !== '%s' && piece !== '%%'))
    throw new Reason('printf is translated with %s only')
  const values = terms.map((term) => output(termMeaning(term, scope, work)))
  if (pieces.filter((piece) => piece === '%s').length !== values.length)
    throw new Reason('printf has more or fewer arguments than %s')
  return pieces.map((piece) => (piece === '%s' ? (values.shift() ?? '') : plain(piece === '%%' ? '%' : piece))).join('')
}

/** `with` and `if`. */
function choose(part: Control, scope: Scope, work: Work): string {
  const call = part.kind === 'with' ? secretCall(part.pipe, work) : undefined
  if (call) {
    // consul-template writes nothing until the secret is there, so there is no other case.
    if (part.otherwise.length > 0)
      throw new Reason('else after a secret: certferry writes nothing until the secret is there')
    return translate(part.body, within(scope, call, part.pipe.declares), work)
  }
  if (part.kind === 'if' && part.pipe.declares.length > 0) throw new Reason('a variable is set in a condition')
  const { open, close, meaning } = condition(part, scope, work)
  const body = translate(part.body, meaning ? within(scope, meaning, part.pipe.declares) : inner(scope), work)
  const otherwise = part.otherwise.length === 0 ? '' : `{% else %}${translate(part.otherwise, inner(scope), work)}`
  return `${open}${body}${otherwise}${close}`
}

const inner = ({ dot, variables }: Scope): Scope => ({ dot, variables: new Map(variables) })

function within({ variables }: Scope, dot: Meaning, declares: readonly string[]): Scope {
  return { dot, variables: new Map([...variables, ...declares.map((name) => [name, dot] as const)]) }
}

interface Condition {
  readonly open: string
  readonly close: string
  /** What `with` makes of the dot. */
  readonly meaning?: Meaning
}

/** Empty text, an empty list or map, false and what is absent count as no: `default` makes all of them false. */
function condition({ kind, pipe }: Control, scope: Scope, work: Work): Condition {
  const [command = [], more] = pipe.commands
  const [head, ...terms] = command
  const word = head?.kind === 'word' && more === undefined ? head.word : undefined
  if (kind === 'if' && word === 'not' && terms.length === 1) {
    const value = place(oneTerm(terms[0]), scope, work)
    return { open: `{% unless ${value} | default: false %}`, close: '{% endunless %}' }
  }
  if (kind === 'if' && (word === 'eq' || word === 'ne') && terms.length === 2) {
    const [left, right] = terms.map((term) => place(oneTerm(term), scope, work))
    if (terms[1]?.kind !== 'text') throw new Reason(`${word} is translated with a text in quotes only`)
    return { open: `{% if ${left} ${word === 'eq' ? '==' : '!='} ${right} %}`, close: '{% endif %}' }
  }
  const meaning = meaningOf({ declares: [], commands: pipe.commands }, scope, work)
  return { open: `{% if ${at(meaning)} | default: false %}`, close: '{% endif %}', ...(kind === 'with' && { meaning }) }
}

const oneTerm = (term: Term | undefined): Pipe => ({ declares: [], commands: term ? [[term]] : [] })
const place = (pipe: Pipe, scope: Scope, work: Work): string => at(meaningOf(pipe, scope, work))

/** A value without filters: a condition and a loop take no others. */
function at(meaning: Meaning): string {
  if (meaning.kind === 'data' || meaning.kind === 'secret')
    throw new Reason('a whole secret stands where a field is needed')
  if (meaning.kind === 'nothing') throw new Reason('nothing is here to be asked for')
  if (meaning.filters !== '') throw new Reason('a function stands where certferry takes a field')
  return meaning.at
}

function range(part: Control, scope: Scope, work: Work): string {
  const [first, second] = part.pipe.declares
  const subject = meaningOf({ declares: [], commands: part.pipe.commands }, scope, work)
  const map = fieldsOf(subject, work)
  const list = map === undefined ? at(subject) : undefined
  const end = part.otherwise.length === 0 ? '' : `{% else %}${translate(part.otherwise, inner(scope), work)}`
  if (map !== undefined) {
    // Go goes through maps in the order of their keys.
    const [keys, key] = [newName('keys', work), newName('key', work)]
    const value: Meaning = { kind: 'value', at: `${map}[${key}]`, filters: '' }
    const variables =
      second === undefined
        ? first === undefined
          ? []
          : [[first, value] as const]
        : [[first ?? '', { kind: 'value', at: key, filters: '' }] as const, [second, value] as const]
    const body = translate(
      part.body,
      { dot: value, variables: new Map<string, Meaning>([...scope.variables, ...variables]) },
      work,
    )
    return `{% assign ${keys} = ${map} | keys | sort %}{% for ${key} in ${keys} %}${body}${end}{% endfor %}`
  }
  if (second !== undefined)
    throw new Reason(
      'whether this is a list or a map only its value can tell; a range with two variables is translated for the whole of a secret',
    )
  const item = newName('item', work)
  work.remarks.add(`${list} is taken for a list.`)
  const dot: Meaning = { kind: 'value', at: item, filters: '' }
  const body = translate(part.body, within(scope, dot, first === undefined ? [] : [first]), work)
  return `{% for ${item} in ${list} %}${body}${end}{% endfor %}`
}

/** The name of all fields of a secret, where that is what is meant. */
const fieldsOf = (meaning: Meaning, { book }: Work): string | undefined => {
  if (meaning.kind === 'data' && isPinned(meaning.path)) throw new Reason(PINNED)
  if (meaning.kind === 'data') return book.isKv2(meaning.path) ? undefined : meaning.name
  return meaning.kind === 'value' && meaning.isMap && meaning.filters === '' ? meaning.at : undefined
}

function newName(stem: string, { taken }: Work): string {
  let name = stem
  for (let count = 2; taken.has(name); count += 1) name = `${stem}${count}`
  taken.add(name)
  return name
}

/** `secret "path"`, with or without parameters. */
function secretCall({ commands }: Pipe, { book }: Work): Meaning | undefined {
  const [command = [], more] = commands
  const [head, ...terms] = command
  if (head?.kind !== 'word' || head.word !== 'secret' || more !== undefined) return undefined
  const texts = terms.map(fixedText)
  const [path = '', ...parameters] = texts
  const query = path.slice(path.indexOf('?') + 1)
  if (path.includes('?') && !isPinned(path))
    throw new Reason(`?${query} has no equivalent; of what follows a path certferry takes one version, as a number`)
  return { kind: 'secret', path, name: book.nameOf(path, parameters) }
}

/** Whether it asks for one version, as only KV version 2 has them. */
const isPinned = (path: string): boolean => /\?version=\d+$/.test(path)
const PINNED = 'of one version certferry reads the fields (.Data.data), and nothing else'

/** What is known before anything runs: a text, or one put together from texts and the environment, as in `(printf "kv/%s" (env "STAGE"))`. */
function fixedText(term: Term): string {
  if (term.kind === 'text') return term.text
  const [head, first, ...args] = term.kind === 'pipe' ? (term.pipe.commands[0] ?? []) : []
  if (
    term.kind === 'pipe' &&
    term.pipe.commands.length + term.names.length === 1 &&
    head?.kind === 'word' &&
    first?.kind === 'text'
  ) {
    if (head.word === 'env' && args.length === 0) return reference(first.text)
    const pieces = first.text.split('%s')
    if (head.word === 'printf' && !pieces.join('').includes('%') && pieces.length === args.length + 1)
      return pieces.map((piece, index) => piece + (args[index] ? fixedText(args[index]) : '')).join('')
  }
  throw new Reason('the path is put together while it runs; write it out')
}

function meaningOf(pipe: Pipe, scope: Scope, work: Work): Meaning {
  const call = secretCall(pipe, work)
  if (call) return call
  const [first = [], ...more] = pipe.commands
  const start = commandMeaning(first, scope, work)
  return more.reduce<Meaning>((input, command) => apply(command, input, work), start)
}

function commandMeaning(command: readonly Term[], scope: Scope, work: Work): Meaning {
  const [head, ...terms] = command
  if (!head) throw new Reason('a value is missing')
  if (head.kind !== 'word') {
    if (terms.length > 0) throw new Reason('a value is called as a function')
    return termMeaning(head, scope, work)
  }
  if (head.word === 'index') return indexed(terms, scope, work)
  if (head.word === 'timestamp' && terms.length === 0) return { kind: 'value', at: '"now"', filters: ' | date' }
  const input = terms.at(-1)
  if (!input) throw new Reason(`${head.word}: ${FOREIGN[head.word] ?? 'has no translation'}`)
  return apply(
    [head, ...terms.slice(0, -1)],
    FOREIGN[head.word] === undefined ? termMeaning(input, scope, work) : NOTHING,
    work,
  )
}

function termMeaning(term: Term, scope: Scope, work: Work): Meaning {
  switch (term.kind) {
    case 'text':
      return { kind: 'value', at: quoted(term.text), filters: '' }
    case 'field': {
      const { variable, names } = term
      if (variable === '$') throw new Reason('$ is nothing outside of all blocks')
      const start = variable === undefined ? scope.dot : scope.variables.get(variable)
      if (!start) throw new Reason(`${variable} is not set here`)
      return names.reduce((meaning, name) => field(meaning, name, work), start)
    }
    case 'pipe':
      return term.names.reduce((meaning, name) => field(meaning, name, work), meaningOf(term.pipe, scope, work))
    case 'word':
      throw new Reason(`${term.word}: ${FOREIGN[term.word] ?? 'has no translation'}`)
    case 'number':
      throw new Reason('a number stands where certferry takes a field')
  }
}

function field(meaning: Meaning, name: string, { book }: Work): Meaning {
  if (meaning.kind === 'nothing') throw new Reason(`.${name} is of nothing here`)
  if (meaning.kind === 'secret') {
    if (name === 'Data') return { ...meaning, kind: 'data' }
    throw new Reason(`.${name} of a secret has no equivalent; certferry minds the lease itself`)
  }
  if (meaning.kind === 'data') {
    if (name !== 'data' && isPinned(meaning.path)) throw new Reason(PINNED)
    book.sees(meaning.path, name)
    // `data` is a map in KV version 2; were it a list of something else, the filter `keys` would refuse it.
    if (!book.isKv2(meaning.path))
      return { kind: 'value', at: step(meaning.name, name), filters: '', ...(name === 'data' && { isMap: true }) }
    return { kind: 'value', at: meaning.name, filters: '', isMap: true }
  }
  if (meaning.filters !== '') throw new Reason(`.${name} is asked of what a function gave`)
  return { kind: 'value', at: step(meaning.at, name), filters: '' }
}

const step = (path: string, name: string): string =>
  /^[A-Za-z_]\w*$/.test(name) ? `${path}.${name}` : `${path}[${quoted(name)}]`

/** A text of Liquid, on one line. Its escapes are those of JSON, as far as JSON writes them. */
const quoted = (text: string): string => JSON.stringify(text)

function indexed([subject, ...keys]: readonly Term[], scope: Scope, work: Work): Meaning {
  if (!subject) throw new Reason('index of nothing')
  return keys.reduce(
    (meaning, key) => {
      if (key.kind === 'text') return field(meaning, key.text, work)
      if (key.kind !== 'number' || !/^\d+$/.test(key.text))
        throw new Reason('index is translated with a text or a number')
      return { kind: 'value', at: `${at(meaning)}[${key.text}]`, filters: '' } as const
    },
    termMeaning(subject, scope, work),
  )
}

interface Function {
  /** What it becomes, given its arguments in the order of Go, without the last one, which is the input. */
  readonly filter: (args: readonly string[]) => string
  readonly takes: readonly ('text' | 'number')[]
  readonly remark?: string
}

const plainFilter = (name: string, remark?: string): Function => ({
  filter: () => name,
  takes: [],
  ...(remark !== undefined && { remark }),
})
const JSON_REMARK =
  'toJSON wrote <, > and & as \\u003c, \\u003e and \\u0026; json leaves them as they are, which reads the same.'

const FUNCTIONS: Readonly<Record<string, Function>> = {
  base64Encode: plainFilter('base64_encode'),
  base64Decode: plainFilter('base64_decode', 'base64_decode takes only what decodes to text.'),
  base64URLEncode: plainFilter('base64url_encode', 'base64url_encode leaves out the = at the end.'),
  toUpper: plainFilter('upper'),
  toLower: plainFilter('lower'),
  trimSpace: plainFilter('trim'),
  sha256Hex: plainFilter('sha256'),
  toJSON: plainFilter('json', JSON_REMARK),
  toUnescapedJSON: plainFilter('json'),
  toJSONPretty: plainFilter('json_pretty', JSON_REMARK),
  toUnescapedJSONPretty: plainFilter('json_pretty'),
  indent: { filter: ([width]) => `indent: ${width}`, takes: ['number'] },
  join: { filter: ([separator]) => `join: ${separator}`, takes: ['text'] },
  replaceAll: { filter: ([from, to]) => `replace: ${from}, ${to}`, takes: ['text', 'text'] },
  trimPrefix: { filter: ([prefix]) => `trim_prefix: ${prefix}`, takes: ['text'] },
  trimSuffix: { filter: ([suffix]) => `trim_suffix: ${suffix}`, takes: ['text'] },
}

const CONSUL = 'reads Consul, which certferry does not; keep consul-template for this file'
const NOMAD = 'reads Nomad, which certferry does not; keep consul-template for this file'

/** Functions that reach beyond the secret, and what to do instead. */
const FOREIGN: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [
      'key',
      'keyExists',
      'keyOrDefault',
      'ls',
      'safeLs',
      'tree',
      'safeTree',
      'service',
      'services',
      'node',
      'nodes',
      'datacenters',
      'partitions',
      'peerings',
      'exportedServices',
      'connect',
      'caRoots',
      'caLeaf',
    ].map((name) => [name, CONSUL]),
  ),
  ...Object.fromEntries(
    ['nomadService', 'nomadServices', 'nomadVar', 'nomadVarList', 'nomadVarListSafe', 'nomadVarExists'].map((name) => [
      name,
      NOMAD,
    ]),
  ),
  secrets: 'lists a path; certferry reads what is named, so name each value',
  pkiCert: 'is a certificate; see certificates, where key and chain are one set',
  file: 'reads a file; a template of certferry has no way to files',
  env: 'is translated where it is printed by itself',
  mustEnv: 'reads the environment; write ${NAME} into the template of the config',
  envOrDefault: 'reads the environment; write ${NAME:-default} into the template of the config',
  plugin: 'runs a program; a template of certferry has no way to programs',
  writeToFile: 'is translated for certificates; give each file an output of its own',
  executeTemplate: 'has no equivalent',
  scratch: 'has no equivalent',
  regexReplaceAll: 'certferry has no patterns, which could run for ever; see replace',
  regexMatch: 'certferry has no patterns, which could run for ever',
  toYAML: 'the forms of YAML differ; write json, which is YAML as well, or yaml',
  toTOML: 'has no equivalent for whole documents; see toml_string',
}

function apply(command: readonly Term[], input: Meaning, { remarks, book }: Work): Meaning {
  const [head, ...terms] = command
  if (head?.kind !== 'word') throw new Reason('what follows | is no function')
  const known = FUNCTIONS[head.word]
  if (!known) throw new Reason(`${head.word}: ${FOREIGN[head.word] ?? 'has no translation'}`)
  const { takes, filter, remark } = known
  const args = terms.map((term, index) => {
    if (
      term.kind !== takes[index] ||
      (term.kind === 'text' && term.text === '' && head.word === 'replaceAll' && index === 0)
    )
      throw new Reason(`${head.word} is translated with plain arguments only`)
    return term.kind === 'text' ? quoted(term.text) : term.kind === 'number' ? term.text : ''
  })
  if (args.length !== takes.length) throw new Reason(`${head.word} takes ${takes.length} arguments before its input`)
  if (input.kind === 'data' && isPinned(input.path)) throw new Reason(PINNED)
  const value =
    input.kind === 'data' && !book.isKv2(input.path) ? ({ kind: 'value', at: input.name, filters: '' } as const) : input
  if (value.kind !== 'value') throw new Reason(`${head.word} is given a whole secret`)
  if (remark !== undefined) remarks.add(remark)
  return { kind: 'value', at: value.at, filters: `${value.filters} | ${filter(args)}` }
}
