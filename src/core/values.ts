import * as z from 'zod'
import { SidecarError } from '../errors.ts'
import { quote } from './secret.ts'

/** What JSON can hold. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

/** One value of a secret: what lies at one place, by field. */
export type Fields = Readonly<Record<string, Json>>

/** The values of a secret, by the name the config gives each. */
export type Values = Readonly<Record<string, Fields>>

export const Json: z.ZodType<Json> = z.json()
export const Fields: z.ZodType<Fields> = z.record(z.string(), Json)

/**
 * Text for one piece of JSON: text as it is, numbers and booleans as JSON prints them, nothing for null, JSON for lists and maps. JSON has
 * no whole numbers beyond 2^53: what must keep every digit has to be stored as text.
 */
export function textOf(json: Json): string {
  if (json === null) return ''
  return typeof json === 'object' ? JSON.stringify(json) : String(json)
}

/**
 * The steps of a path such as `db.password`, `api["tls.crt"]` or `db.hosts[0]`: a step with dots, blanks, quotes or brackets in it stands
 * in brackets and quotes (`\` before a quote or a `\`), the place in a list, from 0, in brackets alone. Throws a RangeError that says what to write.
 */
export function parseFieldPath(path: string): readonly string[] {
  const steps = [...path.matchAll(STEP)]
  const whole = steps.map(([text]) => text).join('')
  if (path === '' || path.startsWith('.') || whole !== path)
    throw new RangeError(
      `${JSON.stringify(path)} is no path to a field; write it as db.password, or with quotes as api["tls.crt"]`,
    )
  return steps.map(([, bare, quoted, index]) => bare ?? index ?? (quoted ?? '').slice(1, -1).replace(/\\(.)/gs, '$1'))
}

const STEP = /(?:^|\.)([^.[\]"'\s]+)|\[("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\]|\[(\d+)\]/gsy

/** Config: which field of which value. */
export const FieldPath = z
  .string()
  .meta({
    description: 'A field of a value, such as `db.password`; with quotes where its name has dots: `api["tls.crt"]`',
    examples: ['db.password'],
  })
  .superRefine((path, context) => {
    try {
      parseFieldPath(path)
    } catch (error) {
      context.addIssue({ code: 'custom', message: error instanceof Error ? error.message : String(error) })
    }
  })

/** What lies at a path, such as `db.password`. Throws FIELD_MISSING, which names the step that is absent and what there is in its place. */
export function lookUp(values: Values, path: string): Json {
  let found: Json = values
  let place = ''
  for (const step of stepsOf(path)) {
    const next: Json | undefined = fieldOf(found, step)
    if (next === undefined)
      throw new SidecarError('FIELD_MISSING', `there is no ${quote(path)}: ${describeAbsence(found, step, place)}`)
    found = next
    place = place === '' ? step : `${place}.${step}`
  }
  return found
}

function stepsOf(path: string): readonly string[] {
  try {
    return parseFieldPath(path)
  } catch (error) {
    throw new SidecarError('FIELD_MISSING', error instanceof Error ? error.message : String(error))
  }
}

/** What JSON holds under a name, or at a place in a list; undefined where there is nothing, whatever its prototype has. */
export function fieldOf(json: Json, step: string): Json | undefined {
  if (json === null || typeof json !== 'object') return undefined
  if (isList(json)) return /^\d+$/.test(step) ? json[Number(step)] : undefined
  return Object.hasOwn(json, step) ? json[step] : undefined
}

/** Why there is no `step` in `json`, in words fit for one line: the names that are there, never what they hold. */
export function describeAbsence(json: Json, step: string, place: string): string {
  const where = place === '' ? '' : `${quote(place)} `
  if (json === null || typeof json !== 'object') return `${where}is ${kindOf(json)}, which has no fields`
  if (isList(json)) return `${where}is a list of ${json.length}; write a place in it, such as [0]`
  const names = Object.keys(json)
  const dotted = names.find((name) => name.startsWith(`${step}.`))
  const there = names.length === 0 ? 'is empty' : `has ${listed(names)}`
  const inQuotes = dotted === undefined ? '' : `; a name with dots is written [${quote(JSON.stringify(dotted))}]`
  return place === ''
    ? `no value is called ${quote(JSON.stringify(step))}${names.length === 0 ? '' : `, only ${listed(names)}`}${inQuotes}`
    : `${where}has no ${quote(JSON.stringify(step))}, it ${there}${inQuotes}`
}

/** What JSON consists of, in words: never what it is. */
export function kindOf(json: Json): string {
  if (json === null) return 'null'
  if (typeof json === 'object') return isList(json) ? 'a list' : 'a map'
  if (typeof json === 'string') return 'text'
  return typeof json === 'number' ? 'a number' : 'true or false'
}

/** A path as {@link parseFieldPath} reads it. */
export const describePath = (steps: readonly string[]): string =>
  steps
    .map((step, place) =>
      /^[^.[\]"'\s]+$/.test(step) ? (place === 0 ? step : `.${step}`) : `["${step.replace(/["\\]/g, '\\$&')}"]`,
    )
    .join('')

export const isMap = (json: Json): json is Fields => json !== null && typeof json === 'object' && !isList(json)

export const isList = (json: Json): json is readonly Json[] => Array.isArray(json)

const MOST_LISTED = 20
const listed = (names: readonly string[]): string => {
  const more = names.length > MOST_LISTED ? ` and ${names.length - MOST_LISTED} more` : ''
  return (
    names
      .slice(0, MOST_LISTED)
      .map((name) => quote(name, 60))
      .join(', ') + more
  )
}
