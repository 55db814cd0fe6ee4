import * as z from 'zod'
import { pem } from '../core/csr.ts'
import type { RevocationList } from '../core/trust.ts'
import { FileName, trustFileOptions } from './options.ts'
import { defineTrustOutput, trustFiles } from './trust-output.ts'

export const trustCrl = defineTrustOutput({
  kind: 'crl',
  summary:
    'All revocation lists in one PEM file, as ssl_crl of nginx wants them: one of each CA of the chain, root and intermediates.',
  options: z
    .strictObject({
      ...trustFileOptions,
      file: FileName.default('crl.pem').describe('Name of the file'),
      deltaFile: FileName.optional().describe(
        'File of its own for the delta lists, so that no server takes what changed for all there is',
      ),
    })
    .refine(({ file, deltaFile }) => file !== deltaFile, { path: ['deltaFile'], error: 'names a file twice' }),
  create: ({ file, deltaFile, ...place }) =>
    trustFiles(place, [
      { name: file, write: ({ lists }) => pemOf(lists.filter(({ isDelta }) => !isDelta)) },
      ...(deltaFile === undefined
        ? []
        : [
            {
              name: deltaFile,
              write: ({ lists }: { readonly lists: readonly RevocationList[] }) =>
                pemOf(lists.filter(({ isDelta }) => isDelta)),
            },
          ]),
    ]),
})

const pemOf = (lists: readonly RevocationList[]): Buffer =>
  Buffer.from(lists.map(({ der }) => pem('X509 CRL', der)).join(''))
