import { LineCounter, parseDocument } from 'yaml'
import { quote } from '../core/secret.ts'

/** YAML of an annotation; what is wrong with it as text. */
export function parseYaml(source: string): { readonly value: unknown } | string {
  const lines = new LineCounter()
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false, stringKeys: true })
  const [error] = [...document.errors, ...document.warnings]
  if (error) {
    const { line, col } = lines.linePos(error.pos[0])
    return `is not valid YAML (line ${line}, column ${col}): ${quote(error.message, 120)}`
  }
  if (document.contents === null) return 'is empty'
  try {
    return { value: document.toJS({ maxAliasCount: 20 }) }
  } catch (thrown) {
    return `cannot be read: ${thrown instanceof Error ? quote(thrown.message, 120) : 'too many aliases'}`
  }
}
