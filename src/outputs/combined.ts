import * as z from 'zod'
import { keyPem } from '../core/bundle.ts'
import { FileName, fileOptions, isShared } from './options.ts'
import { defineOutput } from './output.ts'
import { servedPem, stapleFile } from './pem.ts'

export const combined = defineOutput({
  kind: 'combined',
  summary: 'Private key, certificate and intermediates in one PEM file, as HAProxy reads it.',
  options: z
    .strictObject({
      ...fileOptions,
      file: FileName.default('tls.pem').describe('Name of the file'),
      ocspFile: FileName.optional().describe(
        'The OCSP response of the certificate beside it, for HAProxy tls.pem.ocsp; asked for and renewed where it is named',
      ),
    })
    .refine(({ file, ocspFile }) => file !== ocspFile, { path: ['ocspFile'], error: 'names a file twice' }),
  create: ({ directory, layout, seenAs, file, ocspFile, uid, gid, mode }) => ({
    directory,
    layout,
    seenAs: seenAs ?? directory,
    names: ocspFile === undefined ? [file] : [ocspFile, file],
    staples: ocspFile !== undefined,
    isShared: isShared(uid, mode),
    render: (bundle) => {
      const key = keyPem(bundle.key)
      const content = Buffer.concat([key, servedPem(bundle)])
      key.fill(0)
      return [
        ...stapleFile(bundle, ocspFile, { mode, uid, gid }),
        { name: file, role: 'combined', content, mode, uid, gid },
      ]
    },
  }),
})
