import { quote } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'

/** What a part of a variable stands for. Paths are those of Vault's API, without `/v1/`; of KV v2 they hold `data/`. */
export type Reference =
  /** `vault:PATH#FIELD` or `vault:PATH#FIELD#VERSION`: read from Vault. */
  | { readonly kind: 'read'; readonly path: string; readonly field: string; readonly version?: number }
  /** `>>vault:PATH#FIELD` or `>>vault:PATH#FIELD#JSON`: a field of the answer to a write of that data. */
  | {
      readonly kind: 'write'
      readonly path: string
      readonly field: string
      readonly data: Readonly<Record<string, unknown>>
    }
  /** `vault:v1:…`: a ciphertext of the transit engine. */
  | { readonly kind: 'decrypt'; readonly ciphertext: string }

/** A value as texts and references that follow one another. */
export type Parts = readonly (string | Reference)[]

type Variables = Readonly<Record<string, string | undefined>>

/**
 * The variables that refer to Vault, in the forms of bank-vaults: a reference as the whole value, or any number of them within, each as
 * `${vault:…}`. Throws CONFIG_INVALID that names every variable whose reference is malformed, and how it is written.
 */
export function referencesIn(env: Variables): ReadonlyMap<string, Parts> {
  const found = new Map<string, Parts>()
  const troubles: string[] = []
  for (const [name, value = ''] of Object.entries(env)) {
    try {
      if (name === 'VAULT_TOKEN' && value === 'vault:login') throw new RangeError(NO_LOGIN)
      const parts = partsOf(value)
      if (parts.some((part) => typeof part !== 'string')) found.set(name, parts)
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      troubles.push(`environment variable ${quote(name, 80)}: ${error.message}`)
    }
  }
  if (troubles.length > 0) throw new SidecarError('CONFIG_INVALID', troubles.join('; '))
  return found
}

/** The value with what its references stand for. */
export const fillIn = (parts: Parts, lookUp: (reference: Reference) => string): string =>
  parts.map((part) => (typeof part === 'string' ? part : lookUp(part))).join('')

const NO_LOGIN =
  'vault:login asks for the token of certferry, which no command gets; let the command log in by itself, or read what it needs with a reference'

function partsOf(value: string): Parts {
  const whole = parseReference(value)
  if (whole) return [whole]
  const parts: (string | Reference)[] = []
  let rest = value
  for (let start = startIn(rest); start >= 0; start = startIn(rest)) {
    const { reference, end } = inlineAt(rest, start)
    if (start > 0) parts.push(rest.slice(0, start))
    parts.push(reference)
    rest = rest.slice(end)
  }
  return rest === '' ? parts : [...parts, rest]
}

const startIn = (text: string) => text.search(/\$\{(?:>>)?vault:(?=[^}]*[/#])/)

/** A reference up to the first `}` with which it is whole: JSON may hold others. */
function inlineAt(text: string, start: number): { reference: Reference; end: number } {
  let trouble = new RangeError(`${told(text.slice(start))} lacks its closing }`)
  for (let end = text.indexOf('}', start); end >= 0; end = text.indexOf('}', end + 1)) {
    try {
      const reference = parseReference(text.slice(start + 2, end))
      if (reference) return { reference, end: end + 1 }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      trouble = error
      if (!text.startsWith('${>>', start)) break
    }
  }
  throw trouble
}

/**
 * A value that is a reference as a whole; undefined for any other, `vault:8200` among them: there is no path in it. Throws a RangeError that
 * says what is wrong.
 */
export function parseReference(value: string): Reference | undefined {
  if (/^vault:v[1-9]\d*:/.test(value)) return ciphertextOf(value)
  const [, isWrite, rest] = /^(>>)?vault:(.*)$/s.exec(value) ?? []
  if (rest === undefined || !/[/#]/.test(rest)) return undefined
  const fail = (trouble: string) => new RangeError(`${told(value)}: ${trouble}`)
  const [path = '', field, ...more] = rest.split('#')
  const last = more.length === 0 ? undefined : more.join('#')
  if (!/^[^\s?/]+(?:\/[^\s?/]+)*$/.test(path) || /(?:^|\/)\.{1,2}(?:\/|$)/.test(path))
    throw fail('what follows vault: must be a path of Vault, such as secret/data/app')
  if (field === undefined || field === '') throw fail('the field is missing; write vault:PATH#FIELD')
  if (field.includes('${'))
    throw fail(
      'templates of Go are not read here; put several references into the value, each as ${vault:PATH#FIELD}, or write a file with an output of kind template',
    )
  if (field !== field.trim() || /\p{Cc}/u.test(field)) throw fail('the field must not begin or end in white space')
  if (isWrite) return { kind: 'write', path, field, data: dataOf(last ?? '{}', fail) }
  if (last === undefined) return { kind: 'read', path, field }
  if (!/^[1-9]\d{0,9}$/.test(last)) throw fail('the version must be a whole number from 1 on; the latest goes without')
  return { kind: 'read', path, field, version: Number(last) }
}

function ciphertextOf(value: string): Reference {
  if (!/^vault:v\d+:[A-Za-z0-9+/_-]+={0,2}$/.test(value))
    throw new RangeError(`${told(value)}: what follows the version of the key must be base64`)
  return { kind: 'decrypt', ciphertext: value }
}

function dataOf(text: string, fail: (trouble: string) => RangeError): Readonly<Record<string, unknown>> {
  const trouble = 'what follows the second # must be a JSON object, the data to write'
  let data: unknown
  try {
    data = JSON.parse(text)
  } catch {
    throw fail(trouble)
  }
  if (typeof data !== 'object' || data === null || Array.isArray(data)) throw fail(trouble)
  return { ...data }
}

/** Enough to find it: what follows the second `#`, or a space, may be a secret of its own. */
const told = (reference: string) => quote(/^[^#\s]*(?:#[^#\s]*)?/.exec(reference)?.[0] ?? '', 100)
