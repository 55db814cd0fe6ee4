import * as z from 'zod'
import { type Bundle, certificatePem, keyPem } from '../core/bundle.ts'
import { certificateMode, FileName, fileOptions, isShared } from './options.ts'
import { defineOutput, type OutputFile } from './output.ts'

const Files = z
  .strictObject({
    certificate: FileName.default('tls.crt').describe('The certificate followed by its intermediates'),
    key: FileName.default('tls.key').describe('The private key, PKCS#8'),
    ca: FileName.default('ca.crt').describe('The roots; where the source delivers none, the topmost intermediate'),
    chain: FileName.optional().describe('The intermediates alone; not written unless named'),
    ocsp: FileName.optional().describe(
      'The OCSP response of the certificate, DER, as ssl_stapling_file of nginx reads it; asked for and renewed where it is named',
    ),
  })
  .refine((files) => {
    const names = Object.values(files).filter((name) => name !== undefined)
    return new Set(names).size === names.length
  }, 'names a file twice')

export const pem = defineOutput({
  kind: 'pem',
  summary: 'Certificate with its chain, private key and CA certificates as PEM files.',
  options: z.strictObject({
    ...fileOptions,
    certificateMode,
    files: Files.prefault({}).describe('Names of the files'),
  }),
  create: ({ directory, layout, seenAs, files, uid, gid, mode, certificateMode = mode }) => {
    const open = { uid, gid, mode: certificateMode }
    return {
      directory,
      layout,
      seenAs: seenAs ?? directory,
      names: [files.ca, files.chain, files.ocsp, files.key, files.certificate].filter((name) => name !== undefined),
      staples: files.ocsp !== undefined,
      isShared: isShared(uid, mode, certificateMode),
      render: (bundle): OutputFile[] => [
        { ...open, name: files.ca, role: 'ca', content: caPem(bundle) },
        ...(files.chain === undefined
          ? []
          : [{ ...open, name: files.chain, role: 'chain' as const, content: allPem(bundle.intermediates) }]),
        ...stapleFile(bundle, files.ocsp, open),
        { uid, gid, mode, name: files.key, role: 'key', content: keyPem(bundle.key) },
        { ...open, name: files.certificate, role: 'certificate', content: servedPem(bundle) },
      ],
    }
  },
})

/** None while there is no response, or none is wanted. */
export const stapleFile = (
  { staple }: Bundle,
  name: string | undefined,
  open: Pick<OutputFile, 'mode' | 'uid' | 'gid'>,
): OutputFile[] =>
  // The store may wipe what it is given.
  staple && name !== undefined ? [{ ...open, name, role: 'staple', content: Buffer.from(staple.der) }] : []

/** What a server sends: the leaf first, then its issuers in order, without the root (RFC 8446 §4.4.2). */
export const servedPem = ({ leaf, intermediates }: Bundle): Buffer => allPem([leaf, ...intermediates])

/** Without a root at hand, the topmost issuer is the best anchor there is. */
export function caPem({ roots, intermediates }: Bundle): Buffer {
  return allPem(roots.length > 0 ? roots : intermediates.slice(-1))
}

const allPem = (certificates: Bundle['roots']): Buffer => Buffer.from(certificates.map(certificatePem).join(''))
