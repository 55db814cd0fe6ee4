import { statSync } from 'node:fs'
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument, visit, type YAMLError } from 'yaml'
import { quote, redact } from '../core/secret.ts'
import { formatMode } from '../core/units.ts'
import { type ErrorCode, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import type { Env } from './environment.ts'
import { interpolate, type Referred } from './interpolate.ts'
import { ConfigError, type Path, type Problem } from './problems.ts'

/** A parsed config file: plain values, and where each stands. */
export interface ConfigDocument {
  readonly value: unknown
  /** What is wrong with it whatever the schema says: keys that stand twice, references that lead nowhere. */
  readonly problems: readonly Problem[]
  /** Variables of the environment that stand in it, and where. */
  readonly variables: readonly Referred[]
  /** The place of a value, or of the nearest ancestor that is there. With `key`, of that key in the map at `path`. */
  problem(path: Path, message: string, key?: string): Problem
}

/** The most that is read: 220 bytes a certificate are usual, and some will have 10,000. */
export const SIZE_LIMIT = 8 * 1024 * 1024
/** Deeper than any config; the parser and all that follows it are recursive. */
const DEPTH_LIMIT = 64

/** Reads YAML 1.2 or JSON, and interpolates it. Throws a ConfigError: CONFIG_UNREADABLE, CONFIG_UNSAFE (writable by others), CONFIG_INVALID. */
export function readConfigFile(file: string, env: Env): ConfigDocument {
  const text = readSafely(file)
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true })
  const at = (offset: number | undefined) => {
    if (offset === undefined) return file
    const { line, col } = lines.linePos(offset)
    return `${file}:${line}:${col}`
  }
  const fail = (problems: readonly Problem[]): never => {
    throw new ConfigError(file, problems)
  }
  const plain = ({ offset, message }: Located): Problem => ({
    place: at(offset),
    path: '',
    message: quote(message, MESSAGE_LIMIT),
  })

  const { twice, broken } = readErrors(document, text, (offset) => lines.linePos(offset).line)
  if (broken.length > 0) fail(broken.map(plain))
  if (isTooDeep(document)) fail([{ place: file, path: '', message: `is nested more than ${DEPTH_LIMIT} levels deep` }])
  if (document.contents === null) fail([{ place: file, path: '', message: 'is empty' }])
  const originals = text.includes('${') ? document.clone() : document
  const { unresolved, variables } = interpolate(document, env)

  return {
    value: toPlain(document, fail, file),
    variables,
    problems: [
      ...twice.map(plain),
      ...unresolved.map(({ path, node, message }) => ({
        place: at(node.range?.[0]),
        path: formatPath(path),
        message: quote(message, MESSAGE_LIMIT),
      })),
    ],
    problem: (path, message, key) => ({
      place: at(offsetOf(document, path, key)),
      path: formatPath(key === undefined ? path : [...path, key]),
      message: unsaid(message, path, document, originals),
      value: key === undefined ? foundAt(originals, path) : undefined,
    }),
  }
}

function readSafely(file: string): string {
  const fail = (code: ErrorCode, message: string): never => {
    throw new ConfigError(file, [{ place: file, path: '', message }], code)
  }
  try {
    const found = statSync(file)
    if (found.isDirectory()) fail('CONFIG_UNREADABLE', 'is a directory')
    const { mode, size } = found
    if (size > SIZE_LIMIT) fail('CONFIG_INVALID', `is ${size} bytes; at most ${SIZE_LIMIT} are read`)
    if (mode & 0o022)
      fail('CONFIG_UNSAFE', `can be changed by others (mode ${formatMode(mode & 0o777)}); chmod go-w ${file}`)
    return readPlainFile(file, SIZE_LIMIT).toString('utf8')
  } catch (error) {
    if (error instanceof ConfigError) throw error
    const why =
      { ENOENT: 'no such file', EACCES: 'permission denied', EISDIR: 'is a directory' }[systemCode(error) ?? ''] ??
      String(systemCode(error))
    return fail('CONFIG_UNREADABLE', why)
  }
}

interface Located {
  readonly offset: number
  readonly message: string
}

