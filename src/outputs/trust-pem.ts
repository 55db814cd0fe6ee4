import * as z from 'zod'
import { certificatePem } from '../core/bundle.ts'
import { FileName, trustFileOptions } from './options.ts'
import { defineTrustOutput, trustFiles } from './trust-output.ts'

export const trustPem = defineTrustOutput({
  kind: 'pem',
  summary: 'All CAs to trust in one PEM file: ssl_client_certificate of nginx, ca-file of HAProxy and the like.',
  options: z.strictObject({ ...trustFileOptions, file: FileName.default('ca.crt').describe('Name of the file') }),
  create: ({ file, ...place }) =>
    trustFiles(place, [
      {
        name: file,
        write: ({ anchors }) => Buffer.from(anchors.map(({ certificate }) => certificatePem(certificate)).join('')),
      },
    ]),
})
