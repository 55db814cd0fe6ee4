import * as z from 'zod'
import { trustStoreOf } from '../core/pkcs12-file.ts'
import { FileName, trustFileOptions } from './options.ts'
import { PasswordFile, withPassword } from './password.ts'
import { defineTrustOutput, trustFiles } from './trust-output.ts'

export const trustPkcs12 = defineTrustOutput({
  kind: 'pkcs12',
  summary: 'All CAs in a PKCS#12 trust store for Java, with the password from a file.',
  options: z.strictObject({
    ...trustFileOptions,
    file: FileName.default('truststore.p12').describe('Name of the file'),
    passwordFile: PasswordFile,
  }),
  create: ({ file, passwordFile, ...place }) =>
    trustFiles(
      place,
      [
        {
          name: file,
          write: ({ anchors }) =>
            withPassword(passwordFile, (password) =>
              trustStoreOf(
                anchors.map(({ certificate }) => certificate),
                password,
              ),
            ),
        },
      ],
      async () => withPassword(passwordFile, () => undefined),
    ),
})