/** What the parser found: keys that stand twice leave a usable document, anything else does not. One error per line, since one brings the next. */
function readErrors(document: Document.Parsed, text: string, lineOf: (offset: number) => number) {
  const all = [...document.errors, ...document.warnings].map((error) => ({
    code: error.code,
    offset: error.pos[0],
    message: inPlainWords(error, text),
  }))
  const broken = all.filter(({ code }) => code !== 'DUPLICATE_KEY')
  const isNews = ({ code, offset }: (typeof all)[number], index: number) =>
    index === 0 ||
    (code !== 'UNEXPECTED_TOKEN' && broken.slice(0, index).every((other) => lineOf(other.offset) !== lineOf(offset)))
  return { twice: all.filter(({ code }) => code === 'DUPLICATE_KEY'), broken: broken.filter(isNews) }
}

function inPlainWords({ code, pos: [offset], message }: YAMLError, text: string): string {
  if (text.slice(offset - 1, offset + 1) === '${')
    return "write '${…}' in quotes: inside { } and [ ], YAML takes its brace for the start of a map"
  switch (code) {
    case 'DUPLICATE_KEY':
      return 'this key stands here a second time'
    case 'MULTIPLE_DOCS':
      return 'a second YAML document begins here; only one is read'
    case 'NON_STRING_KEY':
      return 'a key must be text'
    case 'IMPOSSIBLE':
    case 'RESOURCE_EXHAUSTION':
      return 'is nested too deeply'
    default:
      // What it quotes may be a secret.
      return `not valid YAML: ${message.replace(/: ".*"$/s, '').replace(/^Maximum call stack.*/s, 'nested too deeply')}`
  }
}

function isTooDeep(document: Document.Parsed): boolean {
  let found = false
  visit(document, {
    Collection(_key, _node, ancestors) {
      if (ancestors.length <= DEPTH_LIMIT) return undefined
      found = true
      return visit.BREAK
    },
  })
  return found
}

/** Aliases are resolved here; too many of them (a bomb) are refused by the parser. */
function toPlain(document: Document.Parsed, fail: (problems: Problem[]) => never, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 })
  } catch (error) {
    return fail([{ place: file, path: '', message: error instanceof Error ? error.message : String(error) }])
  }
}

function offsetOf(document: Document.Parsed, path: Path, key: string | undefined): number | undefined {
  for (let length = path.length; length >= 0; length--) {
    const node = length === 0 ? document.contents : document.getIn(path.slice(0, length), true)
    if (!isNode(node)) continue
    const pair =
      key !== undefined && length === path.length && isMap(node)
        ? node.items.find((item) => isScalar(item.key) && item.key.value === key)
        : undefined
    return isNode(pair?.key) ? pair.key.range?.[0] : node.range?.[0]
  }
  return undefined
}

const MESSAGE_LIMIT = 500

/** A message without what the environment or a file put in place of a reference: it may be a secret in the wrong field. */
function unsaid(message: string, path: Path, document: Document, originals: Document): string {
  const [value, original] = [document.getIn(path), originals.getIn(path)]
  if (typeof value !== 'string' || value === original) return quote(message, MESSAGE_LIMIT)
  const quoted = [`"${value}"`, JSON.stringify(value)].reduce(
    (text, form) => text.replaceAll(form, () => `"${original}"`),
    message,
  )
  // A text this short is no secret, and may be part of any word.
  return quote(value.length < 4 ? quoted : quoted.replaceAll(value, () => String(original)), MESSAGE_LIMIT)
}

const SECRET_KEY = /token|secret|password|passphrase|authorization|^headers$|^env$/i
/** A key that ends this way names a file or says how; it holds no secret. */
const HARMLESS_KEY = /file$|wrapped$/i

/** The scalar as it stands in the file (so `${NAME}` rather than its value); what a secret's key holds is not shown. */
function foundAt(document: Document, path: Path): string | undefined {
  const node = document.getIn(path, true)
  if (!isScalar(node) || node.value === null) return undefined
  const text = String(node.value)
  const isSecret = path.some((part) => typeof part === 'string' && SECRET_KEY.test(part) && !HARMLESS_KEY.test(part))
  if (isSecret && !/^\$\{[^}]*\}$/.test(text)) return '[secret]'
  if (typeof node.value !== 'string') return text
  const safe = redact(text).replace(/\/\/[^/@\s]+@/, '//[secret]@')
  return quote(JSON.stringify(safe.length > 80 ? `${safe.slice(0, 80)}…` : safe))
}

const formatPath = (path: Path): string =>
  path
    .map((part) => (typeof part === 'string' ? quote(part) : part))
    .map((part, index) => (typeof part === 'number' ? `[${part}]` : `${index === 0 ? '' : '.'}${String(part)}`))
    .join('')
