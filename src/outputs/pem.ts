import * as z from 'zod'
import { type Bundle, certificatePem } from '../core/bundle.ts'
import {
  CertificateFile,
  certificateMode,
  fileOptions,
  hasPasswordFor,
  isLinked,
  KeyFile,
  keyOptions,
  PASSWORD_RULE,
  SET_RULE,
} from './options.ts'
import { defineOutput } from './output.ts'
import { areDistinct, nameOf, outputOf, partOf, stapleOf, writeKey } from './parts.ts'

const USUAL = {
  certificate: 'tls.crt',
  key: 'tls.key',
  ca: 'ca.crt',
  chain: 'chain.crt',
  leaf: 'leaf.crt',
  fullChain: 'fullchain.crt',
  ocsp: 'tls.ocsp',
} as const

const Files = z
  .strictObject({
    certificate: CertificateFile.default(USUAL.certificate).describe(
      'The certificate followed by its intermediates; tls.crt unless given',
    ),
    key: KeyFile.default(USUAL.key).describe('The private key, in the form of keyFormat; tls.key unless given'),
    ca: CertificateFile.default(USUAL.ca).describe(
      'The roots; where the source delivers none, the topmost intermediate; ca.crt unless given',
    ),
    chain: CertificateFile.optional().describe('The intermediates alone; not written unless named'),
    leaf: CertificateFile.optional().describe('The certificate alone; not written unless named'),
    fullChain: CertificateFile.optional().describe(
      'Certificate, intermediates and roots; not written unless named, since servers should not send the root',
    ),
    ocsp: CertificateFile.optional().describe(
      'The OCSP response of the certificate, DER, as ssl_stapling_file of nginx reads it; asked for and renewed where it is named',
    ),
  })
  .refine(
    (files) =>
      areDistinct([
        nameOf(files.certificate, USUAL.certificate),
        nameOf(files.key, USUAL.key),
        nameOf(files.ca, USUAL.ca),
        nameOf(files.chain, USUAL.chain),
        nameOf(files.leaf, USUAL.leaf),
        nameOf(files.fullChain, USUAL.fullChain),
        nameOf(files.ocsp, USUAL.ocsp),
      ]),
    'names a file twice',
  )
  .refine((files) => Object.values(files).some((file) => file !== false && file !== undefined), 'leaves out every file')

export const pem = defineOutput({
  kind: 'pem',
  summary: 'Certificate with its chain, private key and CA certificates as PEM files.',
  options: z
    .strictObject({
      ...fileOptions,
      certificateMode,
      ...keyOptions,
      files: Files.prefault({}).describe(
        'Names of the files; or for each a map of name, mode, uid, gid and acl; or false to leave it out',
      ),
    })
    .refine(hasPasswordFor, PASSWORD_RULE)
    .refine(isLinked, SET_RULE),
  create: (options) => {
    const { files, uid, gid, acl, mode, certificateMode = mode, keyFormat, passwordFile } = options
    const closed = { uid, gid, acl, mode }
    const open = { ...closed, mode: certificateMode }
    const parts = [
      ...partOf(files.ca, { usual: USUAL.ca, role: 'ca', access: open, write: caPem }),
      ...partOf(files.chain, {
        usual: USUAL.chain,
        role: 'chain',
        access: open,
        write: ({ intermediates }) => allPem(intermediates),
      }),
      ...partOf(files.leaf, { usual: USUAL.leaf, role: 'chain', access: open, write: ({ leaf }) => allPem([leaf]) }),
      ...partOf(files.fullChain, {
        usual: USUAL.fullChain,
        role: 'chain',
        access: open,
        write: ({ leaf, intermediates, roots }) => allPem([leaf, ...intermediates, ...roots]),
      }),
      ...partOf(files.ocsp, { usual: USUAL.ocsp, role: 'staple', access: open, write: stapleOf }),
      ...partOf(files.key, {
        usual: USUAL.key,
        role: 'key',
        access: closed,
        write: ({ key }) => writeKey(key, keyFormat, passwordFile),
      }),
      ...partOf(files.certificate, { usual: USUAL.certificate, role: 'certificate', access: open, write: servedPem }),
    ]
    return outputOf(options, parts, { passwordFile, ...(files.key !== false && { keyFormat }) })
  },
})

/** What a server sends: the leaf first, then its issuers in order, without the root (RFC 8446 §4.4.2). */
export const servedPem = ({ leaf, intermediates }: Bundle): Buffer => allPem([leaf, ...intermediates])

/** Without a root at hand, the topmost issuer is the best anchor there is. */
export const caPem = (bundle: Bundle): Buffer => allPem(anchorsOf(bundle))

export const anchorsOf = ({ roots, intermediates }: Pick<Bundle, 'roots' | 'intermediates'>): Bundle['roots'] =>
  roots.length > 0 ? roots : intermediates.slice(-1)

export const allPem = (certificates: Bundle['roots']): Buffer => Buffer.from(certificates.map(certificatePem).join(''))
