import { createHash } from 'node:crypto'
import * as z from 'zod'
import { Secret } from '../../core/secret.ts'
import { SidecarError, systemCode } from '../../errors.ts'
import { readPlainFile } from '../../plain-file.ts'

/** Longer than any token, JWT or secret_id. */
const MAX_BYTES = 64 * 1024

/** Config: path of a file; absolute, because the working directory of a sidecar is nobody's concern. */
export const AbsolutePath = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path')

/** What a header can carry; more than one line is no credential. */
const PRINTABLE = /^[\x20-\x7e]+$/

/** Config: a credential in the config itself, such as `${VAULT_TOKEN}`; never printed. */
export const SecretText = z
  .string()
  .trim()
  .regex(PRINTABLE, 'must not be empty, nor hold more than one line')
  .transform((text) => new Secret(text))

/** Of any language, but one line; what is no UTF-8 becomes U+FFFD. */
const ONE_LINE = /^[^\p{Cc}\u2028\u2029\ufffd]+$/u

/** Config: a password in the config itself, such as `${PASSWORD}`; never printed. Spaces are part of it. */
export const PasswordText = z
  .string()
  .regex(ONE_LINE, 'must not be empty, nor hold more than one line')
  .transform((text) => new Secret(text))

/** The credential given in the config, or the one that `file` holds now. */
export const credentialFrom = async (
  value: Secret | undefined,
  file: string | undefined,
): Promise<Secret | undefined> => (file === undefined ? value : readCredential(file))

/** A credential in a file, without surrounding white space. Throws AUTH_SOURCE when it is missing, empty, unreadable or no plain file. */
export async function readCredential(path: string): Promise<Secret> {
  const text = readSource(path)
  if (!PRINTABLE.test(text))
    throw new SidecarError('AUTH_SOURCE', `${path} holds more than one line, or what is not text`)
  return new Secret(text)
}

/** A password in a file, without the line break at its end. Throws AUTH_SOURCE as `readCredential` does. */
export function readPassword(path: string): Secret {
  const text = readText(path).replace(/\r?\n$/, '')
  if (text === '') throw new SidecarError('AUTH_SOURCE', `${path} is empty`)
  if (!ONE_LINE.test(text))
    throw new SidecarError('AUTH_SOURCE', `${path} holds more than one line, or what is not text`)
  return new Secret(text)
}

/** What a file holds, without surrounding white space. Throws AUTH_SOURCE when it is missing, empty, unreadable or no plain file. */
export function readSource(path: string): string {
  const text = readText(path).trim()
  if (text === '') throw new SidecarError('AUTH_SOURCE', `${path} is empty`)
  return text
}

function readText(path: string): string {
  try {
    const content = readPlainFile(path)
    if (content.length <= MAX_BYTES) return content.toString('utf8')
  } catch (cause) {
    throw new SidecarError('AUTH_SOURCE', `cannot read ${path} (${systemCode(cause) ?? 'unknown'})`, { cause })
  }
  throw new SidecarError('AUTH_SOURCE', `${path} is too long for a credential`)
}

/** Tells credentials apart without keeping them. */
export const fingerprintOf = (...secrets: readonly (string | undefined)[]): string =>
  createHash('sha256').update(JSON.stringify(secrets)).digest('hex')
