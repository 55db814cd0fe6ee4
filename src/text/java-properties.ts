import type { Entries } from './entries.ts'

/**
 * A file that `java.util.Properties.load(InputStream)` reads, in ASCII, as its `store` writes it. Keys and values may be any text.
 * https://docs.oracle.com/en/java/javase/21/docs/api/java.base/java/util/Properties.html#load(java.io.Reader)
 */
export const toJavaProperties = (entries: Entries): string =>
  [...entries].map(([key, value]) => `${escaped(key).replaceAll(' ', '\\ ')}=${escapeProperty(value)}\n`).join('')

/** The value of a property. Blanks at its end stay, those at its start would be taken for the gap after the key. */
export const escapeProperty = (text: string): string => escaped(text).replace(/^ /, '\\ ')

/** Beyond printable ASCII a UTF-16 unit at a time; `load` reads bytes as ISO-8859-1, many tools as UTF-8. */
const escaped = (text: string): string =>
  text.replace(/[^\x20-\x7e]|[\\=:#!]/g, (unit) =>
    unit > '~' || unit < ' '
      ? (SHORT.get(unit) ?? `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      : `\\${unit}`,
  )

const SHORT = new Map([
  ['\n', '\\n'],
  ['\r', '\\r'],
  ['\t', '\\t'],
  ['\f', '\\f'],
])
