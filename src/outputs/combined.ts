import * as z from 'zod'
import { keyPem } from '../core/bundle.ts'
import { FileName, fileOptions, isShared } from './options.ts'
import { defineOutput } from './output.ts'
import { servedPem } from './pem.ts'

export const combined = defineOutput({
  kind: 'combined',
  summary: 'Private key, certificate and intermediates in one PEM file, as HAProxy reads it.',
  options: z.strictObject({
    ...fileOptions,
    file: FileName.default('tls.pem').describe('Name of the file'),
  }),
  create: ({ directory, layout, seenAs, file, uid, gid, mode }) => ({
    directory,
    layout,
    seenAs: seenAs ?? directory,
    names: [file],
    isShared: isShared(uid, mode),
    render: (bundle) => {
      const key = keyPem(bundle.key)
      const content = Buffer.concat([key, servedPem(bundle)])
      key.fill(0)
      return [{ name: file, role: 'combined', content, mode, uid, gid }]
    },
  }),
})
