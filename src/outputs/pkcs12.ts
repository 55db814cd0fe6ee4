import * as z from 'zod'
import { keyStoreOf, trustStoreOf } from '../core/pkcs12-file.ts'
import { CertificateFile, certificateMode, fileOptions, KeyFile } from './options.ts'
import { defineOutput } from './output.ts'
import { areDistinct, nameOf, outputOf, partOf } from './parts.ts'
import { PasswordFile, withPassword } from './password.ts'
import { anchorsOf } from './pem.ts'

const USUAL = { keyStore: 'keystore.p12', trustStore: 'truststore.p12' } as const

const Files = z
  .strictObject({
    keyStore: KeyFile.default(USUAL.keyStore).describe(
      'Private key, certificate and intermediates; keystore.p12 unless given',
    ),
    trustStore: CertificateFile.optional().describe(
      'The CA certificates, marked as trusted for Java; not written unless named',
    ),
  })
  .refine(
    (files) => areDistinct([nameOf(files.keyStore, USUAL.keyStore), nameOf(files.trustStore, USUAL.trustStore)]),
    'names a file twice',
  )
  .refine(({ keyStore, trustStore }) => keyStore !== false || (trustStore ?? false) !== false, 'leaves out every file')

export const pkcs12 = defineOutput({
  kind: 'pkcs12',
  summary: 'PKCS#12 key store, and trust store for Java: AES-256 and SHA-256, with the password from a file.',
  options: z.strictObject({
    ...fileOptions,
    certificateMode,
    passwordFile: PasswordFile,
    alias: z
      .string()
      .regex(/^[\x20-\x7e]{1,64}$/, 'must be 1 to 64 characters of ASCII')
      .optional()
      .describe('Name of the key in the key store (friendlyName); the name of the certificate unless given'),
    files: Files.prefault({}).describe(
      'Names of the files; or for each a map of name, mode, uid, gid and acl; or false to leave it out',
    ),
  }),
  create: (options, { certificate }) => {
    const { files, passwordFile, alias = certificate, uid, gid, acl, mode, certificateMode = mode } = options
    const access = { uid, gid, acl, mode }
    const parts = [
      ...partOf(files.trustStore, {
        usual: USUAL.trustStore,
        role: 'ca',
        access: { ...access, mode: certificateMode },
        write: (bundle) => withPassword(passwordFile, (password) => trustStoreOf(anchorsOf(bundle), password)),
      }),
      ...partOf(files.keyStore, {
        usual: USUAL.keyStore,
        role: 'key-form',
        access,
        write: ({ key, leaf, intermediates }) =>
          withPassword(passwordFile, (password) =>
            keyStoreOf({ key, certificates: [leaf, ...intermediates], alias }, password),
          ),
      }),
    ]
    return outputOf(options, parts, { passwordFile })
  },
})
