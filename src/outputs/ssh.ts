import { createPublicKey } from 'node:crypto'
import * as z from 'zod'
import { sshPrivateKey, sshPublicKey } from '../core/ssh.ts'
import { CertificateFile, certificateMode, fileOptions, KeyFile } from './options.ts'
import { defineOutput } from './output.ts'
import { areDistinct, nameOf, outputOf, partOf } from './parts.ts'

const USUAL = { key: 'id', publicKey: 'id.pub' } as const

const Files = z
  .strictObject({
    key: KeyFile.default(USUAL.key).describe(
      'The private key in the form of OpenSSH, without a passphrase; id unless given',
    ),
    publicKey: CertificateFile.default(USUAL.publicKey).describe('The public key in one line; id.pub unless given'),
  })
  .refine(
    ({ key, publicKey }) => areDistinct([nameOf(key, USUAL.key), nameOf(publicKey, USUAL.publicKey)]),
    'names a file twice',
  )
  .refine(({ key, publicKey }) => key !== false || publicKey !== false, 'leaves out every file')

export const ssh = defineOutput({
  kind: 'ssh',
  summary: 'The key of the certificate for OpenSSH: private key and public key line.',
  options: z.strictObject({
    ...fileOptions,
    certificateMode,
    files: Files.prefault({}).describe(
      'Names of the files; or for each a map of name, mode, uid, gid and acl; or false to leave it out',
    ),
  }),
  create: (options, { certificate }) => {
    const { files, uid, gid, acl, mode, certificateMode = mode } = options
    const access = { uid, gid, acl, mode }
    return outputOf(
      options,
      [
        ...partOf(files.key, {
          usual: USUAL.key,
          role: 'key-form',
          access,
          write: ({ key }) => sshPrivateKey(key, certificate),
        }),
        ...partOf(files.publicKey, {
          usual: USUAL.publicKey,
          role: 'certificate-form',
          access: { ...access, mode: certificateMode },
          write: ({ key }) => Buffer.from(`${sshPublicKey(createPublicKey(key))} ${certificate}\n`),
        }),
      ],
      { keyFormat: 'ssh' },
    )
  },
})
