/**
 * Reads an EnvironmentFile as systemd.exec(5) says: quotes as a POSIX shell has them, backslashes escape `"`, `\`, `` ` `` and `$` between double
 * quotes and anything outside of quotes, a `\` at the end of a line joins lines; pieces after unquoted text are taken as they are.
 */
export function readEnvironmentFile(text: string): Map<string, string> {
  const found = new Map<string, string>()
  for (let at = 0; at < text.length; ) {
    const equals = text.indexOf('=', at)
    if (equals < 0) throw new Error(`no = after ${JSON.stringify(text.slice(at))}`)
    const name = text.slice(at, equals)
    const { value, end } = readValue(text, equals + 1)
    found.set(name, value)
    at = end
  }
  return found
}

function readValue(text: string, start: number): { value: string; end: number } {
  let value = ''
  let kept = 0
  let isUnquoted = false
  for (let at = start; ; at++) {
    const char = text[at]
    if (char === undefined || char === '\n')
      return { value: value.slice(0, Math.max(kept, value.trimEnd().length)), end: at + 1 }
    if (char === '\\') {
      at++
      if (text[at] !== '\n') value += text[at] ?? ''
      isUnquoted = true
      kept = value.length
    } else if (!isUnquoted && (char === "'" || char === '"')) {
      const end = closing(text, at)
      const inside = text.slice(at + 1, end)
      value +=
        char === "'" ? inside : inside.replace(/\\(["\\`$\n])/g, (_, escaped) => (escaped === '\n' ? '' : escaped))
      kept = value.length
      at = end
    } else if (isUnquoted || !/[ \t\r]/.test(char)) {
      isUnquoted = true
      value += char
    }
  }
}

function closing(text: string, open: number): number {
  const quote = text[open]
  for (let at = open + 1; at < text.length; at++) {
    if (text[at] === quote) return at
    if (quote === '"' && text[at] === '\\') at++
  }
  throw new Error('a quote is not closed')
}
