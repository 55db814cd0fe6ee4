import { inspect } from 'node:util'

const MASK = '[secret]'

/** A value which prints as [secret] in strings, JSON, logs and inspect; `reveal` is the only way to it. */
export class Secret<T = string> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  reveal(): T {
    return this.#value
  }

  toString(): string {
    return MASK
  }

  toJSON(): string {
    return MASK
  }

  [inspect.custom](): string {
    return MASK
  }
}

const LOOKS_SECRET =
  /\b(?:hv[sbr]\.[\w-]{8,}|[sbr]\.[A-Za-z0-9]{24,})|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g

/** Text from outside (a command's output, an answer of Vault) without tokens and private keys, for messages. */
export const redact = (text: string): string => text.replace(LOOKS_SECRET, MASK)

/** Text that may repeat what was told in confidence, without these values, in whatever form and case an answer would carry them. */
export function mask(text: string, secrets: readonly Secret[]): string {
  const forms = secrets
    .flatMap((secret) => formsOf(secret.reveal()))
    // What is shorter would mask half the text, and hide nothing.
    .filter((form) => form.length >= 4)
    .sort((a, b) => b.length - a.length)
  return forms.length === 0 ? text : text.replace(new RegExp(forms.map(RegExp.escape).join('|'), 'gi'), MASK)
}

/** As it is, as JSON (Go escapes more than it must), in a URL, in hex, and in base64 wherever in the encoded text it begins. */
function formsOf(value: string): string[] {
  const bytes = Buffer.from(value)
  const json = JSON.stringify(value).slice(1, -1)
  const base64 = [0, 1, 2].map((offset) => base64Within(bytes, offset))
  return [
    value,
    json,
    json.replace(/[<>&]/g, (c) => `\\u00${c.charCodeAt(0).toString(16)}`),
    // A text may hold half a surrogate pair.
    encodeURIComponent(value.toWellFormed()),
    bytes.toString('hex'),
    ...base64,
    ...base64.map((text) => text.replaceAll('+', '-').replaceAll('/', '_')),
  ]
}

/** Those characters of the base64 form of something longer that depend on `bytes` alone, where these begin `offset` bytes after a multiple of three. */
const base64Within = (bytes: Buffer, offset: number): string =>
  Buffer.concat([Buffer.alloc(offset), bytes])
    .toString('base64')
    .slice(offset && offset + 1, Math.floor(((offset + bytes.length) * 8) / 6))

/** Foreign text made safe for one line of a message: redacted, characters that control or hide escaped, cut to `limit` characters. */
export function quote(text: string, limit = 300): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is being escaped
  const clean = redact(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]|\p{Cf}/gu, (c) =>
    c === '\n' ? ' ' : `\\x${c.codePointAt(0)?.toString(16).padStart(2, '0')}`,
  )
  return clean.length > limit ? `${clean.slice(0, limit)}…` : clean
}
