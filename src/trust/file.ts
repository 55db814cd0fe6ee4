import type { X509Certificate } from 'node:crypto'
import * as z from 'zod'
import { parseCertificates } from '../core/bundle.ts'
import { SidecarError, systemCode } from '../errors.ts'
import { readPlainFile } from '../plain-file.ts'
import { defineAnchors, defineLists } from './anchor.ts'
import { blocksOfLists } from './blocks.ts'

const MAX_LIST_BYTES = 16 * 1024 * 1024

const File = z.string().regex(/^\/[^\0]*$/, 'must be an absolute path')

export const fileAnchors = defineAnchors({
  kind: 'file',
  summary: 'CA certificates in a PEM file that somebody else writes; read again at each look.',
  options: z.strictObject({ file: File.describe('PEM file of CA certificates') }),
  create: ({ file }) => ({
    origin: `file ${file}`,
    read: async () => anchorsIn(readText(file, undefined).toString('latin1'), file),
  }),
})

export const fileLists = defineLists({
  kind: 'file',
  summary: 'Revocation lists in a file, PEM or DER; read again at each look.',
  options: z.strictObject({ file: File.describe('File of one list in DER, or of one or more in PEM') }),
  create: ({ file }) => ({
    origin: `file ${file}`,
    read: async () => blocksOfLists(readText(file, MAX_LIST_BYTES), file),
  }),
})

function anchorsIn(text: string, file: string): readonly X509Certificate[] {
  const invalid = (why: string, cause?: unknown) => new SidecarError('TRUST_INVALID', `${file} ${why}`, { cause })
  let found: readonly X509Certificate[]
  try {
    found = parseCertificates(text)
  } catch (cause) {
    throw invalid('holds a certificate that does not parse', cause)
  }
  if (found.length === 0) throw invalid('holds no certificate in PEM')
  // The beginning alone, of what is still being written, would take the other CAs away.
  if (found.length !== text.split('-----BEGIN CERTIFICATE-----').length - 1)
    throw invalid('is cut off within a certificate')
  return found
}

function readText(file: string, limit: number | undefined): Buffer {
  try {
    return readPlainFile(file, limit)
  } catch (cause) {
    throw new SidecarError('TRUST_INVALID', `${file} cannot be read (${systemCode(cause) ?? String(cause)})`, { cause })
  }
}
