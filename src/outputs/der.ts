import * as z from 'zod'
import { CertificateFile, certificateMode, fileOptions, KeyFile } from './options.ts'
import { defineOutput } from './output.ts'
import { areDistinct, nameOf, outputOf, partOf } from './parts.ts'

const USUAL = { certificate: 'tls.der', key: 'tls.key.der' } as const

const Files = z
  .strictObject({
    certificate: CertificateFile.default(USUAL.certificate).describe(
      'The certificate alone, since DER has no room for more; tls.der unless given',
    ),
    key: KeyFile.default(USUAL.key).describe('The private key, PKCS#8; tls.key.der unless given'),
  })
  .refine(
    ({ certificate, key }) => areDistinct([nameOf(certificate, USUAL.certificate), nameOf(key, USUAL.key)]),
    'names a file twice',
  )
  .refine(({ certificate, key }) => certificate !== false || key !== false, 'leaves out every file')

export const derFiles = defineOutput({
  kind: 'der',
  summary: 'Certificate and private key as DER files.',
  options: z.strictObject({
    ...fileOptions,
    certificateMode,
    files: Files.prefault({}).describe(
      'Names of the files; or for each a map of name, mode, uid, gid and acl; or false to leave it out',
    ),
  }),
  create: (options) => {
    const { files, uid, gid, acl, mode, certificateMode = mode } = options
    const access = { uid, gid, acl, mode }
    return outputOf(
      options,
      [
        ...partOf(files.key, {
          usual: USUAL.key,
          role: 'key-form',
          access,
          write: ({ key }) => key.export({ type: 'pkcs8', format: 'der' }),
        }),
        ...partOf(files.certificate, {
          usual: USUAL.certificate,
          role: 'certificate-form',
          access: { ...access, mode: certificateMode },
          write: ({ leaf }) => Buffer.from(leaf.raw),
        }),
      ],
      {},
    )
  },
})
