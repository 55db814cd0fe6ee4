/**
 * Reads what `java.util.Properties.load(InputStream)` reads, as its documentation says: natural lines joined where one ends in an odd number of
 * `\`, comments, keys up to the first `=`, `:` or blank that is not escaped, and `\uXXXX`.
 */
export function readProperties(file: Buffer): Map<string, string> {
  const found = new Map<string, string>()
  for (const line of logicalLines(file.toString('latin1'))) {
    const [, key = '', value = ''] = /^((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)$/s.exec(line) ?? []
    found.set(unescaped(key), unescaped(value))
  }
  return found
}

function logicalLines(text: string): string[] {
  const lines: string[] = []
  let open: string | undefined
  for (const natural of text.split(/\r\n|\r|\n/)) {
    const line = natural.replace(/^[ \t\f]+/, '')
    if (open === undefined && (line === '' || /^[#!]/.test(line))) continue
    const whole = (open ?? '') + line
    const isOpen = (/\\*$/.exec(line)?.[0].length ?? 0) % 2 === 1
    open = isOpen ? whole.slice(0, -1) : undefined
    if (!isOpen) lines.push(whole)
  }
  return open === undefined ? lines : [...lines, open]
}

const ESCAPES = new Map([
  ['t', '\t'],
  ['n', '\n'],
  ['r', '\r'],
  ['f', '\f'],
])
const unescaped = (text: string) =>
  text.replace(/\\(?:u([0-9a-fA-F]{4})|(.))/gs, (_, hex: string | undefined, char: string) =>
    hex === undefined ? (ESCAPES.get(char) ?? char) : String.fromCharCode(Number.parseInt(hex, 16)),
  )
