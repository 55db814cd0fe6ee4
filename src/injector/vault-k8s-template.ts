/** What a template of Vault Agent asks for: a path of Vault, and parameters as they go into its query. */
export interface TemplateCall {
  readonly path: string
  readonly query: string
}

/** `{{ with secret "pki/issue/web" "common_name=web.example.com" }}`, or `pkiCert` in place of `secret`, around the whole template. */
const WITH =
  /^\s*\{\{-?\s*with\s+(?:\$\w+\s*:=\s*)?(?:secret|pkiCert)\s+(?<words>(?:"[^"{}]*"\s*)+)-?\}\}(?<body>[\s\S]*)\{\{-?\s*end\s*-?\}\}\s*$/
/** The actions that print a part of a certificate as it is, with what they print. */
const PRINTS: readonly (readonly [RegExp, Part])[] = [
  [/\{\{-?\s*(?:\.Data\.private_key|\.Key)\s*-?\}\}/g, 'key'],
  [/\{\{-?\s*(?:\.Data\.certificate|\.Cert)\s*-?\}\}/g, 'certificate'],
  [/\{\{-?\s*(?:\.Data\.issuing_ca|\.CA)\s*-?\}\}/g, 'ca'],
  [/\{\{-?\s*range\s+\.Data\.ca_chain\s*-?\}\}\s*\{\{-?\s*\.\s*-?\}\}\s*\{\{-?\s*end\s*-?\}\}/g, 'ca'],
]
type Part = 'key' | 'certificate' | 'ca'

/**
 * Reads a template that prints key and certificate, with or without CA, into one file, and does nothing else. Text says why it is another one:
 * what cannot be kept to the letter is not to be guessed.
 */
export function readTemplate(template: string): TemplateCall | string {
  const { words, body } = WITH.exec(template)?.groups ?? {}
  if (words === undefined || body === undefined)
    return 'is not one {{ with secret "pki/issue/web" "common_name=…" }} … {{ end }}'
  const [path = '', ...parameters] = [...words.matchAll(/"([^"]*)"/g)].map(([, word]) => word ?? '')
  const wrong = parameters.find((parameter) => !parameter.includes('='))
  if (wrong !== undefined) return `has the parameter "${wrong}", which is no name=value`
  const { rest, printed } = take(body)
  if (rest.trim() !== '') return `does more than print parts of a certificate: ${rest.trim().slice(0, 80)}`
  if (!printed.has('key') || !printed.has('certificate'))
    return 'does not print both key and certificate: certferry keeps them in one set'
  return { path, query: String(new URLSearchParams(parameters.map(splitAtEquals))) }
}

function take(body: string): { rest: string; printed: ReadonlySet<Part> } {
  const found = PRINTS.filter(([pattern]) => body.search(pattern) >= 0)
  const rest = found.reduce((text, [pattern]) => text.replace(pattern, ''), body)
  return { rest, printed: new Set(found.map(([, part]) => part)) }
}

function splitAtEquals(parameter: string): [string, string] {
  const at = parameter.indexOf('=')
  return [parameter.slice(0, at), parameter.slice(at + 1)]
}

const SIGNALS: Readonly<Record<string, string>> = {
  1: 'HUP',
  2: 'INT',
  3: 'QUIT',
  10: 'USR1',
  12: 'USR2',
  15: 'TERM',
  28: 'WINCH',
}
const KNOWN: readonly string[] = Object.values(SIGNALS)

/** `pkill -HUP nginx`, `killall -s HUP nginx`, `kill -1 $(pidof nginx)`, also by `sh -c`, as `SIGHUP:nginx`; undefined for any other command. */
export function readSignal(command: string): string | undefined {
  const bare = command
    .trim()
    .replace(/^(?:\/bin\/)?sh\s+-c\s+(["'])(.*)\1$/s, '$2')
    .trim()
  const { signal = '', process } = (BY_NAME.exec(bare) ?? BY_PID.exec(bare))?.groups ?? {}
  const name = SIGNALS[signal] ?? signal
  return process !== undefined && KNOWN.includes(name) ? `SIG${name}:${process}` : undefined
}

const BY_NAME = /^(?:pkill|killall)\s+(?:-s\s+|-)(?:SIG)?(?<signal>[A-Z0-9]+)\s+(?:-x\s+)?(?<process>[\w.-]+)$/
const BY_PID =
  /^kill\s+(?:-s\s+|-)(?:SIG)?(?<signal>[A-Z0-9]+)\s+\$\((?:pidof|pgrep)\s+(?:-[a-z]+\s+)*(?<process>[\w.-]+)\)$/
