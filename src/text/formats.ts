import { quote } from '../core/secret.ts'
import { describePath, isList, isMap, type Json } from '../core/values.ts'
import { SidecarError } from '../errors.ts'

/** A JSON document that people can read, with a line break at its end. */
export const toJson = (json: Json): string => `${JSON.stringify(json, null, 2)}\n`

/**
 * A YAML document with a line break at its end, in the part of the language that readers of YAML 1.1 and 1.2 understand alike: text always in
 * double quotes (`no`, `0755` and `1:30` are text to some, and something else to others), without anchors, tags and folded lines, for which
 * the stringifiers at hand have no such guarantee. Throws VALUE_UNWRITABLE for what is no Unicode text.
 */
export function toYaml(json: Json): string {
  return `${isEmpty(json) || !isNested(json) ? inline(json, []) : block(json, '', []).join('\n')}\n`
}

const isNested = (json: Json) => isList(json) || isMap(json)
const isEmpty = (json: Json) => isNested(json) && Object.keys(Object(json)).length === 0

function block(json: Json, indent: string, steps: readonly string[]): string[] {
  const items: readonly (readonly [string, string, Json])[] = isList(json)
    ? json.map((item, place) => ['-', String(place), item])
    : Object.entries(isMap(json) ? json : {}).map(([name, inner]) => [keyOf(name, steps), name, inner])
  return items.flatMap(([mark, step, inner]) =>
    isNested(inner) && !isEmpty(inner)
      ? [`${indent}${mark}`, ...block(inner, `${indent}  `, [...steps, step])]
      : `${indent}${mark} ${inline(inner, [...steps, step])}`,
  )
}

/** A long key has to be announced (YAML 1.2 §7.4.2). */
function keyOf(name: string, steps: readonly string[]): string {
  const isPlain = /^[A-Za-z_][A-Za-z0-9_.-]*$/.test(name) && !/^(?:y|n|yes|no|on|off|true|false|null)$/i.test(name)
  const key = isPlain ? name : quoted(name, steps)
  return key.length > 1000 ? `? ${key}\n${' '.repeat(2 * steps.length)}:` : `${key}:`
}

function inline(json: Json, steps: readonly string[]): string {
  if (typeof json === 'string') return quoted(json, steps)
  // YAML 1.1 takes a number with an exponent for text unless it has a point.
  return typeof json === 'number' ? String(json).replace(/^(-?\d+)e/, '$1.0e') : JSON.stringify(json)
}

/** JSON's escapes are YAML's too; beyond them YAML wants those escaped that do not print, and 1.1 takes some for line breaks. */
function quoted(text: string, steps: readonly string[]): string {
  if (!text.isWellFormed())
    throw new SidecarError(
      'VALUE_UNWRITABLE',
      `${quote(describePath(steps)) || 'the value'} is not Unicode text (half a surrogate pair), and YAML has no way to write it`,
    )
  return JSON.stringify(text).replace(
    /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
