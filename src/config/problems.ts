import type * as z from 'zod'
import { suggestion } from '../core/near.ts'
import { type ErrorCode, SidecarError } from '../errors.ts'

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

export type Path = readonly PropertyKey[]

/** All that is wrong with a config, at once. */
export class ConfigError extends SidecarError {
  readonly problems: readonly Problem[]

  constructor(file: string, problems: readonly Problem[], code: ErrorCode = 'CONFIG_INVALID') {
    const width = Math.max(...problems.map(({ place }) => place.length))
    const count = problems.length === 1 ? '1 problem' : `${problems.length} problems`
    super(code, `${file}: ${count}\n${problems.map((problem) => formatProblem(problem, width)).join('\n')}`)
    this.problems = problems
  }
}

function formatProblem({ place, path, message, value }: Problem, width: number): string {
  const found = value === undefined || message.includes(value) ? '' : ` (found ${value})`
  return `  ${place.padEnd(width)}  ${path}${path ? ': ' : ''}${message}${found}`
}

const positionOf = ({ place }: Problem) => /:(\d+):(\d+)$/.exec(place)?.slice(1).map(Number) ?? [0, 0]

export const inFileOrder = (problems: readonly Problem[]): Problem[] =>
  problems.toSorted((a, b) => {
    const [[lineA = 0, columnA = 0], [lineB = 0, columnB = 0]] = [positionOf(a), positionOf(b)]
    return lineA - lineB || columnA - columnB
  })

/** Zod's own messages in words for people; messages that a schema gives win over these. */
export const inWords: z.core.$ZodErrorMap = (issue) => {
  switch (issue.code) {
    case 'invalid_type': {
      const wanted = `must be ${THINGS[issue.expected] ?? issue.expected}`
      if (issue.input === null) return `${wanted}, but is empty`
      return issue.expected === 'int' ? wanted : `${wanted}, not ${thingOf(issue.input)}`
    }
    case 'invalid_key':
      return `unfit key: ${issue.issues[0]?.message ?? 'see the documentation'}`
    case 'invalid_value': {
      const wanted = issue.values.map(String)
      const wrong = typeof issue.input === 'string' ? suggestion(issue.input, wanted) : ''
      return `must be ${wanted.length > 1 ? `one of ${wanted.join(', ')}` : wanted[0]}${wrong}`
    }
    case 'too_big':
      return `must ${HAVE[issue.origin] ?? 'be'} at most ${issue.maximum}${UNITS[issue.origin] ?? ''}`
    case 'too_small':
      return `must ${HAVE[issue.origin] ?? 'be'} at least ${issue.minimum}${UNITS[issue.origin] ?? ''}`
    default:
      return undefined
  }
}

const THINGS: Readonly<Record<string, string>> = {
  object: 'a map of keys and values',
  record: 'a map of keys and values',
  array: 'a list',
  tuple: 'a list',
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
}
const HAVE: Readonly<Record<string, string>> = { string: 'have', array: 'have' }
const UNITS: Readonly<Record<string, string>> = { string: ' characters', array: ' entries' }

function thingOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'boolean') return String(value)
  if (Number.isNaN(value)) return 'NaN'
  return THINGS[typeof value] ?? typeof value
}

interface Context {
  /** The config that was checked. */
  readonly value: unknown
  /** JSON Schema of the whole config. */
  readonly schema: () => object
  readonly document: { problem(path: Path, message: string, key?: string): Problem }
}

/** A zod issue as problems, each at its place in the file. */
export function explain(issue: z.core.$ZodIssue, { value, schema, document }: Context): Problem[] {
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(issue.path, value, schema())
    const all = known.length > 0 ? `; known here: ${known.join(', ')}` : ''
    return issue.keys.map((key) => document.problem(issue.path, `unknown key${suggestion(key, known) || all}`, key))
  }
  const isMissing = issue.code === 'invalid_type' && valueAt(value, issue.path) === undefined
  return [document.problem(issue.path, isMissing ? 'is required' : issue.message)]
}

export const valueAt = (value: unknown, path: Path): unknown =>
  path.reduce(
    (here, part) => (isRecord(here) ? here[String(part)] : Array.isArray(here) ? here[Number(part)] : undefined),
    value,
  )

/** The keys that the schema knows at a path, told apart by `kind` where there is a choice. */
function knownKeys(path: Path, value: unknown, whole: object): string[] {
  const schema = path.reduce((here: unknown, part, depth) => {
    const parent = choose(here, valueAt(value, path.slice(0, depth)))
    if (typeof part === 'number') return parent?.items
    return isRecord(parent?.properties) ? parent.properties[String(part)] : undefined
  }, whole)
  const properties = choose(schema, valueAt(value, path))?.properties
  return isRecord(properties) ? Object.keys(properties) : []
}

function choose(schema: unknown, value: unknown): Record<string, unknown> | undefined {
  if (!isRecord(schema)) return undefined
  const choices = schema.oneOf ?? schema.anyOf
  if (!Array.isArray(choices)) return schema
  const kindOf = (choice: unknown) =>
    isRecord(choice) && isRecord(choice.properties) && isRecord(choice.properties.kind)
      ? choice.properties.kind.const
      : undefined
  return choices
    .map((choice) => choose(choice, value))
    .find((choice) =>
      Array.isArray(value) ? choice?.type === 'array' : isRecord(value) && kindOf(choice) === value.kind,
    )
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
