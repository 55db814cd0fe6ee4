import * as z from 'zod'
import type { Bundle } from '../core/bundle.ts'
import type { KeyFormat } from '../core/key-format.ts'
import {
  CertificateFile,
  FileName,
  fileOptions,
  hasPasswordFor,
  isLinked,
  keyOptions,
  PASSWORD_RULE,
  SET_RULE,
} from './options.ts'
import { defineOutput } from './output.ts'
import { areDistinct, nameOf, outputOf, partOf, stapleOf, writeKey } from './parts.ts'
import { allPem, caPem } from './pem.ts'

/** HAProxy looks for it beside the file. */
const USUAL_OCSP = 'tls.pem.ocsp'

const PIECES = ['key', 'certificate', 'chain', 'ca'] as const
type Piece = (typeof PIECES)[number]

export const combined = defineOutput({
  kind: 'combined',
  summary: 'Private key, certificate and intermediates in one PEM file, as HAProxy reads it.',
  options: z
    .strictObject({
      ...fileOptions,
      file: FileName.default('tls.pem').describe('Name of the file'),
      order: z
        .array(z.enum(PIECES))
        .refine((order) => new Set(order).size === order.length, 'names a piece twice')
        .refine(
          (order) => order.includes('key') && order.includes('certificate'),
          'must hold key and certificate; a file without one of them is one of pem',
        )
        .refine(
          (order) => !order.includes('chain') || order.indexOf('chain') > order.indexOf('certificate'),
          'must have the chain after the certificate: TLS sends them as they stand (RFC 8446 §4.4.2)',
        )
        .default(['key', 'certificate', 'chain'])
        .describe('What stands in it, in this order: key, certificate, chain (the intermediates), ca (the roots)'),
      ...keyOptions,
      ocspFile: CertificateFile.optional().describe(
        'The OCSP response of the certificate beside it, for HAProxy tls.pem.ocsp; asked for and renewed where it is named',
      ),
    })
    .refine(({ file, ocspFile }) => areDistinct([file, nameOf(ocspFile, USUAL_OCSP)]), {
      path: ['ocspFile'],
      error: 'names a file twice',
    })
    .refine(hasPasswordFor, PASSWORD_RULE)
    .refine(isLinked, SET_RULE),
  create: (options) => {
    const { file, ocspFile, order, uid, gid, acl, mode, keyFormat, passwordFile } = options
    const write = (bundle: Bundle) => {
      const pieces = order.map((piece) => pieceOf(bundle, piece, { keyFormat, passwordFile }))
      const content = Buffer.concat(pieces)
      for (const piece of pieces) piece.fill(0)
      return content
    }
    const part = { name: file, role: 'combined', mode, uid, gid, acl, write } as const
    const staple = partOf(ocspFile, {
      usual: USUAL_OCSP,
      role: 'staple',
      access: { uid, gid, acl, mode },
      write: stapleOf,
    })
    return outputOf(options, [...staple, part], { keyFormat, passwordFile })
  },
})

interface KeyOptions {
  readonly keyFormat: KeyFormat
  readonly passwordFile: string | undefined
}

function pieceOf(bundle: Bundle, piece: Piece, { keyFormat, passwordFile }: KeyOptions): Buffer {
  switch (piece) {
    case 'key':
      return writeKey(bundle.key, keyFormat, passwordFile)
    case 'certificate':
      return allPem([bundle.leaf])
    case 'chain':
      return allPem(bundle.intermediates)
    case 'ca':
      return caPem(bundle)
  }
}
