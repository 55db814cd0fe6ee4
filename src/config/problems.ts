import type * as z from 'zod'
import type { ConfigDocument, Path, Problem } from './file.ts'

/** A zod issue in words a person can act on, at its place in the file. `schema` is the JSON Schema of the whole config. */
export function explain(issue: z.core.$ZodIssue, document: ConfigDocument, schema: object): Problem[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) =>
      document.problem(issue.path, `unknown key${suggestion(key, knownKeys(issue.path, document.value, schema))}`, key),
    )
  }
  if (issue.code === 'invalid_type' && issue.message.includes('received undefined'))
    return [document.problem(issue.path, 'is required')]
  return [document.problem(issue.path, issue.message.replace(/^Invalid (?:input|option): /, ''))]
}

/** The keys that the schema knows at a path, told apart by `kind` where there is a choice. */
function knownKeys(path: Path, value: unknown, whole: object): string[] {
  let schema: unknown = whole
  let here = value
  for (const part of path) {
    const parent = choose(schema, here)
    schema =
      typeof part === 'number'
        ? parent?.items
        : isRecord(parent?.properties)
          ? parent.properties[String(part)]
          : undefined
    here = isRecord(here) ? here[String(part)] : Array.isArray(here) ? here[Number(part)] : undefined
  }
  const properties = choose(schema, here)?.properties
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
  const found = choices.find((choice) => isRecord(value) && kindOf(choice) === value.kind)
  return isRecord(found) ? found : undefined
}

function suggestion(key: string, known: readonly string[]): string {
  const near = known
    .map((candidate) => ({ candidate, distance: editDistance(key.toLowerCase(), candidate.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)[0]
  if (near && near.distance <= Math.max(1, Math.floor(near.candidate.length / 3)))
    return `; did you mean "${near.candidate}"?`
  return known.length > 0 ? `; known here: ${known.join(', ')}` : ''
}

/** Levenshtein distance. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (const [i, char] of [...a].entries()) {
    const next = [i + 1]
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min((row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, (row[j] ?? 0) + (char === b[j] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length] ?? 0
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
