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

/** Text that may repeat what was told in confidence, without these values. Those under four characters would mask half the text, and hide nothing. */
export const mask = (text: string, secrets: readonly Secret[]): string =>
  secrets
    .map((secret) => secret.reveal())
    .filter((value) => value.length >= 4)
    .sort((a, b) => b.length - a.length)
    .reduce((masked, value) => masked.replaceAll(value, MASK), text)

/** Foreign text made safe for one line of a message: redacted, control characters escaped, cut to `limit` characters. */
export function quote(text: string, limit = 300): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is being escaped
  const clean = redact(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (c) =>
    c === '\n' ? ' ' : `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`,
  )
  return clean.length > limit ? `${clean.slice(0, limit)}…` : clean
}
