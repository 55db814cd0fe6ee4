import { readFileSync, statSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument, visit } from 'yaml'
import { type ErrorCode, SidecarError, systemCode } from '../errors.ts'

/** One thing wrong with a config, and where. */
export interface Problem {
  /** `certferry.yaml:12:7`, or the file alone. */
  readonly place: string
  /** `certificates[0].source.ttl`; empty for the whole file. */
  readonly path: string
  readonly message: string
  /** What stands in the file; never the value of a secret. */
  readonly value?: string | undefined
}

/** All that is wrong with a config, at once. */
export class ConfigError extends SidecarError {
  readonly problems: readonly Problem[]

  constructor(file: string, problems: readonly Problem[], code: ErrorCode = 'CONFIG_INVALID') {
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`
    super(code, `${file}: ${count}\n${problems.map(formatProblem).join('\n')}`)
    this.problems = problems
  }
}

export const formatProblem = ({ place, path, message, value }: Problem): string =>
  `  ${place}  ${path}${path ? ': ' : ''}${message}${value === undefined ? '' : ` (found ${value})`}`

export type Path = readonly PropertyKey[]

/** A parsed config file: plain values, and where each stands. */
export interface ConfigDocument {
  readonly file: string
  readonly value: unknown
  /** The place of a value, or of the nearest ancestor that is there. With `key`, of that key in the map at `path`. */
  problem(path: Path, message: string, key?: string): Problem
}

const SIZE_LIMIT = 1024 * 1024

/**
 * Reads YAML 1.2 or JSON. `${NAME}`, `${NAME:-default}` and `${file:/path}` are replaced in parsed scalars, never in raw text;
 * `$${` stands for a plain `${`. Throws a ConfigError: CONFIG_UNREADABLE, CONFIG_UNSAFE (writable by others), CONFIG_INVALID.
 */
export function readConfigFile(file: string, env: Readonly<Record<string, string | undefined>>): ConfigDocument {
  const text = readSafely(file)
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, stringKeys: true })
  const at = (offset: number | undefined) => {
    if (offset === undefined) return file
    const { line, col } = lines.linePos(offset)
    return `${file}:${line}:${col}`
  }
  if (document.errors.length > 0) {
    throw new ConfigError(
      file,
      document.errors.map((error) => ({ place: at(error.pos[0]), path: '', message: error.message })),
    )
  }
  const problems = interpolate(document, env).map(({ offset, message }) => ({ place: at(offset), path: '', message }))
  if (problems.length > 0) throw new ConfigError(file, problems)
  const originals = parseDocument(text, { prettyErrors: false, stringKeys: true })
  return {
    file,
    value: toPlain(document, file),
    problem: (path, message, key) => ({
      place: at(offsetOf(document, path, key)),
      path: formatPath(key === undefined ? path : [...path, key]),
      message,
      value: foundAt(originals, path, key),
    }),
  }
}

function readSafely(file: string): string {
  const fail = (code: ErrorCode, message: string): never => {
    throw new ConfigError(file, [{ place: file, path: '', message }], code)
  }
  try {
    const { mode, size } = statSync(file)
    if (size > SIZE_LIMIT) fail('CONFIG_INVALID', `is ${size} bytes; at most ${SIZE_LIMIT} are read`)
    if (mode & 0o022)
      fail(
        'CONFIG_UNSAFE',
        `can be changed by others (mode ${(mode & 0o777).toString(8).padStart(4, '0')}); chmod go-w ${file}`,
      )
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (error instanceof ConfigError) throw error
    const why =
      { ENOENT: 'no such file', EACCES: 'permission denied', EISDIR: 'is a directory' }[systemCode(error) ?? ''] ??
      String(systemCode(error))
    return fail('CONFIG_UNREADABLE', why)
  }
}

/** Replaces references in every string scalar that is a value; returns what could not be replaced. */
function interpolate(
  document: Document.Parsed,
  env: Readonly<Record<string, string | undefined>>,
): { offset: number | undefined; message: string }[] {
  const problems: { offset: number | undefined; message: string }[] = []
  visit(document, {
    Scalar(key, node) {
      if (key === 'key' || typeof node.value !== 'string' || !node.value.includes('${')) return
      node.value = node.value.replace(/\$\$\{|\$\{([^}]*)\}/g, (whole, reference: string | undefined) => {
        if (reference === undefined) return '${'
        const { text, problem } = lookUp(reference, env)
        if (problem) problems.push({ offset: node.range?.[0], message: `${whole}: ${problem}` })
        return text
      })
    },
  })
  return problems
}

function lookUp(
  reference: string,
  env: Readonly<Record<string, string | undefined>>,
): { text: string; problem?: string } {
  if (reference.startsWith('file:')) return readReferenced(reference.slice('file:'.length))
  const [, name, fallback] = /^([A-Za-z_]\w*)(?::-(.*))?$/s.exec(reference) ?? []
  if (name === undefined) return { text: '', problem: 'write ${NAME}, ${NAME:-default} or ${file:/path}' }
  const text = env[name] || fallback
  return text === undefined ? { text: '', problem: `the environment variable ${name} is not set` } : { text }
}

function readReferenced(path: string): { text: string; problem?: string } {
  if (!isAbsolute(path)) return { text: '', problem: 'the path must be absolute' }
  try {
    if (statSync(path).size > SIZE_LIMIT) return { text: '', problem: `the file is larger than ${SIZE_LIMIT} bytes` }
    return { text: readFileSync(path, 'utf8').trimEnd() }
  } catch (error) {
    return { text: '', problem: `the file cannot be read (${systemCode(error) ?? 'unknown error'})` }
  }
}

/** Aliases are resolved here; too many of them (a bomb) are refused by the parser. */
function toPlain(document: Document.Parsed, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 })
  } catch (error) {
    throw new ConfigError(file, [
      { place: file, path: '', message: error instanceof Error ? error.message : String(error) },
    ])
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

const SECRET_KEY = /token|secret|password|passphrase|authorization/i
/** A key that ends this way names a file or says how; it holds no secret. */
const HARMLESS_KEY = /file$|wrapped$/i

/** The scalar as it stands in the file (so `${NAME}` rather than its value); what a secret's key holds is not shown. */
function foundAt(document: Document.Parsed, path: Path, key: string | undefined): string | undefined {
  const whole = key === undefined ? path : [...path, key]
  const node = document.getIn(whole, true)
  if (!isScalar(node) || node.value === null) return undefined
  const text = String(node.value)
  const isSecret = whole.some((part) => typeof part === 'string' && SECRET_KEY.test(part) && !HARMLESS_KEY.test(part))
  if (isSecret && !/^\$\{[^}]*\}$/.test(text)) return '[secret]'
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : node.value)
}

export const formatPath = (path: Path): string =>
  path
    .map((part, index) => (typeof part === 'number' ? `[${part}]` : `${index === 0 ? '' : '.'}${String(part)}`))
    .join('')
