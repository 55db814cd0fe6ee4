import { createPrivateKey } from 'node:crypto'
import * as z from 'zod'
import { type Bundle, certificatePem, keyPem, toBundle } from '../core/bundle.ts'
import { pem } from '../core/csr.ts'
import { type Staple, withStaple } from '../core/staple.ts'
import type { Codec } from './store.ts'

const Times = z.object({ thisUpdate: z.number(), nextUpdate: z.number().optional() })
const STAPLE = /^OCSP (\{.*\})\n-----BEGIN OCSP RESPONSE-----\n([\w+/=\n]+)-----END OCSP RESPONSE-----$/m

/** PEM allows for text outside of its blocks: there the times stand, which a restart need not parse the response for. */
const stapleText = ({ der, thisUpdate, nextUpdate }: Staple) =>
  `OCSP ${JSON.stringify({ thisUpdate, nextUpdate })}\n${pem('OCSP RESPONSE', der)}`

function stapleIn(text: string): Staple | undefined {
  const [, times = '', base64 = ''] = STAPLE.exec(text) ?? []
  if (times === '') return undefined
  const { thisUpdate, nextUpdate } = Times.parse(JSON.parse(times))
  return { der: Buffer.from(base64, 'base64'), thisUpdate, nextUpdate }
}

/** A certificate in a generation: its key, then the leaf, all that came with it and its OCSP response, in PEM. */
export const bundleFile: Codec<Bundle> = {
  file: '..bundle.pem',
  encode: ({ key, leaf, intermediates, roots, staple }) => {
    const secret = keyPem(key)
    const certificates = Buffer.from(
      [leaf, ...intermediates, ...roots].map(certificatePem).join('') + (staple ? stapleText(staple) : ''),
    )
    try {
      return Buffer.concat([secret, certificates])
    } finally {
      secret.fill(0)
    }
  },
  decode: (bytes, { origin, receivedAt }) => {
    const certificate = bytes.subarray(bytes.indexOf('-----BEGIN CERTIFICATE')).toString()
    const bundle = toBundle({ certificate, issuers: [], key: createPrivateKey(bytes), origin, receivedAt })
    const staple = stapleIn(certificate)
    return staple ? withStaple(bundle, staple) : bundle
  },
}
