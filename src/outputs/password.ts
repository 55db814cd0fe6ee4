import { statSync } from 'node:fs'
import * as z from 'zod'
import { formatMode } from '../core/units.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'

export const PasswordFile = z
  .string()
  .regex(/^\/[^\0]*$/, 'must be an absolute path')
  .describe('File that holds the password, in one line; read again for each set. Not readable by everybody')

/** Longer than anybody's, and a block of RFC 7292 B.2 that need not be cut. */
const MAX_BYTES = 1024

/** Runs `use` with the password in `path`, which is overwritten after it. Throws PASSWORD_FILE. */
export function withPassword<T>(path: string, use: (password: Buffer) => T): T {
  const content = read(path)
  try {
    return use(passwordIn(content, path))
  } finally {
    content.fill(0)
  }
}

function read(path: string): Buffer {
  try {
    const { mode } = statSync(path)
    if (mode & 0o026) throw new SidecarError('PASSWORD_FILE', `${path} has mode ${formatMode(mode)}: ${tooOpen(mode)}`)
    return readPlainFile(path, MAX_BYTES)
  } catch (cause) {
    if (cause instanceof SidecarError) throw cause
    throw new SidecarError('PASSWORD_FILE', `cannot read ${path} (${systemCode(cause) ?? 'unknown'})`, { cause })
  }
}

const tooOpen = (mode: number) => (mode & 0o022 ? 'others may write the password' : 'everybody may read the password')

function passwordIn(content: Buffer, path: string): Buffer {
  const end = content.at(-1) === 0x0a ? (content.at(-2) === 0x0d ? -2 : -1) : content.length
  const password = content.subarray(0, end)
  if (password.length === 0) throw new SidecarError('PASSWORD_FILE', `${path} is empty`)
  // Java takes no other in PKCS#12, and a line break within is a mistake.
  if (password.some((byte) => byte < 0x20 || byte > 0x7e))
    throw new SidecarError('PASSWORD_FILE', `${path} holds more than one line, or more than ASCII`)
  return password
}
