import { quote } from '../core/secret.ts'
import { describePath, isMap, type Json, lookUp, textOf, type Values } from '../core/values.ts'
import { SidecarError } from '../errors.ts'

/** What is written, name by name in order. */
export type Entries = ReadonlyMap<string, string>

/** Which field each name stands for, such as `{ DB_USER: 'db.username' }`. */
export type EntrySpec = Readonly<Record<string, string>>

/**
 * The entries of a list of names and values. With a spec: the fields it names. Without: every field, as `VALUE_FIELD` in upper case with `_`
 * for whatever a variable's name cannot hold, maps within maps step by step, lists as JSON. Throws FIELD_MISSING for a field that is absent, and
 * VALUE_UNWRITABLE where two fields come to the same name.
 */
export function entriesOf(values: Values, spec?: EntrySpec): Entries {
  if (spec) return new Map(Object.entries(spec).map(([name, path]) => [name, textOf(lookUp(values, path))]))
  const entries = new Map<string, string>()
  const paths = new Map<string, string>()
  for (const [steps, json] of leavesOf(values, [])) {
    const name = variableName(steps)
    const path = describePath(steps)
    const other = paths.get(name)
    if (other !== undefined)
      throw new SidecarError(
        'VALUE_UNWRITABLE',
        `${quote(other)} and ${quote(path)} would both be called ${name}; name them with entries, such as { A: ${quote(other)}, B: ${quote(path)} }`,
      )
    paths.set(name, path)
    entries.set(name, textOf(json))
  }
  return entries
}

/** The same for formats that know more than text: with a spec the fields it names, without it all as it is. */
export function documentOf(values: Values, spec?: EntrySpec): Json {
  return spec ? Object.fromEntries(Object.entries(spec).map(([name, path]) => [name, lookUp(values, path)])) : values
}

function* leavesOf(json: Json, steps: readonly string[]): Generator<[readonly string[], Json]> {
  if (!isMap(json) || (steps.length > 1 && Object.keys(json).length === 0)) yield [steps, json]
  else for (const [name, inner] of Object.entries(json)) yield* leavesOf(inner, [...steps, name])
}

function variableName(steps: readonly string[]): string {
  const name = steps
    .join('_')
    .replace(/[^A-Za-z0-9_]/g, '_')
    .toUpperCase()
  return /^\d/.test(name) ? `_${name}` : name
}
