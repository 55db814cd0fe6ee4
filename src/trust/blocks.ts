import { SidecarError } from '../errors.ts'

/** The lists in a file or an answer, DER each: one as it is, or all blocks of PEM. Throws CRL_INVALID for what is neither, or half there. */
export function blocksOfLists(content: Buffer, place: string): Buffer[] {
  const text = content.toString('latin1')
  const blocks = [...text.matchAll(/-----BEGIN X509 CRL-----([\s\S]*?)-----END X509 CRL-----/g)]
  // One without its end is being written: without its list, servers would refuse whom its CA signed.
  if (blocks.length !== text.split('-----BEGIN X509 CRL-----').length - 1)
    throw new SidecarError(
      'CRL_INVALID',
      `a revocation list in ${place} has no end; it may not be written to its end yet`,
    )
  if (blocks.length > 0) return blocks.map(([, body = '']) => Buffer.from(body, 'base64'))
  // X.690: a SEQUENCE whose length takes bytes of its own.
  if (content[0] === 0x30 && (content[1] ?? 0) >= 0x80) return [content]
  throw new SidecarError('CRL_INVALID', `${place} holds no revocation list, neither DER nor PEM`)
}
