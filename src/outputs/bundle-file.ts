import { createPrivateKey } from 'node:crypto'
import { type Bundle, certificatePem, keyPem, toBundle } from '../core/bundle.ts'
import type { Codec } from './store.ts'

/** A certificate in a generation: its key, then the leaf and all that came with it, in PEM. */
export const bundleFile: Codec<Bundle> = {
  file: '..bundle.pem',
  encode: ({ key, leaf, intermediates, roots }) => {
    const secret = keyPem(key)
    const certificates = Buffer.from([leaf, ...intermediates, ...roots].map(certificatePem).join(''))
    try {
      return Buffer.concat([secret, certificates])
    } finally {
      secret.fill(0)
    }
  },
  decode: (bytes, { origin, receivedAt }) =>
    toBundle({
      certificate: bytes.subarray(bytes.indexOf('-----BEGIN CERTIFICATE')).toString(),
      issuers: [],
      key: createPrivateKey(bytes),
      origin,
      receivedAt,
    }),
}
